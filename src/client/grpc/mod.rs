//! gRPC over a connection of HTTP/2: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! | file | its story |
//! |---|---|
//! | `head` | the header fields of a call |
//! | `end` | how a call ended, out of everything that a server can say or leave out |
//! | `call` | a call with one message each way |
//! | `duplex` | a call with any number of messages each way |
//! | `wait` | the time that it may take |
//! | `health` | whether a server is ready |

mod call;
mod duplex;
mod end;
mod head;
mod health;
mod wait;

pub(super) use call::{Came, call, open};
pub(super) use duplex::Opened;
pub use duplex::{Duplex, DuplexReceiver, DuplexSender};
pub(super) use head::Caller;
pub(super) use health::{Readiness, Service, is_ready};
