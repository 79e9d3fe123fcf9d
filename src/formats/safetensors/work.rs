//! Threads that read files and sum them up, while the one that called tells how far they are.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, Builder, Scope};
use std::time::Duration;
use std::vec::IntoIter;

use parking_lot::Mutex;

use super::digest::{Digest, Hashing, Stream};
use super::place::Piece;
use super::source::Source;
use super::weights::Watch;
use crate::error::{Error, ErrorKind, Result};

/// How often whoever watches is asked.
const TICK: Duration = Duration::from_millis(50);

/// Up to here the thread that called does the work itself: others would take as long to start.
const SMALL: u64 = 2 << 20;

/// Bytes of a file that are summed up in one go without being kept: they stay in a core's cache.
const SIP: usize = 1 << 20;

/// How many threads read where nobody says it: a disk wants a few requests at a time whatever the cores, and more than this
/// many copies at once gain nothing.
const THREADS: (usize, usize) = (4, 8);

/// Something to do with a file.
pub(super) enum Job<'s, 'm> {
    /// Read a piece of it into memory.
    Fill { source: &'s Source, piece: Piece<'m>, hashing: Option<&'s Hashing<'m>> },
    /// Read all of it for its digest.
    Sum { source: &'s Source, digest: &'s Mutex<Option<Digest>> },
}

impl Job<'_, '_> {
    fn length(&self) -> u64 {
        match self {
            Self::Fill { piece, .. } => piece.memory.len() as u64,
            Self::Sum { source, .. } => source.length(),
        }
    }
}

struct Work<'s, 'm> {
    jobs: Mutex<IntoIter<Job<'s, 'm>>>,
    total: u64,
    done: AtomicU64,
    stopped: AtomicBool,
    fault: Mutex<Option<Error>>,
}

/// Does all jobs; the first that fails stops the others, and so does a `watch` that says false.
pub(super) fn run(jobs: Vec<Job<'_, '_>>, threads: Option<NonZeroUsize>, watch: Watch<'_>) -> Result<()> {
    let threads = count(threads, jobs.len());
    let work = Work {
        total: jobs.iter().map(Job::length).sum(),
        jobs: Mutex::new(jobs.into_iter()),
        done: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        fault: Mutex::new(None),
    };
    if work.total <= SMALL || !work.share(threads, watch) {
        work.work(&|| work.ask(watch));
    }
    let fault = work.fault.lock().take();
    match fault {
        Some(fault) => Err(fault),
        None if work.stopped() => Err(unwanted()),
        None if work.total > 0 && !watch(work.total, work.total) => Err(unwanted()),
        None => Ok(()),
    }
}

fn count(threads: Option<NonZeroUsize>, jobs: usize) -> usize {
    let cores = || thread::available_parallelism().map_or(THREADS.0, NonZeroUsize::get);
    threads.map_or_else(|| cores().clamp(THREADS.0, THREADS.1), NonZeroUsize::get).min(jobs)
}

fn unwanted() -> Error {
    Error::new(ErrorKind::LoadFailed, "the load was stopped: it is no longer wanted")
}

impl<'s, 'm> Work<'s, 'm> {
    /// Has threads do it, and waits for them; false where there is none to be had.
    fn share(&self, threads: usize, watch: Watch<'_>) -> bool {
        thread::scope(|scope| {
            let (running, ended) = mpsc::channel::<()>();
            let started = (0..threads).filter(|number| self.start(scope, *number, running.clone())).count();
            drop(running);
            // Nobody sends: the channel closes when the last thread is done.
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                self.ask(watch);
            }
            started > 0
        })
    }

    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        running: mpsc::Sender<()>,
    ) -> bool {
        let body = move || {
            self.work(&|| ());
            drop(running);
        };
        Builder::new().name(format!("penstock-weights-{number}")).spawn_scoped(scope, body).is_ok()
    }

    /// Does jobs until none is left, pausing for `between` after each step.
    fn work(&self, between: &dyn Fn()) {
        while !self.stopped() {
            // A statement of its own: the lock is held for the taking alone.
            let job = self.jobs.lock().next();
            let Some(job) = job else { return };
            if let Err(fault) = self.finish(job, between) {
                self.fault.lock().get_or_insert(fault);
                self.stop();
            }
        }
    }

    fn finish(&self, job: Job<'s, 'm>, between: &dyn Fn()) -> Result<()> {
        match job {
            Job::Fill { source, piece, hashing } => {
                let offset = source.header().data_begin() + piece.from;
                source.read(piece.memory, offset)?;
                self.advance(piece.memory.len());
                if let Some(hashing) = hashing {
                    hashing.offer(offset, piece.memory);
                }
                between();
            }
            Job::Sum { source, digest } => *digest.lock() = self.sum(source, between)?,
        }
        Ok(())
    }

    /// The digest of a file; none where the work was stopped before its end.
    fn sum(&self, source: &Source, between: &dyn Fn()) -> Result<Option<Digest>> {
        let (mut stream, mut at) = (Stream::default(), 0);
        let mut sip = vec![0; SIP];
        while at < source.length() && !self.stopped() {
            let left = usize::try_from(source.length() - at).unwrap_or(SIP);
            let sip = sip.get_mut(..left.min(SIP)).unwrap_or_default();
            source.read(sip, at)?;
            stream.update(sip);
            at += sip.len() as u64;
            self.advance(sip.len());
            between();
        }
        Ok((at == source.length()).then(|| stream.finish()))
    }

    fn advance(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn ask(&self, watch: Watch<'_>) {
        // That all is done is said at the end, once.
        let done = self.done.load(Ordering::Relaxed);
        if done < self.total && !watch(done, self.total) {
            self.stop();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
