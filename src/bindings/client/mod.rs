//! The native half of `penstock.AsyncClient` and `penstock.Client`.
//!
//! Requests of a tick cross to the runtime in one burst, and their answers come back in one: see `courier`.

mod courier;
mod duplex;
mod event;
mod inference;
mod inflow;
mod many;
mod native;
mod reply;
mod report;
mod settings;
mod stream;
mod upload;

pub(crate) use duplex::NativeInferStream;
pub(crate) use event::NativeEvent;
pub(crate) use inference::{NativeInference, NativeQuestion};
pub(crate) use many::NativeMany;
pub(crate) use native::{Lent, NativeClient};
pub(crate) use reply::NativeResponse;
pub(crate) use stream::NativeStream;
pub(crate) use upload::{NativePending, NativeUpload};
