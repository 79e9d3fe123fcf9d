//! Models that live on other servers: their batches go upstream as one request each, and the answers come back by row.
//!
//! | file | its story |
//! |---|---|
//! | `upstream` | a model's other end: how a batch is asked for there, and what is read of the answer |
//! | `about` | what the other end is told of a request beside what it is asked |
//! | `refusal` | what a failure upstream means, and whether some row of the batch is to blame |
//! | `room` | how many batches are under way at a time |
//! | `health` | whether the other end is ready |
//! | `pools` | what the connections of all remote models count |
//! | `text` | models of text and of vectors: passed on as they are, streamed, or asked |

mod about;
mod health;
mod pools;
mod refusal;
mod room;
pub mod text;
mod upstream;

pub use pools::Pools;
pub use refusal::Refusal;
pub use room::Room;
pub use upstream::{Relayed, Remote, RemoteSettings};
