//! A model that comes and goes, from the side of its queue.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{
    Answer, Carry, Carrying, Endpoint, Finished, Lease, Loading, ModelSpec, Piece, Relays, RequestTerms,
    Residence, Rounds, Said, Shared, Taken, Tally, Task, Told,
};
use crate::batch::{BatchPolicy, Ran, Shift, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::TraceContext;
use crate::metrics::Registry;
use crate::models::LoadState;
use crate::tensor::{AnswerRow, Column, ColumnSpec, Rows, Shape, Specs, TensorSpec};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A place that a test brings the model to, and takes it away from.
#[derive(Default)]
struct Place {
    there: Mutex<bool>,
    waiting: Mutex<Vec<Told>>,
    held: Arc<AtomicUsize>,
    refuses: Mutex<Option<Error>>,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Place {
    fn lease(&self) -> Lease {
        self.held.fetch_add(1, Ordering::SeqCst);
        Box::new(Held(Arc::clone(&self.held)))
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// The end of a load.
    fn say(&self, came: &Result<()>) {
        *self.there.lock() = came.is_ok();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for told in waiting {
            told(came.clone());
        }
    }
}

impl Residence for Arc<Place> {
    fn hit(&self, _terms: &RequestTerms) -> Option<Lease> {
        self.there.lock().then(|| self.lease())
    }

    fn wait(&self, _terms: &RequestTerms, told: Told) -> Lease {
        match &*self.refuses.lock() {
            Some(error) => told(Err(error.clone())),
            None => self.waiting.lock().push(told),
        }
        self.lease()
    }

    fn progress(&self) -> Loading {
        Loading { state: LoadState::Loading, phase: Arc::from(""), fraction: None }
    }
}

struct Stage {
    endpoint: Arc<Endpoint>,
    place: Arc<Place>,
}

impl Stage {
    fn open(task: Task) -> Self {
        let text = |name| vec![TensorSpec::new(name, "string", &[]).unwrap()];
        let spec = ModelSpec {
            name: "echo".to_owned(),
            version: "1".to_owned(),
            inputs: text("in"),
            outputs: text("out"),
            task,
        };
        let metrics = Arc::new(Registry::new()).model("echo");
        let policy = BatchPolicy { max_size: 10, ..BatchPolicy::default() };
        let endpoint = Endpoint::open(spec, policy, 1, metrics, &Handle::current()).unwrap();
        let place = Arc::<Place>::default();
        endpoint.reside(Arc::clone(&place));
        Self { endpoint, place }
    }

    fn row(&self) -> (Specs, Rows) {
        let specs: Specs = std::iter::once(ColumnSpec::Texts { shape: Shape::new() }).collect();
        let mut rows = Rows::new(&specs, self.endpoint.spares());
        for column in rows.columns_mut() {
            if let Column::Texts { texts, .. } = column {
                texts.push(b"hello");
            }
        }
        (specs, rows)
    }

    fn ask(&self) -> impl Future<Output = Answer> + Send + use<'_> {
        let (specs, rows) = self.row();
        self.endpoint.infer(RequestTerms::default(), specs, rows, 1)
    }

    fn asked(self: &Arc<Self>) -> tokio::task::JoinHandle<Answer> {
        let stage = Arc::clone(self);
        tokio::runtime::Handle::current().spawn(async move { stage.ask().await })
    }

    fn queued(&self) -> usize {
        self.endpoint.stats().queued
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// A worker of that shift, which answers every batch and counts the rows of each.
    fn work(&self, shift: &Arc<Shift>) -> std::thread::JoinHandle<Vec<usize>> {
        let (endpoint, shift) = (Arc::clone(&self.endpoint), Arc::clone(shift));
        endpoint.begin_shift(&shift);
        std::thread::spawn(move || {
            let mut sizes = Vec::new();
            while endpoint.wait_in(&shift) == Turn::Work {
                let Some((batch, account)) = endpoint.take() else { continue };
                sizes.push(batch.entries.len());
                let row = |_| Ok(Said::Row(AnswerRow::new(Arc::new(Vec::new()), 0)));
                let rows = batch.entries.iter().map(row).collect();
                endpoint.finish(Finished { entries: batch.entries, rows, account, ran: Ran::Unknown });
            }
            sizes
        })
    }
}

async fn joined<T: Send + 'static>(thread: std::thread::JoinHandle<T>) -> T {
    let ended = async {
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a worker goes on");
    thread.join().unwrap()
}

#[tokio::test]
async fn a_batch_knows_the_traces_of_its_requests() {
    let stage = Stage::open(Task::Tensors);
    stage.endpoint.announce_shift(&Arc::<Shift>::default());
    let shared = Arc::new(TraceContext::root(true));
    let (other, id) = (Arc::new(TraceContext::root(false)), Some("a7".into()));
    let asked = [Some(&shared), None, Some(&shared), Some(&other)].map(|trace| {
        let (specs, rows) = stage.row();
        let terms = RequestTerms { trace: trace.cloned(), id: id.clone(), ..RequestTerms::default() };
        stage.endpoint.infer(terms, specs, rows, 1)
    });
    let (batch, account) = loop {
        tokio::task::yield_now().await;
        if let Some(taken) = stage.endpoint.take() {
            break taken;
        }
    };
    assert_eq!((batch.entries.len(), account.ids.len()), (4, 1));
    assert_eq!(account.trace.members(), [shared.clone(), other.clone()]);
    let own = account.trace().unwrap();
    assert!(own.sampled && ![shared.trace_id, other.trace_id].contains(&own.trace_id));
    drop(asked);
}

#[tokio::test]
async fn what_all_requests_of_a_batch_say_is_shared_and_tokens_go_to_their_rows() {
    let stage = Stage::open(Task::Tensors);
    stage.endpoint.announce_shift(&Arc::<Shift>::default());
    let asked = ["one", "two", "two"].map(|id| {
        let (specs, rows) = stage.row();
        let terms = RequestTerms { tenant: Some("t".into()), id: Some(id.into()), ..RequestTerms::default() };
        stage.endpoint.infer(terms, specs, rows, 1)
    });
    let taken = loop {
        tokio::task::yield_now().await;
        if let Some(taken) = stage.endpoint.take() {
            break taken;
        }
    };
    let of = |range: std::ops::Range<usize>| {
        let entries = taken.0.entries.get(range).unwrap();
        let shared = Shared::of(entries, &taken.1);
        (shared.id.as_deref().map(str::to_owned), shared.tenant.as_deref().map(str::to_owned))
    };
    let tenant = || Some("t".to_owned());
    assert_eq!((of(0..3), of(1..3)), ((None, tenant()), (Some("two".to_owned()), tenant())));
    let tally: Arc<dyn Tally> = Arc::new(Uncounted);
    let mut rounds = Rounds::new(&stage.endpoint, taken, true, &tally);
    let rows = rounds.next_rows().unwrap();
    rounds.counted(rows.clone(), [5, 6, 7].into_iter());
    let mut column = column(&stage);
    if let Column::Texts { texts, .. } = &mut column {
        (0..2).for_each(|_| texts.push(b"x"));
    }
    rounds.computed(rows, Duration::ZERO, Ok(vec![column]));
    rounds.finish();
    for (answer, tokens) in asked.into_iter().zip([5, 6, 7]) {
        assert_eq!(answer.await.unwrap().rows[0].tokens, tokens);
    }
}

fn failure() -> Error {
    Error::new(ErrorKind::LoadFailed, "model 'echo' failed to load: no file")
}

#[tokio::test]
async fn cold_requests_wait_for_the_load_and_are_its_first_batch() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    let asked: Vec<_> = (0..5).map(|_| stage.asked()).collect();
    stage.until("they wait", |stage| stage.queued() == 5).await;
    assert_eq!((stage.place.held(), stage.place.waiting.lock().len()), (5, 5));
    assert!(!stage.endpoint.is_ready());

    let shift = Arc::<Shift>::default();
    let worker = stage.work(&shift);
    stage.place.say(&Ok(()));
    assert!(stage.endpoint.is_ready());
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.batch.rows, 5);
        assert!(answer.load.is_some_and(|took| took > Duration::ZERO));
    }
    assert!(stage.ask().await.unwrap().load.is_none(), "it was there");
    assert_eq!(stage.place.held(), 0);
    stage.endpoint.end_shift(&shift);
    assert_eq!(joined(worker).await, [5, 1]);
}

