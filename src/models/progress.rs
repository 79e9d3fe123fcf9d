//! How far loads are.
