//! Several sessions of one graph: as many runs at a time.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use smallvec::SmallVec;

use super::graph::Signature;
use super::session::{Fault, Session};
use crate::error::{Error, ErrorKind};
use crate::flow::Monitor;
use crate::tensor::{Column, Spares};

/// Sessions of one graph. Whoever runs takes one that is idle, and waits where none is.
pub struct Sessions {
    graph: Arc<Signature>,
    count: usize,
    idle: Monitor<Idle>,
}

struct Idle {
    sessions: Vec<Session>,
    closed: bool,
}

/// Sessions that somebody runs; they go back when he is done, whatever came of it.
struct Taken<'a> {
    sessions: SmallVec<[Session; 1]>,
    to: &'a Sessions,
}

impl Sessions {
    /// These sessions of `graph`.
    pub fn new(graph: &Arc<Signature>, sessions: Vec<Session>) -> Self {
        let (count, idle) = (sessions.len(), Monitor::new(Idle { sessions, closed: false }));
        Self { graph: Arc::clone(graph), count, idle }
    }

    /// The graph that they run.
    pub fn graph(&self) -> &Signature {
        &self.graph
    }

    /// The graph's file.
    pub fn path(&self) -> &Path {
        &self.graph.path
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs the rows `range` of `columns`; as [`Session::run`].
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after [`close`](Self::close); those of [`Session::run`].
    pub fn run(
        &self,
        columns: &[&Column],
        range: Range<usize>,
        spares: &Arc<Spares>,
    ) -> Result<Vec<Column>, Fault> {
        let mut taken = self.take(1)?;
        match taken.sessions.first_mut() {
            Some(session) => session.run(columns, range, spares),
            None => Err(self.closed().into()),
        }
    }

    /// As [`run`](Self::run), once in every session; the answers are thrown away.
    ///
    /// # Errors
    /// As [`run`](Self::run); the first.
    pub fn run_each(
        &self,
        columns: &[&Column],
        range: Range<usize>,
        spares: &Arc<Spares>,
    ) -> Result<(), Fault> {
        let mut all = self.take(self.count)?;
        let mut sessions = all.sessions.iter_mut();
        sessions.try_for_each(|session| session.run(columns, range.clone(), spares).map(drop))
    }

    /// Takes so many at once, when so many are idle.
    fn take(&self, wanted: usize) -> Result<Taken<'_>, Fault> {
        let mut idle = self.idle.lock();
        while !idle.closed && idle.sessions.len() < wanted {
            idle = self.idle.wait(idle, None);
        }
        if idle.closed {
            return Err(self.closed().into());
        }
        let from = idle.sessions.len() - wanted;
        Ok(Taken { sessions: idle.sessions.drain(from..).collect(), to: self })
    }

    /// Gives their memory back; those that run do so when they are done. Safe to call twice.
    pub fn close(&self) {
        let sessions = {
            let mut idle = self.idle.lock();
            idle.closed = true;
            std::mem::take(&mut idle.sessions)
        };
        self.idle.wake_all();
        drop(sessions);
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the sessions of '{}' were closed", self.path().display()))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut idle = self.to.idle.lock();
        if !idle.closed {
            idle.sessions.extend(self.sessions.drain(..));
        }
        drop(idle);
        self.to.idle.wake_all();
    }
}
