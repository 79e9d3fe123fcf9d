//! A listening socket that this process was given: by its parent, which shares one port among several.
#![allow(unsafe_code, reason = "a descriptor is a number until somebody vouches for it")]

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};

/// The socket of that number, which is this server's from now on. Whether it listens shows when it is first used.
pub(crate) fn listener(descriptor: i32) -> TcpListener {
    // SAFETY: the Python side gives away what `socket.detach()` returned: a descriptor that is open, and that nobody else
    // in this process will use or close.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    TcpListener::from(owned)
}
