//! What looks after the streamed answers of a door: a comment where nothing comes, an end where nothing is taken.
//!
//! A timer for each token would cost more than the token does. So time is counted in ticks of one task, as it is for
//! connections, and once a tick all answers are looked at. Limits are kept to within an eighth of the shortest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::runtime::Handle;

use super::body::Open;
use crate::error::Error;
use crate::serve::HttpSettings;

/// The answers that are under way.
pub(super) struct Keeper {
    tick: Duration,
    limits: Limits,
    now: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    open: Slab<Arc<Open>>,
    /// There is a task that looks at them.
    looks: bool,
}

/// In ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Time without a byte after which a comment is sent.
    pub(super) quiet: u64,
    /// Time after which a reader that takes nothing is given up.
    pub(super) stall: u64,
    /// The same, for who reads of it.
    pub(super) stall_time: Duration,
}

const LONGEST_TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(2);

impl Keeper {
    pub(super) fn new(settings: &HttpSettings) -> Arc<Self> {
        let shortest = settings.keep_alive.min(settings.body_timeout);
        let tick = (shortest / 8).clamp(SHORTEST_TICK, LONGEST_TICK);
        let ticks = |limit: Duration| {
            u64::try_from(limit.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(u64::MAX)
        };
        let stall_time = settings.body_timeout;
        let limits = Limits { quiet: ticks(settings.keep_alive), stall: ticks(stall_time), stall_time };
        Arc::new(Self { tick, limits, now: AtomicU64::new(0), kept: Mutex::default() })
    }

    /// The tick that it is in.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Looks after an answer until [`leave`](Self::leave) is called with what comes back.
    pub(super) fn enter(self: &Arc<Self>, open: Arc<Open>) -> usize {
        let mut kept = self.kept.lock();
        let key = kept.open.insert(open);
        if !std::mem::replace(&mut kept.looks, true) {
            drop(Handle::current().spawn(Arc::clone(self).run()));
        }
        key
    }

    pub(super) fn leave(&self, key: usize) {
        let left = self.kept.lock().open.try_remove(key);
        drop(left);
    }

    /// Ends what runs, with `error` as the last that is said.
    pub(super) fn end_all(&self, error: &Error) {
        for (_, open) in &self.kept.lock().open {
            open.end(error.clone());
        }
    }

    /// Looks at every answer once a tick, as long as there is one.
    async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.tick).await;
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            let mut kept = self.kept.lock();
            if kept.open.is_empty() {
                kept.looks = false;
                return;
            }
            for (_, open) in &kept.open {
                open.look(now, self.limits);
            }
        }
    }
}
