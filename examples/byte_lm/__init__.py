"""A small language model over bytes, in NumPy: what it read, how it was trained, how it generates for many at once."""
