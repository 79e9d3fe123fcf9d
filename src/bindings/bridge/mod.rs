//! Between Python's event loops and the core: one lock per batch, one wake per burst.

pub(crate) mod bell;
pub(crate) mod calls;
pub(crate) mod delivery;
pub(crate) mod lifecycle;
pub(crate) mod lock;
pub(crate) mod port;
pub(crate) mod ringer;
pub(crate) mod stock;
