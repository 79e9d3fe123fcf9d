//! The doors: how requests come in from the network.

mod access;
mod connection;
mod http;
mod routes;
mod service;

pub use access::{AccessLog, AccessRecord};
pub use http::{Connections, HttpServer, HttpSettings};
pub use service::Service;
