"""The ladder: what each of the four optimizations brings, alone, added one by one, and taken away."""
