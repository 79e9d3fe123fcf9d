//! What was asked for of late, and what more memory would have made of it.
