"""Scenarios of load, within capacity and beyond it, and the soak: what a server does, and whether it stays flat."""

SWAPPED = ("a", "b", "c")
"""Models of the soak that do not fit into memory together."""
