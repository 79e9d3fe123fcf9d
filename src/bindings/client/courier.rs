//! Between Python's threads and the runtime: requests go over in bursts, and answers come back in bursts.
//!
//! Requests of one tick of an event loop are taken over at its end, with one wake of the runtime; answers of one tick of
//! the runtime are delivered at its end, with one wake of the loop.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use super::duplex::Flows;
use super::inflow::Inflow;
use super::many::Gathered;
use super::reply::Answered;
use crate::bindings::bridge::port::{Port, Shared, TickEnd};
use crate::bindings::bridge::ringer::Ringer;
use crate::bindings::waiter::Parked;
use crate::client::{Client, Request, Route, StreamCounts, StreamMemory};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::BurstQueue;
use crate::pool::Place;
use crate::runtime;

/// One client's way to the runtime.
pub(crate) struct Courier {
    pub(crate) client: Arc<Client>,
    /// What bodies hold that are read as they come.
    pub(crate) memory: Arc<StreamMemory>,
    pub(crate) streams: Arc<StreamCounts>,
    inbox: BurstQueue<Job>,
    arrived: Notify,
    /// Told when the client begins to close.
    stopping: Notify,
    /// What runs, by who waits for it.
    running: Mutex<HashMap<Address, AbortHandle, ahash::RandomState>>,
    /// Wakes loops at the end of the runtime's tick.
    pub(super) ringer: Arc<Ringer>,
    stopped: AtomicBool,
    handle: Handle,
}

/// Who waits for an answer, as a number that is his alone while he waits.
pub(crate) type Address = (usize, usize);

/// A request and who waits for its answer.
pub(crate) struct Errand {
    pub(crate) route: Route,
    pub(crate) request: Request,
    pub(crate) manner: Manner,
    pub(crate) recipient: Recipient,
}

/// How an answer is read. A stream holds its connection for long: it says where the caller is.
pub(crate) enum Manner {
    /// To its end.
    Whole,
    /// Its body as it comes; with the time-outs of other clients, [by bytes](crate::client::Body::arrivals).
    Streamed { place: Place, by_bytes: bool },
    /// Message by message, while others are sent.
    Duplex(Place),
}

enum Job {
    Send(Box<Errand>),
    Start(Arc<Gathered>),
    Cancel(Address),
    CancelAll,
}

/// Who gets an answer. One that is dropped without any says that the request came to nothing.
pub(crate) struct Recipient {
    courier: Arc<Courier>,
    place: Option<Waits>,
}

/// How somebody waits.
pub(crate) enum Waits {
    /// A future of an event loop.
    Future { port: Arc<Shared>, slot: usize },
    /// A thread.
    Thread(Arc<Parked<Answered>>),
}

impl Waits {
    /// The number that he goes by.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Future { port, slot } => (Arc::as_ptr(port) as usize, *slot),
            Self::Thread(parked) => (Arc::as_ptr(parked) as usize, 0),
        }
    }
}

impl Courier {
    /// Starts the tasks that take requests over.
    pub(crate) fn start(client: Client, memory: Arc<StreamMemory>) -> Result<Arc<Self>> {
        let courier = Arc::new(Self {
            client: Arc::new(client),
            memory,
            streams: Arc::default(),
            inbox: BurstQueue::new(),
            arrived: Notify::new(),
            stopping: Notify::new(),
            running: Mutex::default(),
            ringer: Ringer::new(),
            stopped: AtomicBool::new(false),
            handle: runtime::handle()?,
        });
        drop(courier.spawn(take_over(Arc::clone(&courier))));
        Ok(courier)
    }

