//! Loads that fail: when they are tried again, how long they are remembered, when they are forgiven.
