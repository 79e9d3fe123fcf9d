"""Model formats measured: what it takes to have weights, and what graphs cost that run without the interpreter."""
