//! One client: a connection, and the requests that it sends over it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::feed::{Feed, Job};
use super::ledger::Ledger;
use super::link::{Link, Lost, Way, Whole};
use super::plan::{Plan, Protocol};
use super::prepared::Prepared;
use super::report::Answer;

/// A server that is restarting refuses connections at once; without a pause a client would use up its
/// attempts within a millisecond.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// What the clients of one run have in common.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) prepared: Prepared,
    pub(super) ledger: Arc<Ledger>,
}

/// Sends one request at a time over a connection that it opens anew when it breaks.
pub(super) struct Client {
    shared: Arc<Shared>,
    feed: Feed,
    way: Way,
    link: Option<Link>,
    reopens_left: u32,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, feed: Feed, way: Way, link: Link) -> Self {
        let reopens_left = shared.plan.max_reopens;
        Self { shared, feed, way, link: Some(link), reopens_left }
    }

    /// Sends requests until there are no more, or the connection broke too often.
    pub(super) async fn work(mut self) {
        while let Some(job) = self.feed.next().await {
            if self.carry_out(&job).await.is_break() {
                self.shared.ledger.books().gave_up += 1;
                return;
            }
        }
    }

    /// One request, over as many connections as it takes to have it sent once. Breaks when there is none left.
    async fn carry_out(&mut self, job: &Job) -> ControlFlow<()> {
        let shared = Arc::clone(&self.shared);
        let Some(body_index) = shared.plan.body_index(job.number) else {
            return ControlFlow::Break(());
        };
        loop {
            let Some(link) = self.usable_link(job).await? else {
                return ControlFlow::Continue(());
            };
            shared.ledger.count_sent(job);
            match link.exchange(&shared.prepared, body_index).await {
                Ok(whole) => {
                    self.reopens_left = shared.plan.max_reopens;
                    settle(&shared, job, body_index, whole);
                    return ControlFlow::Continue(());
                }
                Err(Lost::Untouched) => {
                    shared.ledger.take_back_sent(job);
                    self.link = None;
                }
                Err(Lost::Failed(kind, bytes)) => {
                    shared.ledger.books().add_failure(job, kind, bytes);
                    return ControlFlow::Continue(());
                }
            }
        }
    }

    /// The connection, opened anew where it is gone; none where it could not be, which costs the request.
    async fn usable_link(&mut self, job: &Job) -> ControlFlow<(), Option<&mut Link>> {
        if !self.link.as_ref().is_some_and(Link::is_usable) {
            self.link = None;
            let Some(left) = self.reopens_left.checked_sub(1) else {
                return ControlFlow::Break(());
            };
            self.reopens_left = left;
            match Link::open(&self.way, &self.shared.prepared).await {
                Ok((link, opened)) => {
                    let broke = opened && self.shared.plan.protocol != Protocol::Http1Close;
                    self.shared.ledger.books().reopened += u64::from(broke);
                    self.link = Some(link);
                }
                Err(error) => {
                    self.shared.ledger.books().add_failure(job, error.kind(), 0);
                    tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                }
            }
        }
        ControlFlow::Continue(self.link.as_mut())
    }
}

fn settle(shared: &Shared, job: &Job, body_index: usize, whole: Whole) {
    // Before the books are opened: it takes longer than anything that is written into them.
    let wrong = if shared.plan.check { check::inference(&whole).err() } else { None };
    let mut books = shared.ledger.books();
    books.add_answer(job, &whole);
    if let Some(wrong) = wrong {
        books.add_wrong(job, wrong);
    }
    if shared.plan.keep_bodies && !job.uncounted {
        books.keep(Answer { body_index, status: whole.status, body: whole.body });
    }
}
