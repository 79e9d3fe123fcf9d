//! The parts composed: a request is admitted, waits for company, is answered by its model, and comes back.

mod endpoint;
mod processes;
mod reply;
mod ticker;

pub use crate::tensor::AnswerRow;
pub use endpoint::{Endpoint, ModelSpec};
pub use processes::{Processes, Tally};
pub use reply::{Answer, Answered, BatchAccount, Finished, Reply};
pub use ticker::Ticker;
