//! Request batching: many callers, one call of the model.
//!
//! [`verdict`] decides, without I/O or a clock of its own; [`BatchQueue`] is the plain state; [`Batcher`] owns it and
//! lets threads wait on it. What a waiter is, and who runs the batch, the floors above decide.

mod account;
mod batcher;
mod crowd;
mod entry;
mod fit;
mod forecast;
mod group;
mod history;
mod learn;
mod pile;
mod policy;
mod queue;
mod seats;
pub mod select;
mod shift;
pub mod simulate;
mod stats;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod tune;
mod turn;

pub use crate::flow::Priority;
pub use account::{BatchAccount, Parts, Waited};
pub use batcher::{Attendance, Batcher};
pub use crowd::{Changes, Crowd, Place};
pub use entry::{Batch, Cut, Entry, GroupKey, Ran, Removed, Tenant, Terms};
pub use forecast::{Backlog, finish_in};
pub use history::{History, Totals};
pub use learn::Learned;
pub use policy::{Adaptive, BatchPolicy, Budget, Dispatch, Pressure, Reason, Verdict, verdict};
pub use queue::{BatchQueue, Outlook};
pub use seats::Seats;
pub use shift::Shift;
pub use stats::BatchStats;
pub use turn::{Look, Turn};
