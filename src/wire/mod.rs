//! Payloads of the protocols that the doors and the clients speak, without I/O.

pub mod grpc;
pub mod http1;
pub mod oip;
pub mod openai;
