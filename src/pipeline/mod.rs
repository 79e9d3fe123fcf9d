//! The parts composed: a request is admitted, waits for company, is answered by its model, and comes back.

mod computed;
mod cutting;
mod endpoint;
mod flight;
mod graph;
mod parts;
mod passing;
mod processes;
mod relays;
mod reply;
mod residence;
mod rounds;
mod steps;
mod terms;
#[cfg(test)]
mod tests;
mod ticker;

pub use crate::batch::BatchAccount;
pub use crate::tensor::AnswerRow;
pub use computed::{Compute, Computers};
pub use cutting::cut_back;
pub use endpoint::{BatchLog, Endpoint, ModelSpec};
pub use graph::GraphComputer;
pub use parts::Parts;
pub use passing::Passing;
pub use processes::{Processes, Tally};
pub use relays::{Carry, Carrying, Relays, Taken};
pub use reply::{Answer, Answered, Finished, Reply};
pub use residence::{InCache, Lease, Loading, Residence, Told};
pub use rounds::{Blame, Fault, Leaving, Portion, Rounds, Shared};
pub use steps::{Boarding, Finish, Piece, Pieces, Said, Speaker, Task};
pub use terms::{Label, RequestTerms};
pub use ticker::Ticker;
