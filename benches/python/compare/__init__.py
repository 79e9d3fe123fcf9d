"""Penstock beside other people's servers, clients and readers of weights: the same work, in the same rounds."""
