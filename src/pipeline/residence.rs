//! Models that come and go: what a request holds on to while it waits for one, and while it is answered.
//!
//! The queue of such a model is always open. A request whose model is there holds it, so that it stays; one whose model is
//! not there has it fetched, waits in the queue meanwhile, and is refused where it cannot be fetched. Whatever came until
//! the model is there is its first batch.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Answer, RequestTerms, Ticker};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::models::{Asked, Cache, LoadState, ModelId};

/// What a request holds: as long as it lives, the model stays. Dropping one that was not told yet gives up waiting.
pub type Lease = Box<dyn Send>;

/// Called once, when the model is there or cannot be had.
pub type Told = Box<dyn FnOnce(Result<()>) + Send>;

/// Where a model is that is not always there.
pub trait Residence: Send + Sync + 'static {
    /// The model, where it is there.
    fn hit(&self, terms: &RequestTerms) -> Option<Lease>;

    /// The model as soon as it is there; `told` is called then, or at once, unless the lease is dropped before.
    fn wait(&self, terms: &RequestTerms, told: Told) -> Lease;

    /// How far its load is, for somebody who waits for it.
    fn progress(&self) -> Loading;
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq)]
pub struct Loading {
    /// What it waits for, or does.
    pub state: LoadState,
    /// What the loader says that it is at; empty where it says nothing.
    pub phase: Arc<str>,
    /// Which part of it is done, from 0 to 1, where the loader says so.
    pub fraction: Option<f32>,
}

/// A model that lives in a cache.
#[derive(Clone)]
pub struct InCache {
    /// The cache.
    pub cache: Cache,
    /// What it calls the model.
    pub model: ModelId,
}

fn asked(terms: &RequestTerms, until: Option<Moment>) -> Asked<'_> {
    Asked { priority: terms.priority, until, session: terms.tenant.as_deref() }
}

impl Residence for InCache {
    fn hit(&self, terms: &RequestTerms) -> Option<Lease> {
        let claim = self.cache.try_acquire(self.model, &asked(terms, None))?;
        Some(Box::new(claim))
    }

    fn wait(&self, terms: &RequestTerms, told: Told) -> Lease {
        let now = Instant::now();
        let until = terms.deadline.map(|end| self.cache.now() + end.saturating_duration_since(now));
        let told = Arc::new(Mutex::new(Some(told)));
        let tell = {
            let told = Arc::clone(&told);
            move |came: Result<_>| {
                let told = told.lock().take();
                if let Some(told) = told {
                    told(came.map(drop));
                }
            }
        };
        let claim = self.cache.acquire(self.model, &asked(terms, until), Box::new(tell));
        if claim.at_once() {
            // It came in between, and nobody is told.
            let told = told.lock().take();
            if let Some(told) = told {
                told(Ok(()));
            }
        }
        Box::new(claim)
    }

    fn progress(&self) -> Loading {
        let progress = self.cache.progress(self.model);
        Loading { state: progress.state, phase: progress.phase, fraction: progress.fraction }
    }
}

/// Looks through a queue for requests that gave up, at the end of a tick in which any did: no worker comes upon them.
#[derive(Debug)]
pub(super) struct Sweeper {
    due: AtomicBool,
    ticker: Arc<Ticker>,
}

impl Sweeper {
    pub(super) fn new(ticker: &Arc<Ticker>) -> Arc<Self> {
        Arc::new(Self { due: AtomicBool::new(false), ticker: Arc::clone(ticker) })
    }

    fn ask(&self) {
        self.due.store(true, Ordering::Release);
        self.ticker.touch();
    }

    /// True once after it was asked for.
    pub(super) fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::Acquire)
    }
}

/// A request's hold on its model.
pub(super) enum Hold {
    /// The model is always there.
    Always,
    /// It is there, and stays.
    Here(#[expect(dead_code, reason = "it is held")] Lease),
    /// It is on its way, or has come so.
    Coming(Coming),
}

/// A model that was not there when it was asked for.
pub(super) struct Coming {
    /// Dropped before anything else of the request is.
    _lease: Lease,
    told: Option<oneshot::Receiver<Result<()>>>,
    since: Instant,
    took: Option<Duration>,
    sweeper: Arc<Sweeper>,
}

impl Hold {
    /// The hold of a request on these terms on a model that is not there: it is asked for.
    ///
    /// # Errors
    /// Why the model cannot be had, where that is known at once.
    pub(super) fn wait(
        residence: &dyn Residence,
        terms: &RequestTerms,
        sweeper: &Arc<Sweeper>,
    ) -> Result<Self> {
        let (tell, mut told) = oneshot::channel();
        let lease = residence.wait(terms, Box::new(move |came| drop(tell.send(came))));
        let (since, sweeper) = (Instant::now(), Arc::clone(sweeper));
        let mut coming = Coming { _lease: lease, told: None, since, took: None, sweeper };
        match told.try_recv() {
            Ok(Ok(())) => coming.took = Some(Duration::ZERO),
            Ok(Err(error)) => return Err(error),
            Err(_) => coming.told = Some(told),
        }
        Ok(Self::Coming(coming))
    }

    /// Why the model cannot be had, once that is known; pending for ever where it is there.
    pub(super) fn poll_refused(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let Self::Coming(coming) = self else { return Poll::Pending };
        let Some(told) = &mut coming.told else { return Poll::Pending };
        let told = std::task::ready!(Pin::new(told).poll(context));
        match told {
            Ok(Ok(())) => {
                coming.took = Some(coming.since.elapsed());
                coming.told = None;
                Poll::Pending
            }
            Ok(Err(error)) => {
                coming.sweeper.ask();
                coming.told = None;
                Poll::Ready(error)
            }
            // Whoever would tell is gone.
            Err(_) => Poll::Ready(Error::new(ErrorKind::Closed, "the models of this server were closed")),
        }
    }

    /// True while the model is on its way.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Coming(Coming { told: Some(_), .. }))
    }

    /// How long the model was on its way, where it was not there; until now, where nobody has said yet that it came.
    pub(super) fn took(&self) -> Option<Duration> {
        match self {
            Self::Coming(coming) => coming.took.or_else(|| Some(coming.since.elapsed())),
            _ => None,
        }
    }

    /// The answer, unless the model cannot be had.
    pub(super) async fn answered(&mut self, mut answer: oneshot::Receiver<Answer>, name: &str) -> Answer {
        let closed = || Error::new(ErrorKind::Closed, format!("model '{name}' was closed"));
        let answer = poll_fn(|context| {
            // First: so that it is known how long it took when the answer is there.
            if let Poll::Ready(error) = self.poll_refused(context) {
                return Poll::Ready(Err(error));
            }
            Pin::new(&mut answer).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
        });
        let answered = answer.await;
        answered.map(|answered| super::Answered { load: self.took(), ..answered })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.sweeper.ask();
        }
    }
}