#[tokio::test]
async fn a_load_that_fails_refuses_whoever_waits_and_leaves_nothing_in_the_queue() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    let asked: Vec<_> = (0..3).map(|_| stage.asked()).collect();
    stage.until("they wait", |stage| stage.queued() == 3).await;
    stage.place.say(&Err(failure()));
    for answer in asked {
        let error = answer.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::LoadFailed, failure().message()));
    }
    stage.until("they are forgotten", |stage| stage.queued() == 0 && stage.place.held() == 0).await;
}

#[tokio::test]
async fn what_is_known_to_fail_is_refused_before_it_is_queued() {
    let stage = Stage::open(Task::Tensors);
    *stage.place.refuses.lock() = Some(failure());
    assert_eq!(stage.ask().await.unwrap_err().kind(), ErrorKind::LoadFailed);
    let (specs, rows) = stage.row();
    let refused = stage.endpoint.stream(RequestTerms::default(), specs, &rows).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LoadFailed);
    assert_eq!((stage.endpoint.stats().requests, stage.queued(), stage.place.held()), (0, 0, 0));
}

#[tokio::test]
async fn who_hangs_up_gives_up_waiting_and_leaves_the_queue() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    let (asked, stays) = (stage.asked(), stage.asked());
    stage.until("they wait", |stage| stage.queued() == 2).await;
    asked.abort();
    stage.until("one has left", |stage| stage.queued() == 1 && stage.place.held() == 1).await;
    stays.abort();
    stage.until("both have left", |stage| stage.queued() == 0 && stage.place.held() == 0).await;
}