    /// Runs a task on the runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(task)
    }

    /// Someone who waits for an answer of this client.
    pub(crate) fn recipient(self: &Arc<Self>, waits: Waits) -> Recipient {
        Recipient { courier: Arc::clone(self), place: Some(waits) }
    }

    /// Puts a request into the next burst, which [`send`](Self::send) or the end of a tick lets go.
    pub(crate) fn put(&self, errand: Errand) {
        self.inbox.push(Job::Send(Box::new(errand)));
    }

    /// Puts many requests into the next burst.
    pub(crate) fn put_many(&self, many: Arc<Gathered>) {
        self.inbox.push(Job::Start(many));
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

    /// Gives up everything that is out. Of a client that closes, whoever waits gets [`ErrorKind::Closed`].
    pub(crate) fn cancel_all(&self) {
        self.inbox.push(Job::CancelAll);
        self.send();
    }

    /// Ends the tasks, once nothing is out any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stopping.notify_one();
    }

    /// Remembers what runs for whoever goes by this number.
    pub(crate) fn remember(&self, address: Address, task: AbortHandle) {
        self.running.lock().insert(address, task);
    }

    /// Forgets what has run.
    pub(crate) fn forget(&self, address: Address) {
        self.running.lock().remove(&address);
        if self.stopped.load(Ordering::Acquire) {
            // The last one is waited for.
            self.send();
        }
    }

    /// What is said of a request or a stream that ended before its time.
    pub(crate) fn given_up(&self, otherwise: Error) -> Error {
        if self.stopped.load(Ordering::Acquire) {
            return Error::new(ErrorKind::Closed, "the client was closed");
        }
        otherwise
    }

    fn run(self: &Arc<Self>, job: Job) {
        match job {
            Job::Send(errand) => {
                let Some(address) = errand.recipient.place.as_ref().map(Waits::address) else { return };
                let task = self.spawn(carry_out(errand));
                self.remember(address, task.abort_handle());
            }
            Job::Start(many) => many.start(self.client.widest()),
            Job::Cancel(address) => {
                let task = self.running.lock().remove(&address);
                if let Some(task) = task {
                    task.abort();
                }
            }
            Job::CancelAll => self.running.lock().values().for_each(AbortHandle::abort),
        }
    }

    fn deliver(&self, waits: Waits, answer: Answered) {
        self.forget(waits.address());
        match waits {
            Waits::Future { port, slot } => self.reply(port, slot, answer),
            Waits::Thread(parked) => parked.answer(answer),
        }
    }

    /// Answers a future of a loop, which is woken at the end of the runtime's tick.
    pub(crate) fn reply(&self, port: Arc<Shared>, slot: usize, answer: Answered) {
        self.ringer.reply(port, slot, Box::new(answer));
    }
}

impl TickEnd for Courier {
    fn end_tick(self: Arc<Self>, _py: Python<'_>, _port: &Bound<'_, Port>) -> PyResult<()> {
        self.send();
        Ok(())
    }
}

/// Takes requests over, burst by burst, until the client is closed.
async fn take_over(courier: Arc<Courier>) {
    let ringing = courier.spawn(Arc::clone(&courier.ringer).run());
    let mut jobs = Vec::new();
    let mut is_closed = false;
    let mut closed = pin!(async {
        courier.stopping.notified().await;
        courier.client.closed().await;
    });
    while !is_closed || !courier.running.lock().is_empty() {
        tokio::select! {
            () = courier.arrived.notified() => {}
            () = &mut closed, if !is_closed => is_closed = true,
        }
        courier.inbox.drain(&mut jobs);
        for job in jobs.drain(..) {
            courier.run(job);
        }
    }
    ringing.abort();
    courier.ringer.ring();
}

async fn carry_out(errand: Box<Errand>) {
    let Errand { route, request, manner, recipient } = *errand;
    let answer = match manner {
        Manner::Whole => Answered::Whole(Client::send(route, request).await.map(Box::new)),
        Manner::Duplex(place) => {
            // Boxed, as the rare one: every request would have room for it.
            let opened = Box::pin(Client::duplex(route, request, place)).await;
            Answered::Opened(opened.map(|opened| Box::new(Flows::start(opened, &recipient.courier))))
        }
        Manner::Streamed { place, by_bytes } => {
            let mut ticket = recipient.courier.streams.begin();
            let begun = Client::stream(route, request, place).await;
            if begun.is_err() {
                ticket.failed();
            }
            Answered::Begun(begun.and_then(|(response, body)| {
                let inflow = Inflow::of_body(body, by_bytes, ticket, &recipient.courier)?;
                Ok(Box::new((response, inflow)))
            }))
        }
    };
    recipient.answer(answer);
}

impl Recipient {
    fn answer(mut self, answer: Answered) {
        if let Some(waits) = self.place.take() {
            self.courier.deliver(waits, answer);
        }
    }
}

impl Drop for Recipient {
    /// A request that was cancelled has nobody who would hear this; one whose task panicked has.
    fn drop(&mut self) {
        if let Some(waits) = self.place.take() {
            let message = "the request came to nothing: its task was cancelled or panicked";
            let error = self.courier.given_up(Error::new(ErrorKind::Internal, message));
            self.courier.deliver(waits, Answered::Whole(Err(error)));
        }
    }
}
