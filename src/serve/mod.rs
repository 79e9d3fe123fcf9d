//! The doors: how requests come in from the network.

mod access;
mod answer;
mod body;
mod connection;
mod dashboard;
mod deadline;
mod door;
mod grpc;
mod http;
mod infer;
mod inside;
mod offload;
mod openai;
mod repository;
mod routes;
mod security;
mod service;
mod settings;
mod shelf;
mod siblings;
mod socket;
mod sockets;
mod stream;
mod terms;
mod timing;

mod traced;
mod transport;
mod watch;
mod words;

pub use access::{AccessLog, AccessRecord};
pub use answer::ReplyBody;
pub use deadline::Deadline;
pub use door::Door;
pub use http::{HttpServer, listen};
pub use inside::{Ended, Said, Steps};
pub use repository::{Polls, RepositoryAccess, Skipped};
pub use routes::Reply;
pub use security::{CorsSettings, KeySource, Security, SecuritySettings, TlsFiles};
pub use service::Service;
pub use settings::HttpSettings;
pub use shelf::{Departure, Found};
pub use siblings::Siblings;
pub use sockets::Connections;
pub use stream::StreamBody;
pub use timing::Timing;
