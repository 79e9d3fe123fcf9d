//! What a batched function consists of, apart from its Python face.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use slab::Slab;
use smallvec::SmallVec;

use super::bridge::port::{Port, TickEnd};
use super::convert::items::{self, Item, Leaf};
use super::convert::structure::{Key, Structures};
use super::errors;
use super::run;
use super::waiter::Waiter;
use crate::batch::{Attendance, Batcher, Priority, Removed};
use crate::metrics::LockCounts;

/// A function, its batcher, and the Python objects that wait in it.
pub(crate) struct Core {
    pub(crate) batcher: Batcher<Key, Waiter>,
    pub(crate) function: Py<PyAny>,
    pub(crate) structures: Structures,
    pub(crate) locks: LockCounts,
    pub(crate) counters: Counters,
    /// Split a batch that raises, so that only the guilty fail.
    pub(crate) isolate: bool,
    /// Run on the event loop instead of on worker threads.
    pub(crate) inline: bool,
    objects: Mutex<Slab<Py<PyAny>>>,
    timer_set: AtomicBool,
    /// Threads that are in the function now: one that asks to wait for the function would wait for itself.
    running_in: Mutex<SmallVec<[ThreadId; 4]>>,
}

/// What happened to requests after their batch was cut.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests that got an exception.
    pub(crate) failed: AtomicU64,
    /// Calls of the function beyond the first for a batch that raised.
    pub(crate) reruns: AtomicU64,
    /// Nanoseconds spent in the function.
    pub(crate) busy_nanos: AtomicU64,
}

impl Core {
    pub(crate) fn new(
        batcher: Batcher<Key, Waiter>,
        function: Py<PyAny>,
        isolate: bool,
        inline: bool,
    ) -> Self {
        Self {
            batcher,
            function,
            structures: Structures::new(),
            locks: LockCounts::new(),
            counters: Counters::default(),
            isolate,
            inline,
            objects: Mutex::default(),
            timer_set: AtomicBool::new(false),
            running_in: Mutex::default(),
        }
    }

    /// Adds a request to the queue.
    ///
    /// # Errors
    /// What [`Item::new`] and [`Batcher::submit`] say.
    pub(crate) fn submit<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        priority: Priority,
        waiter: impl FnOnce() -> PyResult<Waiter>,
    ) -> PyResult<()> {
        let item = Item::new(&self.structures, arguments, keywords)?;
        let objects = self.keep_objects(&item.leaves);
        let admitted = waiter().and_then(|waiter| {
            let write = |rows: &mut _| items::write_row(rows, &item.leaves, &objects);
            self.batcher
                .submit(&item.key, priority, waiter, write, &mut Roll { py, core: self })
                .map_err(|error| errors::to_python(py, &error))
        });
        if admitted.is_err() {
            self.drop_objects(&objects);
        }
        admitted
    }

    /// True where this very thread is in the function.
    pub(crate) fn runs_here(&self) -> bool {
        self.running_in.lock().contains(&std::thread::current().id())
    }

    fn keep_objects(&self, leaves: &[Leaf<'_>]) -> SmallVec<[u64; 4]> {
        let kept = leaves.iter().filter_map(|leaf| match leaf {
            Leaf::Object(object) => Some(self.objects.lock().insert(object.clone().unbind()) as u64),
            _ => None,
        });
        kept.collect()
    }

    /// The object that a number stands for; it is let go of.
    pub(crate) fn take_object(&self, number: u64) -> Option<Py<PyAny>> {
        self.objects.lock().try_remove(usize::try_from(number).ok()?)
    }

    fn drop_objects(&self, numbers: &[u64]) {
        for number in numbers {
            drop(self.take_object(*number));
        }
    }

    /// Takes one batch, if one may be taken, runs it and hands its answers out.
    pub(crate) fn run_one(self: &Arc<Self>, py: Python<'_>, on: Option<&Bound<'_, Port>>) -> bool {
        let Some(batch) = self.batcher.take(&mut Roll { py, core: self }) else {
            return false;
        };
        let here = std::thread::current().id();
        self.running_in.lock().push(here);
        run::run(py, self, batch, on);
        self.running_in.lock().retain(|thread| *thread != here);
        self.batcher.finish();
        true
    }

    /// Runs everything that may run now on the loop's own thread, and comes back when a window ends.
    fn run_inline(self: &Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>) {
        self.batcher.release();
        while self.run_one(py, Some(port)) {}
        let Some(wait) = self.batcher.look_again_in() else {
            return;
        };
        if self.timer_set.swap(true, Ordering::Relaxed) {
            return;
        }
        let alarm = Alarm { core: Arc::clone(self), port: port.clone().unbind() };
        let context = PyDict::new(py);
        let event_loop = port.get().event_loop.bind(py);
        let set = context
            .set_item("context", &port.get().context)
            .and_then(|()| event_loop.call_method("call_later", (wait.as_secs_f64(), alarm), Some(&context)));
        if let Err(error) = set {
            self.timer_set.store(false, Ordering::Relaxed);
            error.write_unraisable(py, None);
        }
    }
}

impl TickEnd for Core {
    fn end_tick(self: Arc<Self>, py: Python<'_>, port: &Bound<'_, Port>) {
        if self.inline {
            self.run_inline(py, port);
        } else {
            self.batcher.release();
        }
    }
}

/// Comes back to an inline batcher when a window ends.
#[pyclass(frozen, module = "penstock._native")]
struct Alarm {
    core: Arc<Core>,
    port: Py<Port>,
}

#[pymethods]
impl Alarm {
    fn __call__(&self, py: Python<'_>) {
        self.core.timer_set.store(false, Ordering::Relaxed);
        self.core.run_inline(py, self.port.bind(py));
    }
}

/// Who is still there, asked with the lock held.
pub(crate) struct Roll<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) core: &'a Core,
}

impl Attendance<Waiter> for Roll<'_, '_> {
    fn is_gone(&mut self, waiter: &Waiter) -> bool {
        match waiter {
            Waiter::Future { port, slot } => port.is_done(self.py, *slot),
            Waiter::Thread(parked) => parked.has_left(),
        }
    }

    fn forget(&mut self, removed: Removed<Waiter>) {
        self.core.drop_objects(&removed.objects);
        for entry in removed.entries {
            if let Waiter::Future { port, slot } = entry.waiter {
                port.forget(slot);
            }
        }
    }
}
