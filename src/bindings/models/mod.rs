//! The model cache, for Python: thin classes over [`Cache`](crate::models::Cache), and what waits on their side.
//!
//! Values of models and exceptions of loaders are Python objects: they stay here, the core moves their numbers. What the
//! core wants done goes into a queue that a thread of Python waits on.

mod acquire;
mod cache;
pub(crate) mod causes;
mod desk;
mod lease;
mod operation;
mod records;
mod settings;
mod work;

pub(crate) use acquire::Acquiring;
pub(crate) use cache::NativeModelCache;
pub(crate) use lease::Lease;
pub(crate) use operation::NativeOperation;
pub(crate) use work::LoadDesk;
