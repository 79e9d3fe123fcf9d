//! How work moves: time that tests can turn by hand, the queues that wake their reader once per burst, and what the core
//! has to say about itself.

mod burst;
mod clock;
pub mod events;
mod journal;
mod monitor;

pub use burst::BurstQueue;
pub use clock::{Clock, Moment, OnMove, SystemClock, TimeSource, VirtualClock};
pub use journal::{Burst, Journal, Pace};
pub use monitor::{Held, Monitor};
