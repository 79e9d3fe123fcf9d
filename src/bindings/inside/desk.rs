//! Between the callers of this process and the runtime: requests of one tick of an event loop go over in one burst, and
//! answers of one tick of the runtime come back in one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::outputs::Inferred;
use crate::bindings::bridge::port::{Port, Shared, TickEnd};
use crate::bindings::bridge::ringer::Ringer;
use crate::bindings::waiter::Parked;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::BurstQueue;
use crate::pipeline::RequestTerms;
use crate::runtime;
use crate::serve::{Deadline, Door, Found};
use crate::tensor::{Rows, Specs};

/// One server's way from its own process.
pub(crate) struct Desk {
    pub(crate) door: Arc<Door>,
    pub(crate) ringer: Arc<Ringer>,
    inbox: BurstQueue<Job>,
    arrived: Notify,
    /// What runs, by who waits for it.
    running: Mutex<HashMap<Address, AbortHandle, ahash::RandomState>>,
    stopped: AtomicBool,
    pub(crate) handle: Handle,
}

/// Who waits for an answer, as a number that is his alone while he waits.
type Address = (usize, usize);

/// A request that was read, and who waits for its answer.
pub(crate) struct Errand {
    pub(crate) model: Found,
    pub(crate) terms: (RequestTerms, Option<Deadline>),
    pub(crate) rows: (Specs, Rows),
    pub(crate) count: usize,
    /// The numbers of the outputs that are wanted; none for all.
    pub(crate) wanted: Option<Vec<usize>>,
    pub(crate) waits: Waits,
}

enum Job {
    Ask(Box<Errand>),
    Cancel(Address),
}

/// How somebody waits.
pub(crate) enum Waits {
    /// A future of an event loop.
    Future { port: Arc<Shared>, slot: usize },
    /// A thread.
    Thread(Arc<Parked<Inferred>>),
}

impl Waits {
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Future { port, slot } => (Arc::as_ptr(port) as usize, *slot),
            Self::Thread(parked) => (Arc::as_ptr(parked) as usize, 0),
        }
    }
}

impl Desk {
    /// Starts the tasks that take requests over.
    ///
    /// # Errors
    /// As [`runtime::handle`].
    pub(crate) fn start(door: Arc<Door>) -> Result<Arc<Self>> {
        let handle = runtime::handle()?;
        let desk = Arc::new(Self {
            door,
            ringer: Ringer::new(),
            inbox: BurstQueue::new(),
            arrived: Notify::new(),
            running: Mutex::default(),
            stopped: AtomicBool::new(false),
            handle: handle.clone(),
        });
        drop(handle.spawn(take_over(Arc::clone(&desk))));
        Ok(desk)
    }

    /// Puts a request into the next burst, which [`send`](Self::send) or the end of a tick lets go.
    pub(crate) fn put(&self, errand: Errand) {
        self.inbox.push(Job::Ask(Box::new(errand)));
    }

    /// Lets the burst go.
    pub(crate) fn send(&self) {
        self.arrived.notify_one();
    }

    /// Gives up the request of whoever goes by this number.
    pub(crate) fn cancel(&self, address: Address) {
        self.inbox.push(Job::Cancel(address));
        self.send();
    }

    /// Ends the tasks, once nothing is out any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.send();
    }

    fn run(self: &Arc<Self>, job: Job) {
        match job {
            Job::Ask(errand) => {
                let address = errand.waits.address();
                let task = self.handle.spawn(carry_out(Arc::clone(self), errand));
                self.running.lock().insert(address, task.abort_handle());
            }
            Job::Cancel(address) => {
                let task = self.running.lock().remove(&address);
                if let Some(task) = task {
                    task.abort();
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.stopped.load(Ordering::Acquire) && self.running.lock().is_empty()
    }

    fn deliver(&self, waits: Waits, answer: Inferred) {
        self.running.lock().remove(&waits.address());
        match waits {
            Waits::Future { port, slot } => self.ringer.reply(port, slot, Box::new(answer)),
            Waits::Thread(parked) => parked.answer(answer),
        }
        if self.is_done() {
            // The last one is waited for.
            self.send();
        }
    }
}

impl TickEnd for Desk {
    fn end_tick(self: Arc<Self>, _py: Python<'_>, _port: &Bound<'_, Port>) -> PyResult<()> {
        self.send();
        Ok(())
    }
}

/// Takes requests over, burst by burst, until the server is gone.
async fn take_over(desk: Arc<Desk>) {
    let ringing = desk.handle.spawn(Arc::clone(&desk.ringer).run());
    let mut jobs = Vec::new();
    while !desk.is_done() {
        desk.arrived.notified().await;
        desk.inbox.drain(&mut jobs);
        for job in jobs.drain(..) {
            desk.run(job);
        }
    }
    ringing.abort();
    desk.ringer.ring();
}

async fn carry_out(desk: Arc<Desk>, errand: Box<Errand>) {
    let Errand { model, terms, rows, count, wanted, waits } = *errand;
    let recipient = Recipient { desk: Arc::clone(&desk), waits: Some(waits) };
    let spec = Arc::clone(&model.spec);
    let id = terms.0.id.clone();
    let answer = desk.door.infer_rows(model, terms, rows, count).await;
    recipient.answer(Inferred { spec, id, wanted, answer });
}

/// Whoever gets an answer. One that is dropped without any says that the request came to nothing.
struct Recipient {
    desk: Arc<Desk>,
    waits: Option<Waits>,
}

impl Recipient {
    fn answer(mut self, answer: Inferred) {
        if let Some(waits) = self.waits.take() {
            self.desk.deliver(waits, answer);
        }
    }
}

impl Drop for Recipient {
    /// A request that was cancelled has nobody who would hear this; one whose task panicked has.
    fn drop(&mut self) {
        if let Some(waits) = self.waits.take() {
            let message = "the request came to nothing: its task was cancelled or panicked";
            self.desk.deliver(waits, Inferred::failed(Error::new(ErrorKind::Internal, message)));
        }
    }
}
