//! Who looks for models that are new when a call asks which there are: somebody outside, one look at a time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::flow::Monitor;
use crate::wire::oip::IndexEntry;

/// A call waits that long for a look; then it is answered by what was known before.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks for models that are new. Whoever asks while one goes on waits for the next, together with all who do: the one that
/// goes on may have passed what he has just put there.
#[derive(Default)]
pub struct Polls {
    asked: Monitor<Asked>,
    skipped: Mutex<Vec<Skipped>>,
}

#[derive(Default)]
struct Asked {
    /// Who waits for the next look.
    next: Vec<oneshot::Sender<()>>,
    /// Who waits for the one that goes on.
    current: Vec<oneshot::Sender<()>>,
    /// Somebody wants what is being written, too, where that takes moments.
    is_patient: bool,
    is_closed: bool,
}

/// A version of a model that was found and cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The model's name.
    pub name: String,
    /// Its version; empty where all of the model is meant.
    pub version: String,
    /// Why.
    pub reason: String,
}

impl Polls {
    /// Has a look taken, and comes back when it was, or after 10 s. A `patient` one waits a moment for what is being written.
    ///
    /// # Cancellation
    /// The look is taken all the same.
    pub(in crate::serve) async fn ask(&self, patient: bool) {
        let (tell, told) = oneshot::channel();
        {
            let mut asked = self.asked.lock();
            if asked.is_closed {
                return;
            }
            asked.next.push(tell);
            asked.is_patient |= patient;
        }
        self.asked.wake_one();
        // One who does not come back is told of by whoever looks.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }

    /// Blocks until a look is asked for, or `until`; answers whether a patient one is, or nothing where none will be any more.
    pub fn wait(&self, until: Option<Instant>) -> Option<bool> {
        let mut asked = self.asked.lock();
        while asked.next.is_empty() && !asked.is_closed && until.is_none_or(|until| Instant::now() < until) {
            asked = self.asked.wait(asked, until);
        }
        asked.current = std::mem::take(&mut asked.next);
        let is_patient = std::mem::take(&mut asked.is_patient);
        (!asked.is_closed).then_some(is_patient)
    }

    /// Says that the look was taken, and what was found that cannot be served.
    pub fn taken(&self, skipped: Vec<Skipped>) {
        *self.skipped.lock() = skipped;
        let told = std::mem::take(&mut self.asked.lock().current);
        // Who gave up waiting is not there to be told.
        for told in told {
            let _ = told.send(());
        }
    }

    /// Says that no look will be taken any more.
    pub fn close(&self) {
        let mut asked = self.asked.lock();
        asked.is_closed = true;
        let told = (std::mem::take(&mut asked.next), std::mem::take(&mut asked.current));
        drop(asked);
        drop(told);
        self.asked.wake_all();
    }

    /// The index with what was found and cannot be served: a line for each, or the reason in the line that it has already.
    pub(super) fn complete(&self, index: &mut Vec<IndexEntry>) {
        for Skipped { name, version, reason } in self.skipped.lock().clone() {
            match index.iter_mut().find(|entry| entry.name == name && entry.version == version) {
                Some(entry) => entry.reason = reason,
                None => index.push(IndexEntry { name, version, state: "UNAVAILABLE", reason }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_look_waits_for_the_next() {
        let polls = Arc::new(Polls::default());
        let asks = |polls: &Arc<Polls>| {
            let polls = Arc::clone(polls);
            tokio::runtime::Handle::current().spawn(async move { polls.ask(true).await })
        };
        let first = asks(&polls);
        tokio::task::yield_now().await;
        assert_eq!(polls.wait(None), Some(true));
        let second = asks(&polls);
        tokio::task::yield_now().await;
        polls.taken(Vec::new());
        first.await.unwrap();
        assert!(!second.is_finished());
        assert_eq!(polls.wait(None), Some(true));
        polls.taken(Vec::new());
        second.await.unwrap();
        polls.close();
        assert_eq!(polls.wait(None), None);
        polls.ask(false).await;
    }

    #[test]
    fn what_is_skipped_has_a_line_or_its_reason_in_one() {
        let entry = |name: &str, version: &str, state, reason: &str| IndexEntry {
            name: name.to_owned(),
            version: version.to_owned(),
            state,
            reason: reason.to_owned(),
        };
        let skipped = |version: &str| Skipped {
            name: "head".to_owned(),
            version: version.to_owned(),
            reason: "it is half-written".to_owned(),
        };
        let polls = Polls::default();
        polls.taken(vec![skipped("2"), skipped("1")]);
        let mut index = vec![entry("head", "1", "READY", "")];
        polls.complete(&mut index);
        let expected = [
            entry("head", "1", "READY", "it is half-written"),
            entry("head", "2", "UNAVAILABLE", "it is half-written"),
        ];
        assert_eq!(index, expected);
    }
}