#[tokio::test]
async fn a_model_that_left_is_waited_for_again() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    stage.place.say(&Ok(()));
    for _ in 0..3 {
        let shift = Arc::<Shift>::default();
        let worker = stage.work(&shift);
        stage.place.say(&Ok(()));
        stage.ask().await.unwrap();
        *stage.place.there.lock() = false;
        stage.endpoint.end_shift(&shift);
        assert_eq!(joined(worker).await, [1]);
        assert!(!stage.endpoint.is_ready());
    }
    let asked = stage.asked();
    stage.until("it waits", |stage| stage.queued() == 1).await;
    let shift = Arc::<Shift>::default();
    let worker = stage.work(&shift);
    stage.place.say(&Ok(()));
    asked.await.unwrap().unwrap();
    stage.endpoint.end_shift(&shift);
    joined(worker).await;
}

#[tokio::test]
async fn the_old_goes_when_the_new_begins() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    stage.place.say(&Ok(()));
    let (old, new) = (Arc::<Shift>::default(), Arc::<Shift>::default());
    let first = stage.work(&old);
    stage.ask().await.unwrap();
    stage.endpoint.announce_shift(&new);
    stage.ask().await.unwrap();
    let second = stage.work(&new);
    assert_eq!(joined(first).await, [1, 1]);
    stage.endpoint.end_shift(&old);
    stage.endpoint.end_shift(&old);
    assert!(stage.endpoint.is_ready());
    stage.ask().await.unwrap();
    stage.endpoint.end_shift(&new);
    assert_eq!(joined(second).await, [1]);
    assert!(!stage.endpoint.is_ready());
    let idle = Arc::<Shift>::default();
    stage.endpoint.announce_shift(&idle);
    assert!(stage.endpoint.is_ready());
    stage.endpoint.end_shift(&idle);
    assert_eq!(stage.endpoint.wait_in(&idle), Turn::Done, "it was over before it began");
    let never = Arc::<Shift>::default();
    stage.endpoint.end_shift(&never);
    stage.endpoint.begin_shift(&never);
    assert!(!stage.endpoint.is_ready(), "it was over before it began");
}

