//! What is to be done outside the state.

use super::acquire::Told;
use super::preload::Done;
use crate::error::{Error, Result};
use crate::models::{Load, Ranking, Residency};

/// What the owner of the state must do, without its lock.
pub(in crate::models) enum Effect {
    Load(Load),
    Cancel(Residency),
    Unload(Residency),
    Rank(Ranking),
    /// Tells who waited for a model.
    Tell(Told, Result<Residency>),
    /// Tells who waited for a preload or an unload.
    Done(Done, Result<()>),
    /// Tells who waited for the end.
    Closed(Box<dyn FnOnce() + Send>),
    /// Drops what is not told any more: that may run code of a caller.
    Forget(Told),
    /// The same for an error.
    Bury(Error),
}
