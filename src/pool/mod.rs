//! Connection pooling: which connection serves which request, and which endpoint.
