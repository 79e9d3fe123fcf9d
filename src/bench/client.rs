//! One client: a connection, and the requests that it sends over it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::arrivals::Arrivals;
use super::link::{Link, Lost, Sent, Whole};
use super::plan::Plan;
use super::report::{Answer, Report};
use crate::error::{ErrorKind, Result};

/// A server that is restarting refuses connections at once; without a pause a client would use up its
/// attempts within a millisecond.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What the clients of one run have in common.
pub(super) struct Shared {
    pub(super) plan: Plan,
    /// One for all: it costs little to lock, and stands as it is when the run is cut short.
    pub(super) report: Mutex<Report>,
    pub(super) sent: AtomicU64,
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        let report = Mutex::new(Report::new()?);
        Ok(Self { plan: plan.clone(), report, sent: AtomicU64::new(0) })
    }
}

/// Where a client's next request comes from.
pub(super) enum Feed {
    /// Each client counts its own: all first requests come before all second ones.
    Closed { client: usize, clients: usize, turn: usize, requests: usize },
    /// All clients share one schedule.
    Open(Arc<Arrivals>),
}

/// A request that a client has turned to.
struct Job {
    number: usize,
    /// Where its latency counts from.
    since: Instant,
    /// How late the load generator itself was with it, where that can be told.
    lag: Option<Duration>,
}

impl Feed {
    async fn next(&mut self) -> Option<Job> {
        match self {
            Self::Closed { client, clients, turn, requests } => {
                let number = *turn * *clients + *client;
                *turn += 1;
                let left = *turn <= *requests;
                left.then(|| Job { number, since: Instant::now(), lag: None })
            }
            Self::Open(arrivals) => {
                let arrival = arrivals.next().await?;
                let lag = arrival.awaited.then(|| arrival.due.elapsed());
                Some(Job { number: arrival.number, since: arrival.due, lag })
            }
        }
    }
}

/// Sends one request at a time over a connection that it opens anew when it breaks.
pub(super) struct Client {
    shared: Arc<Shared>,
    feed: Feed,
    link: Option<Link>,
    reopens_left: u32,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, feed: Feed, link: Link) -> Self {
        let reopens_left = shared.plan.max_reopens;
        Self { shared, feed, link: Some(link), reopens_left }
    }

    /// Sends requests until there are no more, or the connection broke too often.
    pub(super) async fn work(mut self) {
        while let Some(job) = self.next_job().await {
            if self.carry_out(job).await.is_break() {
                self.shared.report.lock().gave_up += 1;
                return;
            }
        }
    }

    async fn next_job(&mut self) -> Option<Job> {
        match &mut self.link {
            Some(link) => link.drive(self.feed.next()).await,
            None => self.feed.next().await,
        }
    }

    /// One request, over as many connections as it takes to have it sent once. Breaks when there is none left.
    async fn carry_out(&mut self, job: Job) -> ControlFlow<()> {
        let Some((body_index, request)) = self.shared.plan.request(job.number) else {
            return ControlFlow::Break(());
        };
        let keep = self.shared.plan.keep_bodies;
        let mut unsent: Option<Sent> = Some(request);
        while let Some(request) = unsent.take() {
            let Some(mut link) = self.take_link().await? else {
                break;
            };
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
            match link.exchange(request, keep).await {
                Ok(whole) => {
                    self.link = Some(link);
                    self.settle(&job, body_index, whole);
                }
                Err(Lost::Untouched(request)) => {
                    self.shared.sent.fetch_sub(1, Ordering::Relaxed);
                    unsent = Some(*request);
                }
                Err(Lost::Failed(kind, bytes)) => {
                    let mut report = self.shared.report.lock();
                    report.bytes_read += bytes;
                    report.add_failure(kind);
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The connection, opened anew where it is gone; none where it could not be, which costs the request.
    async fn take_link(&mut self) -> ControlFlow<(), Option<Link>> {
        if let Some(link) = self.link.take().filter(|link| !link.is_closed()) {
            return ControlFlow::Continue(Some(link));
        }
        let Some(left) = self.reopens_left.checked_sub(1) else {
            return ControlFlow::Break(());
        };
        self.reopens_left = left;
        let Ok(link) = Link::open(self.shared.plan.target.address()).await else {
            self.shared.report.lock().add_failure(ErrorKind::ConnectFailed);
            tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
            return ControlFlow::Continue(None);
        };
        self.shared.report.lock().reopened += 1;
        ControlFlow::Continue(Some(link))
    }

    fn settle(&self, job: &Job, body_index: usize, whole: Whole) {
        let latency = job.since.elapsed();
        let mut report = self.shared.report.lock();
        report.add_answer(whole.status, latency);
        report.bytes_read += whole.length;
        if let Some(lag) = job.lag {
            report.lag.record(lag);
        }
        if self.shared.plan.keep_bodies {
            report.keep(Answer { body_index, status: whole.status, body: whole.body });
        }
    }
}
