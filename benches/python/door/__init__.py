"""The HTTP door measured: beside bare hyper, beside its peers, and under what may go wrong around it."""
