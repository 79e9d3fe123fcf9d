//! Tests of the pool: its decisions, and its owner on virtual time and on real threads.

mod balancer;
mod balancing;
mod decisions;
mod fake;
mod far;
mod owner;
mod script;
mod stress;
mod world;
