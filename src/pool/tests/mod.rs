//! Tests of the pool: its decisions, and its owner on virtual time and on real threads.

mod decisions;
mod fake;
mod owner;
mod script;
mod world;
