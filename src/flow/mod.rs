//! How work moves: time that tests can turn by hand, and the queue that wakes its reader once per burst.

mod burst;
mod clock;

pub use burst::BurstQueue;
pub use clock::{Clock, Moment, SystemClock, VirtualClock};
