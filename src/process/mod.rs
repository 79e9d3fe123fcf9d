//! Worker processes: a model that holds its interpreter's lock gets an interpreter of its own.
//!
//! Each worker is one child process and one thread here, its keeper, which talks to nobody else. Between them are a Unix
//! socket, which the child finds as its standard input, and one piece of shared memory, a file without a name that the
//! child is given over the socket. A batch takes one message each way:
//!
//! 1. The keeper writes the columns into the shared memory and sends a [`Question`] that says where they lie.
//! 2. The child copies them out, runs the batch (split where it raises, as a thread would), writes the columns of its
//!    answer into the same memory and sends an [`Answer`].
//! 3. The keeper copies them out. One of the two is always waiting, so that nobody reads what somebody else writes.
//!
//! The memory is read and written through its descriptor, never mapped: a copy on either side is needed anyhow, since
//! neither the queue nor a user's function may hold on to memory that the other process will write, and a descriptor
//! needs no unsafe code and cannot fault where the other side has cut the file.
//!
//! Nothing here knows Python, and no keeper ever takes an interpreter's lock: a server whose interpreter is busy goes on
//! serving models that live in processes.
//!
//! A child that dies is started again, after a pause that grows while it goes on dying. Its batch is run once more, where it
//! may be; if that one dies too, the batch fails and names the exit status or the signal. A child whose parent is gone ends itself.

mod child;
mod keeper;
mod link;
mod memory;
mod message;
#[cfg(test)]
mod tests;

pub use child::{Child, Launch, Reins};
pub use keeper::{Attempt, Broken, Keeper};
pub use link::{Link, Verdict, end_with_parent};
pub use memory::SharedMemory;
pub use message::{Answer, ColumnNote, Question, RowNote, answer_columns, question_rows};