#[tokio::test]
async fn a_stream_holds_its_model_until_its_last_piece() {
    let stage = Stage::open(Task::Generate);
    let (specs, rows) = stage.row();
    let mut pieces = stage.endpoint.stream(RequestTerms::default(), specs, &rows).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pieces.poll_next(&mut context).is_pending() && pieces.is_loading());
    stage.endpoint.begin_shift(&Arc::default());
    stage.place.say(&Ok(()));
    assert!(pieces.poll_next(&mut context).is_pending());
    assert!(!pieces.is_loading() && pieces.load().is_some());

    // The tick ends while this test sleeps.
    stage.until("it was released", |stage| stage.queued() == 1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (batch, account) = stage.endpoint.take().unwrap();
    let say = |text: &'static str| {
        let said =
            batch.entries[0].waiter.speaker().unwrap().say(Piece::Text(Bytes::from_static(text.as_bytes())));
        stage.endpoint.wake(said.into_iter().collect());
    };
    say("a");
    assert!(matches!(pieces.next().await, Some(Piece::Text(_))));
    assert_eq!(stage.place.held(), 1);
    let rows = vec![Ok(Said::Finish { reason: None, prompt_tokens: None })];
    stage.endpoint.finish(Finished { entries: batch.entries, rows, account, ran: Ran::Unknown });
    assert!(pieces.next().await.is_none());
    pieces.end().unwrap();
    drop(pieces);
    assert_eq!(stage.place.held(), 0);
}

#[tokio::test]
async fn a_stream_whose_model_cannot_be_had_says_why() {
    let stage = Stage::open(Task::Generate);
    let (specs, rows) = stage.row();
    let mut pieces = stage.endpoint.stream(RequestTerms::default(), specs, &rows).unwrap();
    stage.place.say(&Err(failure()));
    assert!(pieces.next().await.is_none());
    assert_eq!(pieces.end().unwrap_err().kind(), ErrorKind::LoadFailed);
    drop(pieces);
    stage.until("it is forgotten", |stage| stage.queued() == 0 && stage.place.held() == 0).await;
}

#[tokio::test]
async fn a_closed_queue_has_nothing_loaded() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    let waits = stage.asked();
    stage.until("it waits", |stage| stage.queued() == 1).await;
    stage.endpoint.close(false);
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stage.ask().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stage.place.waiting.lock().len(), 1, "that of the first");
    assert_eq!(stage.place.held(), 0);
}

#[tokio::test]
async fn no_batch_is_lost_where_a_shift_ends() {
    let stage = Arc::new(Stage::open(Task::Tensors));
    stage.place.say(&Ok(()));
    for _ in 0..200 {
        let (old, new) = (Arc::<Shift>::default(), Arc::<Shift>::default());
        let workers = [stage.work(&old), stage.work(&new)];
        let endpoint = Arc::clone(&stage.endpoint);
        let ends = std::thread::spawn(move || endpoint.end_shift(&old));
        tokio::time::timeout(PATIENCE, stage.ask()).await.expect("nobody woke").unwrap();
        joined(ends).await;
        stage.endpoint.end_shift(&new);
        for worker in workers {
            joined(worker).await;
        }
    }
}

/// Carries batches no further than to a list, where they wait to be answered.
#[derive(Default)]
struct Holding {
    rounds: Mutex<Vec<Rounds>>,
    endpoint: Mutex<Option<Arc<Endpoint>>>,
    left: AtomicUsize,
    watching: bool,
}

struct Uncounted;

impl Tally for Uncounted {
    fn ran(&self, _busy: Duration, _reruns: u64) {}

    fn restarted(&self) {}
}

impl Carry for Holding {
    fn carry(self: Arc<Self>, taken: Taken) -> Carrying {
        let endpoint = self.endpoint.lock().clone().unwrap();
        let tally: Arc<dyn Tally> = Arc::new(Uncounted);
        let mut rounds = Rounds::new(&endpoint, taken, true, &tally);
        if !self.watching {
            self.rounds.lock().push(rounds);
            return Box::pin(async {});
        }
        Box::pin(async move {
            let rows = rounds.next_rows().unwrap();
            rounds.watched(rows).1.await;
            self.left.fetch_add(1, Ordering::SeqCst);
            rounds.give_up(&failure());
        })
    }

    fn room(&self) -> usize {
        2 + self.left.load(Ordering::SeqCst)
    }
}

fn relayed(stage: &Stage, watching: bool) -> (Arc<Holding>, Arc<Shift>, Relays) {
    let holding = Arc::new(Holding {
        endpoint: Mutex::new(Some(Arc::clone(&stage.endpoint))),
        watching,
        ..Holding::default()
    });
    let shift = Arc::<Shift>::default();
    let ends = (Arc::clone(&stage.endpoint), Arc::clone(&shift));
    let relays = Relays::start(ends, Arc::clone(&holding) as Arc<dyn Carry>, &Handle::current());
    (holding, shift, relays)
}

