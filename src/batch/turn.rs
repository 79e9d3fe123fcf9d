//! Who waits for something to do, threads and tasks, and what they are told.

use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;

use crate::flow::Monitor;

/// What a worker is told when it asks for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A batch may be there to [`take`](super::Batcher::take).
    Work,
    /// Nothing will come any more.
    Done,
}

/// What a task is told when it asks for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What a thread would be told.
    Turn(Turn),
    /// Nothing yet: the task is woken when there is news, and looks again at that moment, where there is one.
    Later(Option<Instant>),
}

/// Tasks that sleep: mostly one, which takes the batches of a whole load.
pub(super) type Tasks = SmallVec<[Waker; 1]>;

/// Who is to look for something to do: a thread that sleeps, and every task that does. A task that finds nothing costs
/// little; one that is passed over would sleep for ever.
pub(super) struct Sleepers {
    pub(super) thread: bool,
    pub(super) tasks: Tasks,
}

impl Sleepers {
    pub(super) fn none() -> Self {
        Self { thread: false, tasks: Tasks::new() }
    }

    /// Wakes them, without the lock.
    pub(super) fn wake<T>(self, state: &Monitor<T>) {
        if self.thread {
            state.wake_one();
        }
        self.tasks.into_iter().for_each(Waker::wake);
    }
}
