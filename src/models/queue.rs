//! Which load is next.