async fn eventually(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn relays_take_batches_from_the_beginning_of_their_shift_to_its_end() {
    let stage = Stage::open(Task::Tensors);
    *stage.place.there.lock() = true;
    let (holding, shift, relays) = relayed(&stage, false);
    let ask = || {
        let (specs, rows) = stage.row();
        stage.endpoint.infer(RequestTerms::default(), specs, rows, 1)
    };
    let first = ask();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(holding.rounds.lock().is_empty(), "the shift has not begun");
    stage.endpoint.begin_shift(&shift);
    eventually(|| !holding.rounds.lock().is_empty()).await;
    let mut rounds = holding.rounds.lock().pop().unwrap();
    let rows = rounds.next_rows().unwrap();
    rounds.computed(rows, Duration::ZERO, Ok(vec![column(&stage)]));
    rounds.finish();
    assert_eq!(first.await.unwrap().rows.len(), 1);
    let second = ask();
    eventually(|| !holding.rounds.lock().is_empty()).await;
    // Dropped, it refuses whoever has no answer.
    holding.rounds.lock().clear();
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Closed);
    let ended = joined(std::thread::spawn(move || relays.end(PATIENCE))).await;
    assert!(ended);
    assert!(!stage.endpoint.is_ready());
    let third = ask();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(holding.rounds.lock().is_empty(), "the shift is over");
    stage.endpoint.close(false);
    assert_eq!(third.await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(stage.endpoint.wait_idle(PATIENCE), "no batch counts as running");
}

#[tokio::test]
async fn a_batch_is_left_when_the_last_who_waits_has_left() {
    for count in [1, 3] {
        let stage = Stage::open(Task::Tensors);
        *stage.place.there.lock() = true;
        let (holding, shift, relays) = relayed(&stage, true);
        let asked: Vec<_> = (0..count)
            .map(|_| {
                let (specs, rows) = stage.row();
                stage.endpoint.infer(RequestTerms::default(), specs, rows, 1)
            })
            .collect();
        stage.endpoint.begin_shift(&shift);
        eventually(|| stage.endpoint.stats().queued == 0).await;
        let mut asked = asked.into_iter();
        let last = asked.next().unwrap();
        drop(asked);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(holding.left.load(Ordering::SeqCst), 0, "one still waits");
        assert_eq!(stage.endpoint.at_a_time(), 2, "forecasts go by the room, not by the workers");
        drop(last);
        eventually(|| holding.left.load(Ordering::SeqCst) == 1).await;
        eventually(|| stage.endpoint.at_a_time() == 3).await;
        assert!(joined(std::thread::spawn(move || relays.end(PATIENCE))).await);
    }
}

#[tokio::test]
async fn what_is_under_way_when_time_is_up_is_given_up() {
    let stage = Stage::open(Task::Tensors);
    *stage.place.there.lock() = true;
    let (_holding, shift, relays) = relayed(&stage, true);
    let (specs, rows) = stage.row();
    let asked = stage.endpoint.infer(RequestTerms::default(), specs, rows, 1);
    stage.endpoint.begin_shift(&shift);
    eventually(|| stage.endpoint.stats().queued == 0).await;
    let ended = joined(std::thread::spawn(move || relays.end(Duration::from_millis(20)))).await;
    assert!(!ended);
    assert_eq!(asked.await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(stage.endpoint.wait_idle(PATIENCE));
}

#[tokio::test]
async fn a_model_whose_surroundings_are_not_well_is_not_ready() {
    let stage = Stage::open(Task::Tensors);
    let told = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&told);
    stage.endpoint.on_readiness(move || {
        telling.fetch_add(1, Ordering::SeqCst);
    });
    stage.endpoint.announce_shift(&Arc::<Shift>::default());
    stage.endpoint.set_well(false);
    stage.endpoint.set_well(false);
    assert!(!stage.endpoint.is_ready());
    stage.endpoint.set_well(true);
    assert!(stage.endpoint.is_ready());
    assert_eq!(told.load(Ordering::SeqCst), 3);
}

/// One answer of the model.
fn column(stage: &Stage) -> Column {
    let (_, rows) = stage.row();
    rows.into_columns().into_iter().next().unwrap()
}
