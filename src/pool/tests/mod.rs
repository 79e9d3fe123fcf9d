//! Tests of the pool: its decisions, and its owner on virtual time and on real threads.

mod owner;
