//! How work moves: time that tests can turn by hand, the queues that wake their reader once per burst, and what the core
//! has to say about itself.

mod bell;
mod burst;
mod channel;
mod clock;
pub mod events;
mod journal;
mod monitor;
pub mod offload;
mod priority;
pub mod trace;
mod wall;

pub use bell::{Bell, Listener};
pub use burst::BurstQueue;
pub use channel::{Receiver, Sender, SlowReader, StreamLimits, StreamMemory, Weight, channel};
pub use clock::{Clock, Moment, OnMove, RuntimeClock, SystemClock, TimeSource, VirtualClock};
pub use journal::{Burst, Journal, Pace};
pub use monitor::{Held, Monitor};
pub use priority::Priority;
pub use trace::{BatchTrace, TraceContext, digits};
pub use wall::WallClock;
