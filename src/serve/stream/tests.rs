use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::runtime::Handle;

use super::*;
use crate::batch::{BatchPolicy, Ran};
use crate::error::ErrorKind;
use crate::metrics::{DoorMetrics, Registry};
use crate::pipeline::{Endpoint, Finished, ModelSpec, RequestTerms, Said, Task};
use crate::serve::answer::ReplyBody;
use crate::tensor::TensorSpec;
use crate::wire::openai::column;

/// Frames that are what was said, of choice 0 as it is and of choice 1 in capitals.
struct Bare {
    kept: Arc<AtomicUsize>,
}

impl Frames for Bare {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("text/plain")
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()> {
        let Piece::Text(text) = piece else { return ControlFlow::Continue(()) };
        assert_ne!(text, "panic");
        match choice {
            0 => out.extend_from_slice(text),
            _ => out.extend_from_slice(&text.to_ascii_uppercase()),
        }
        if text == "enough" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn end_choice(&mut self, _: usize, _: &Finish, out: &mut Vec<u8>) {
        out.push(b'.');
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out.push(b'!');
    }

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        out.extend_from_slice(error.message().as_bytes());
    }

    fn comment(&mut self, _: &str, _: &mut Vec<u8>) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }
}

struct Stage {
    endpoint: Arc<Endpoint>,
    streams: Arc<Streams>,
    registry: Arc<Registry>,
    door: DoorMetrics,
    kept: Arc<AtomicUsize>,
}

impl Stage {
    fn new() -> Self {
        let registry = Arc::new(Registry::new());
        let text = |name| vec![TensorSpec::new(name, "string", &[]).unwrap()];
        let spec = ModelSpec {
            name: "talk".to_owned(),
            version: "1".to_owned(),
            inputs: text("request"),
            outputs: text("text"),
            task: Task::Generate,
        };
        let metrics = registry.model("talk");
        let endpoint = Endpoint::open(spec, BatchPolicy::default(), 1, metrics, &Handle::current()).unwrap();
        endpoint.set_ready(true);
        let settings = HttpSettings { keep_alive: Duration::from_millis(40), ..HttpSettings::default() };
        let memory = settings.stream_limits().memory;
        let streams = Streams::new(&settings, memory, StreamMetrics::new(&registry));
        let door = DoorMetrics::new(&registry);
        Self { endpoint, streams, registry, door, kept: Arc::default() }
    }

    /// Begins an answer of so many choices.
    fn ask(&self, choices: usize) -> tokio::task::JoinHandle<Result<Reply>> {
        let pieces = |_| {
            let (specs, rows) = column([&b"{}"[..]], self.endpoint.spares());
            self.endpoint.stream(RequestTerms::default(), specs, &rows).unwrap()
        };
        let pieces = (0..choices).map(pieces).collect();
        let (streams, in_flight) = (Arc::clone(&self.streams), self.door.admit(10).unwrap());
        let (frames, model) = (Box::new(Bare { kept: Arc::clone(&self.kept) }), Arc::clone(&self.endpoint));
        Handle::current().spawn(async move {
            streamed(&streams, pieces, frames, &HeaderMap::new(), (&model, in_flight)).await
        })
    }

    /// Says those pieces for each choice, and that it is done.
    async fn say(&self, said: &[&[&str]]) {
        let mut said = said.iter();
        while said.len() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let Some((batch, account)) = self.endpoint.take() else { continue };
            for (entry, texts) in batch.entries.iter().zip(said.by_ref()) {
                let speaker = entry.waiter.speaker().unwrap();
                let piece = |text: &&str| Piece::Text(Bytes::copy_from_slice(text.as_bytes()));
                self.endpoint.wake(texts.iter().filter_map(|text| speaker.say(piece(text))).collect());
            }
            let finish = |_| Ok(Said::Finish { reason: None, prompt_tokens: None });
            let rows = batch.entries.iter().map(finish).collect();
            self.endpoint.finish(Finished { entries: batch.entries, rows, account, ran: Ran::Unknown });
        }
    }

    async fn whole(reply: Reply) -> String {
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

#[tokio::test]
async fn every_choice_is_told_apart_and_may_have_enough() {
    let stage = Stage::new();
    let asked = stage.ask(2);
    stage.say(&[&["a", "enough", "more"], &["b", "c"]]).await;
    let text = Stage::whole(asked.await.unwrap().unwrap()).await;
    assert_eq!(text, "aenoughBC.!", "what has enough has no end of its own");
    assert_eq!(stage.door.in_flight(), 0);
}

#[tokio::test]
async fn a_panic_ends_the_stream_with_words() {
    let stage = Stage::new();
    let asked = stage.ask(1);
    stage.say(&[&["a"]]).await;
    let first = asked.await.unwrap().unwrap();
    assert!(Stage::whole(first).await.starts_with('a'));
    // What comes after the head is looked at by the body alone.
    let long = "x".repeat(FIRST);
    let asked = stage.ask(1);
    stage.say(&[&[&long, "panic"]]).await;
    let text = Stage::whole(asked.await.unwrap().unwrap()).await;
    assert!(text.ends_with("penstock panicked: please report it"), "{text}");
    let metrics = stage.registry.text();
    assert!(metrics.contains("penstock_stream_failed_total 1"), "{metrics}");
    assert!(metrics.contains("penstock_stream_open 0"), "{metrics}");
}

#[tokio::test]
async fn what_is_large_leaves_in_chunks_that_are_not() {
    let stage = Stage::new();
    let asked = stage.ask(1);
    let large = "x".repeat(1 << 20);
    stage.say(&[&[&large]]).await;
    let mut body = asked.await.unwrap().unwrap().into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let length = frame.unwrap().into_data().unwrap().len();
        assert!((1..=64 << 10).contains(&length), "{length}");
        total += length;
    }
    assert_eq!(total, large.len() + 2);
}

#[tokio::test]
async fn a_format_without_comments_keeps_nobody_company() {
    let stage = Stage::new();
    let asked = stage.ask(1);
    // The head comes without a piece.
    let reply = asked.await.unwrap().unwrap();
    assert!(matches!(reply.body(), ReplyBody::Stream(_)));
    let body = Handle::current().spawn(Stage::whole(reply));
    while stage.kept.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.say(&[&["a"]]).await;
    assert_eq!(body.await.unwrap(), "a.!");
    assert!(stage.registry.text().contains("penstock_stream_keep_alives_total 0"));
}

#[tokio::test]
async fn what_runs_ends_with_an_error_where_it_has_to() {
    let stage = Stage::new();
    let reply = stage.ask(1).await.unwrap().unwrap();
    stage.streams.end_all(&Error::new(ErrorKind::Closed, "closed"));
    assert_eq!(Stage::whole(reply).await, "closed");
}
