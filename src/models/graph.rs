//! Which model needs which.
