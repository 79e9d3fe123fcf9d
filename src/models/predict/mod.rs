//! Which model will be asked for next.
