//! Payloads of the protocols that the doors and the clients speak, without I/O.

pub mod http1;
pub mod oip;
