//! The task that keeps a cache: it sleeps until something is due, and shows that it is alive.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::cache::Inside;
use crate::flow::{OnMove, TimeSource};

/// How often the task shows that it is alive, at least.
const BEAT: Duration = Duration::from_secs(1);
/// How soon it looks again at the earliest, whatever is due.
const BREATH: Duration = Duration::from_millis(1);

/// A clock that a test moves rings the alarm.
impl OnMove for Inside {
    fn moved(&self) {
        self.alarm.notify_one();
    }
}

pub(super) fn keep(inside: &Arc<Inside>, runtime: &Handle) {
    if let TimeSource::Virtual(clock) = &inside.clock {
        clock.on_move(Arc::downgrade(inside) as Weak<dyn OnMove>);
    }
    inside.beats();
    drop(runtime.spawn(run(Arc::downgrade(inside), Arc::clone(&inside.alarm))));
}

/// It does not keep the cache alive.
async fn run(inside: Weak<Inside>, alarm: Arc<Notify>) {
    loop {
        let due = {
            let Some(inside) = inside.upgrade() else { return };
            inside.beats();
            let due = inside.tick().and_then(|due| inside.clock.instant(due)).map(Instant::from_std);
            let (soonest, beat) = (Instant::now() + BREATH, Instant::now() + BEAT);
            due.map_or(beat, |due| due.clamp(soonest, beat))
        };
        select! {
            () = sleep_until(due) => {}
            () = alarm.notified() => {}
        }
    }
}
