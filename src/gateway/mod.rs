//! Models that live on other servers: their batches go upstream as one request each, and the answers come back by row.

pub mod text;
