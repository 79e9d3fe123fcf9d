//! How work moves: time that tests can turn by hand, and the queue that wakes its reader once per burst.

mod burst;
mod clock;
mod monitor;

pub use burst::BurstQueue;
pub use clock::{Clock, Moment, SystemClock, VirtualClock};
pub use monitor::{Held, Monitor};
