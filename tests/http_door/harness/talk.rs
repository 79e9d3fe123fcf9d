//! A served model of text whose steps the test takes itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use penstock::batch::{BatchAccount, BatchPolicy, Entry, Ran};
use penstock::error::{Error, ErrorKind};
use penstock::metrics::Registry;
use penstock::pipeline::{Endpoint, Finished, ModelSpec, Piece, Reply, Said, Speaker, Task};
use penstock::serve::{AccessLog, AccessRecord, Door as Inside, HttpServer, HttpSettings, Service, listen};
use penstock::tensor::TensorSpec;

use super::{Wire, post, until};

/// Where the model is asked.
pub(crate) const GENERATE: &str = "/v2/models/talk/generate_stream";

/// What it is asked.
pub(crate) const PROMPT: &str = r#"{"text_input":"hello"}"#;

/// A server with one model of text, `talk`.
pub(crate) struct Talking {
    pub(crate) server: HttpServer,
    pub(crate) inside: Arc<Inside>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) log: Arc<Records>,
}

/// What was written of each request.
#[derive(Debug, Default)]
pub(crate) struct Records(pub(crate) Mutex<Vec<AccessRecord>>);

impl AccessLog for Records {
    fn access(&self, record: AccessRecord) {
        self.0.lock().push(record);
    }
}

impl Talking {
    pub(crate) fn open() -> Self {
        Self::with(HttpSettings::default())
    }

    pub(crate) fn with(settings: HttpSettings) -> Self {
        let runtime = penstock::runtime::handle().unwrap();
        let registry = Arc::new(Registry::new());
        let spec = ModelSpec {
            name: "talk".to_owned(),
            version: "1".to_owned(),
            inputs: vec![TensorSpec::new("request", "string", &[]).unwrap()],
            outputs: vec![TensorSpec::new("text", "string", &[]).unwrap()],
            task: Task::Generate,
        };
        let policy = BatchPolicy { max_size: 100, ..BatchPolicy::default() };
        let endpoint = Endpoint::open(spec, policy, 1, registry.model("talk"), &runtime).unwrap();
        endpoint.set_ready(true);
        let service = Service::new(vec![Arc::clone(&endpoint)], Arc::clone(&registry)).unwrap();
        let log = Arc::<Records>::default();
        let inside = Inside::new(service, settings, Some(Arc::clone(&log) as _), &registry).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let server = HttpServer::open(listen(any).unwrap(), Arc::clone(&inside), true, &runtime).unwrap();
        Self { server, inside, endpoint, log }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A connection that has asked the model.
    pub(crate) fn asked(&self) -> Wire {
        self.asked_with("")
    }

    /// As [`asked`](Self::asked), with more header fields.
    pub(crate) fn asked_with(&self, fields: &str) -> Wire {
        let mut wire = Wire::open(self.address());
        wire.send(ask(fields));
        wire
    }

    /// The requests that wait, once there are so many.
    pub(crate) fn take(&self, count: usize) -> Talk {
        until("the requests were queued", || self.endpoint.stats().queued == count);
        let talk = self.take_all();
        assert_eq!(talk.count(), count);
        talk
    }

    /// The requests that wait and whose clients do.
    pub(crate) fn take_all(&self) -> Talk {
        loop {
            self.endpoint.wait();
            if let Some((batch, account)) = self.endpoint.take() {
                return Talk { endpoint: Arc::clone(&self.endpoint), entries: batch.entries, account };
            }
        }
    }

    /// What the metrics say of streams, by the rest of the name.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let text = self.inside.metrics_text();
        let name = format!("penstock_stream_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("there is no {name}in\n{text}")).parse().unwrap()
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.endpoint.close(false);
        self.server.begin_close();
        self.inside.connection_count().wait_none(Duration::from_millis(100));
    }
}

/// A request for a streamed answer.
pub(crate) fn ask(fields: &str) -> String {
    post(GENERATE, PROMPT).replacen("\r\n\r\n", &format!("\r\n{fields}\r\n"), 1)
}

/// Requests that a model works on.
pub(crate) struct Talk {
    endpoint: Arc<Endpoint>,
    entries: Vec<Entry<Reply>>,
    account: BatchAccount,
}

impl Talk {
    fn speakers(&self) -> impl Iterator<Item = &Speaker> {
        self.entries.iter().map(|entry| entry.waiter.speaker().unwrap())
    }

    /// One step: a piece for each request.
    pub(crate) fn say(&self, text: &str) {
        self.say_all(&[text]);
    }

    /// Several pieces for each request, which their reader hears of together.
    pub(crate) fn say_all(&self, texts: &[&str]) {
        let piece = |text: &str| Piece::Text(Bytes::copy_from_slice(text.as_bytes()));
        let pieces = |speaker| texts.iter().map(move |text| Speaker::say(speaker, piece(text)));
        self.endpoint.wake(self.speakers().flat_map(pieces).flatten().collect());
    }

    /// Requests.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The requests whose reader is too slow.
    pub(crate) fn without_room(&self) -> usize {
        self.speakers().filter(|speaker| !speaker.has_room()).count()
    }

    /// The requests whose client is gone.
    pub(crate) fn left(&self) -> usize {
        self.speakers().filter(|speaker| speaker.is_left()).count()
    }

    /// The whole answer at once.
    pub(crate) fn say_at_last(self, text: &str) {
        // Whoever waits is woken by the end alone.
        let piece = || Piece::Text(Bytes::copy_from_slice(text.as_bytes()));
        let sleepers: Vec<_> = self.speakers().filter_map(|speaker| speaker.say(piece())).collect();
        let endpoint = Arc::clone(&self.endpoint);
        self.finish();
        endpoint.wake(sleepers);
    }

    pub(crate) fn finish(self) {
        self.end(|| Ok(Said::Finish { reason: Some("stop".into()), prompt_tokens: None }));
    }

    pub(crate) fn fail(self, message: &str) {
        self.end(|| Err(Error::new(ErrorKind::Model, message)));
    }

    fn end(mut self, end: impl Fn() -> penstock::error::Result<Said>) {
        self.account.call();
        self.account.close(Duration::from_millis(1));
        let rows = self.entries.iter().map(|_| end()).collect();
        let Self { endpoint, entries, account } = self;
        endpoint.finish(Finished { entries, rows, account, ran: Ran::Unknown });
    }
}

/// What the events of a stream say, comments left out.
pub(crate) fn said(stream: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(stream).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let told = |json: &str| {
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let text = json["text_output"].as_str().or_else(|| json["error"].as_str());
        text.unwrap_or_else(|| panic!("{json} says nothing")).to_owned()
    };
    data.map(told).collect()
}
