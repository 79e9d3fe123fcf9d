//! Graphs in the ONNX format, run by the onnxruntime library that is loaded when the first one is opened.
//!
//! A graph's file is read and looked at before the library sees it: what it takes and gives, and that no file of its weights
//! lies outside of its directory. What was looked at is what is loaded.

mod external;
mod graph;
mod interface;
mod library;
mod proto;
mod providers;
mod session;
mod sessions;
mod settings;
mod tensors;

pub use graph::{Graph, Signature};
pub use interface::{Declared, Interface};
pub use library::{Library, OLDEST};
pub use session::{Canceler, Fault, Opening, Session};
pub use sessions::Sessions;
pub use settings::{Optimization, Provider, SessionSettings};
