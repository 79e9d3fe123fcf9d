//! Workers of a served model that wait for somebody else: tasks on the runtime that carry its batches, no thread each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{BatchAccount, Endpoint, Reply};
use crate::batch::{Batch, Shift, Turn};

/// How long tasks have to end that were told to drop what they carry.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A batch that was taken, and its account.
pub type Taken = (Batch<(), Reply>, BatchAccount);

/// A batch on its way. Dropped, it is given up: whoever has no answer by then is refused.
pub type Carrying = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who carries batches to wherever they are answered.
pub trait Carry: Send + Sync + 'static {
    /// Carries a batch there and its answers back, and says to the endpoint that it is done.
    fn carry(self: Arc<Self>, taken: Taken) -> Carrying;

    /// Batches that may be under way at a time now; less than there might be where more would gain nothing.
    fn room(&self) -> usize;

    /// The same where nothing is being tried out: what a forecast counts on.
    fn usual_room(&self) -> usize {
        self.room()
    }
}

/// The task that takes one load of a model's batches, as many at a time as there is room for.
pub struct Relays {
    endpoint: Arc<Endpoint>,
    shift: Arc<Shift>,
    /// Dropped, it has the task drop what it carries.
    hurry: Mutex<Option<oneshot::Sender<()>>>,
    ended: Mutex<Receiver<()>>,
}

impl Relays {
    /// Starts to take batches until the shift is over.
    pub fn start(
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        carry: Arc<dyn Carry>,
        runtime: &Handle,
    ) -> Self {
        let (hurry, hurried) = oneshot::channel();
        let (end, ended) = channel();
        let ends = (Arc::clone(&endpoint), Arc::clone(&shift));
        drop(runtime.spawn(take(ends, carry, hurried, end)));
        Self { endpoint, shift, hurry: Mutex::new(Some(hurry)), ended: Mutex::new(ended) }
    }

    /// Ends the shift and waits until what was taken is answered; answers whether it was within `limit`. What was not is
    /// given up.
    pub fn end(&self, limit: Duration) -> bool {
        self.endpoint.end_shift(&self.shift);
        let ended = self.ended.lock();
        let in_time = !matches!(ended.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
        drop(self.hurry.lock().take());
        if !in_time {
            // Either way they end.
            let _ = ended.recv_timeout(LAST_WORDS);
        }
        in_time
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.endpoint.end_shift(&self.shift);
    }
}

/// Takes batches as long as the shift lasts, then waits for those under way.
async fn take(
    (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
    carry: Arc<dyn Carry>,
    mut hurried: oneshot::Receiver<()>,
    // Dropped at the end.
    _end: Sender<()>,
) {
    let mut under_way = JoinSet::new();
    endpoint.run_at_a_time(carry.usual_room());
    let taking = async {
        loop {
            while under_way.try_join_next().is_some() {}
            while under_way.len() >= carry.room().max(1) {
                // One that panicked has refused its requests.
                drop(under_way.join_next().await);
            }
            match endpoint.turn_in(&shift).await {
                Turn::Done => break,
                Turn::Work => {
                    if let Some(taken) = endpoint.take() {
                        under_way.spawn(carried(Arc::clone(&endpoint), Arc::clone(&carry), taken));
                    }
                }
            }
        }
        while under_way.join_next().await.is_some() {}
    };
    tokio::select! {
        () = taking => {}
        _ = &mut hurried => {}
    }
}

/// Carries a batch; what came of it may have changed how many are carried at a time.
async fn carried(endpoint: Arc<Endpoint>, carry: Arc<dyn Carry>, taken: Taken) {
    Arc::clone(&carry).carry(taken).await;
    endpoint.run_at_a_time(carry.usual_room());
}
