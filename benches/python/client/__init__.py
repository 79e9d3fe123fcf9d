"""The HTTP client measured: beside its peers, with a long queue before a small pool, with and without reuse."""
