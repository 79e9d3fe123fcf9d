//! Which model leaves where there is no room.
