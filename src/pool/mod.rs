//! Connection pooling: which connection serves which request, and which endpoint.
//!
//! A [`Pool`] keeps the connections to one endpoint; a [`Balancer`] chooses among endpoints; a [`RetryBudget`] bounds what
//! is sent twice. What a connection is, a [`Connector`] says: this room knows no protocol.
//!
//! | Story | Where |
//! |---|---|
//! | A request takes a connection or joins the line; one that ends hands its place to the first in line | [`PoolState`] in `state` |
//! | Those who wait make the pool grow; a few connections are opened in advance | `growth`, `backoff` |
//! | Time closes, checks and reports | `sweep` |
//! | One connection, and when it must take no more | `slot` |
//! | The line: join, leave and be served at the same cost, however long it is | `line` |
//! | The lock, the clock and the wakes around the state | [`Pool`] in `owner`, `waiting`, [`Lease`] |
//! | Connects, checks and the sleep until something is due | `tasks` |
//! | Endpoints: spread, ejection, probation | [`Balancer`] |
//!
//! [`PoolState`] decides and does nothing: it is given the time and answers with [`Action`]s. The property tests, the tests
//! on virtual time and the owner call the same functions.
//!
//! Rules that the field paid for (`HikariCP`, Envoy, linkerd2, `hyper-util`): a connection that becomes free goes to whoever
//! has waited longest, even while another is being opened for them; connects belong to the pool and never exceed those who
//! wait; the last used is used next, so that the rest falls idle; ages end at random, and early; one in use is never closed
//! by a policy; where none can be opened, everybody is told at once, so that another endpoint can be tried.

mod backoff;
mod balancer;
mod budget;
mod connection;
mod growth;
mod lease;
mod line;
mod owner;
mod settings;
mod slot;
mod state;
mod stats;
mod sweep;
mod tasks;
#[cfg(test)]
mod tests;
mod waiting;

pub use balancer::{BalancePolicy, Balancer, EjectSettings, Outcome, Pick};
pub use budget::RetryBudget;
pub use connection::{Condition, Connection, Connector, Place};
pub use lease::Lease;
pub use line::Ticket;
pub use owner::Pool;
pub use settings::PoolSettings;
pub use slot::Return;
pub use state::{Action, Actions, Grant, PoolState};
pub use stats::{Explanation, HeldLease, Obstacle, PoolStats, Retired};
