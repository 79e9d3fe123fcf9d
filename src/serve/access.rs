//! What a door notes of each request that it answered.

use std::fmt::{self, Debug, Display, Formatter};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{HeaderMap, Method, Version};
use hyper::body::Body;

use super::timing::Timing;
use super::traced::{Spans, Traced, Tracing};
use super::{Reply, request_id, traced};
use crate::pipeline::{BatchAccount, Boarding, Endpoint, Pieces};
use crate::wire::grpc::Code;

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the answer was ready to be written.
    pub at: SystemTime,
    /// The other side; `None` where it has no address.
    pub peer: Option<SocketAddr>,
    /// `http/1.1`, `http/2` or `grpc`.
    pub protocol: &'static str,
    /// The method of the request.
    pub method: Method,
    /// The path of the request as it was sent, without its query. It is a copy: a record must not hold a read buffer.
    pub path: String,
    /// The status of the answer; of a call of gRPC, the one that means the same over HTTP.
    pub status: u16,
    /// The status code, of a call of gRPC.
    pub code: Option<Code>,
    /// Time from the head of the request to its answer.
    pub took: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// What the client calls the request: the `id` of an inference request, or `X-Request-Id`; 128 characters at most,
    /// and no control characters.
    pub id: Option<Arc<str>>,
    /// The name of the key that the request showed, where keys are asked for.
    pub key: Option<Arc<str>>,
    /// Whom the client's certificate names, where one is asked for.
    pub client: Option<Arc<str>>,
    /// The model that was asked.
    pub model: Option<Arc<str>>,
    /// Rows that the request held.
    pub rows: Option<usize>,
    /// Rows in the batch that the request, or its last part, was answered with.
    pub batch: Option<usize>,
    /// Why that batch was cut.
    pub reason: Option<&'static str>,
    /// Where the time of an answer of a model went.
    pub timing: Option<Timing>,
    /// It is to be logged; else it is recorded for its trace alone.
    pub logged: bool,
    /// Its place in a trace.
    pub trace: Option<Traced>,
    /// What else is recorded of it, where it was answered with a batch.
    pub spans: Option<Box<Spans>>,
}

/// What becomes known of a request while it is answered.
#[derive(Default)]
pub(super) struct Note {
    /// Somebody wants the record.
    pub(super) logged: bool,
    /// Its place in a trace.
    pub(super) trace: Option<Traced>,
    /// What its head calls it.
    pub(super) named: Option<Arc<str>>,
    /// The whole body has been read.
    pub(super) body_read: bool,
    /// Bytes of its body, as far as it was read.
    pub(super) bytes: u64,
    pub(super) model: Option<Arc<Endpoint>>,
    /// What it is called: as it says itself, as its head does, or, where somebody wants the record, as the server does.
    pub(super) id: Option<Arc<str>>,
    /// The name of the key that it showed.
    pub(super) key: Option<Arc<str>>,
    /// Whom the client's certificate names.
    pub(super) client: Option<Arc<str>>,
    pub(super) rows: Option<usize>,
    /// Its batch, and where its time went.
    pub(super) batch: Option<(Arc<BatchAccount>, Timing)>,
    /// How long it waits, where its answer comes piece by piece and its spans are recorded.
    pub(super) boarding: Option<Boarding>,
}

/// How a request was answered.
pub(super) struct Answered {
    status: u16,
    code: Option<Code>,
    bytes: u64,
}

impl Answered {
    /// Over HTTP.
    pub(super) fn replied(reply: &Reply) -> Self {
        Self { status: reply.status().as_u16(), code: None, bytes: reply.body().size_hint().lower() }
    }

    /// A call of gRPC that ended so, after so many bytes.
    pub(super) fn called(code: Code, bytes: u64) -> Self {
        Self { status: code.http_status(), code: Some(code), bytes }
    }
}

impl Note {
    /// The record of a request that is answered now.
    pub(super) fn record(
        self,
        request: &Parts,
        peer: Option<SocketAddr>,
        answered: &Answered,
        began: Instant,
    ) -> AccessRecord {
        let spans = self
            .batch
            .as_ref()
            .filter(|_| self.is_recorded())
            .map(|(batch, timing)| Spans::of(batch, timing))
            .or_else(|| self.boarding.as_ref().and_then(Spans::boarded));
        let (batch, timing) = self.batch.unzip();
        AccessRecord {
            at: SystemTime::now(),
            peer,
            protocol: match request.version {
                _ if answered.code.is_some() => "grpc",
                Version::HTTP_2 => "http/2",
                _ => "http/1.1",
            },
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            status: answered.status,
            code: answered.code,
            took: began.elapsed(),
            request_bytes: self.bytes,
            response_bytes: answered.bytes,
            id: self.id.or(self.named),
            key: self.key,
            client: self.client,
            model: self.model.map(|model| model.spec.name.as_str().into()),
            rows: self.rows,
            batch: batch.as_ref().map(|batch| batch.rows),
            reason: batch.as_ref().map(|batch| batch.reason),
            timing,
            logged: true,
            trace: self.trace,
            spans: spans.map(Box::new),
        }
    }

    /// Notes how the request of this head is to be known: where it stands in a trace, and what it is called.
    pub(super) fn label(&mut self, headers: &HeaderMap, tracing: Option<&Tracing>) {
        self.trace = traced::begin(headers, tracing);
        self.logged |= self.is_recorded();
        self.named = request_id::of_head(headers);
    }

    /// Notes how long it waits whose answer comes piece by piece: of several choices, the first.
    pub(super) fn board(&mut self, pieces: &[Pieces]) {
        if self.is_recorded() {
            self.boarding = pieces.first().map(Pieces::boarding);
        }
    }

    /// True where its spans are recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.recorded)
    }

    /// What the answer calls the request: as its head does, else as it is written down.
    pub(super) fn called(&mut self) -> Option<&str> {
        if self.logged && self.named.is_none() && self.id.is_none() {
            self.id = Some(request_id::made());
        }
        self.named.as_deref().or(self.id.as_deref())
    }
}

/// What a stranger chose must not fill a log, nor begin a line of it.
pub(super) fn fit_for_a_log(id: &str) -> String {
    id.chars().filter(|letter| !letter.is_control()).take(128).collect()
}

/// Whoever keeps these records. It is called on the data plane and must not wait.
pub trait AccessLog: Debug + Send + Sync {
    /// Takes a record.
    fn access(&self, record: AccessRecord);
}

impl Display for AccessRecord {
    /// One line for a person: `127.0.0.1 POST /v2/models/mlp/infer 200 1.9 ms rows=1 batch=30`.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(out, "{}", peer.ip())?,
            None => out.write_str("-")?,
        }
        let milliseconds = self.took.as_secs_f64() * 1e3;
        // Three digits or so say all that is worth knowing.
        let digits = if milliseconds < 1.0 { 2 } else { usize::from(milliseconds < 100.0) };
        write!(out, " {} {} ", self.method, self.path)?;
        match self.code {
            Some(code) => out.write_str(code.name())?,
            None => write!(out, "{}", self.status)?,
        }
        write!(out, " {milliseconds:.digits$} ms")?;
        self.key.iter().try_for_each(|key| write!(out, " key={key}"))?;
        self.rows.iter().try_for_each(|rows| write!(out, " rows={rows}"))?;
        self.batch.iter().try_for_each(|batch| write!(out, " batch={batch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            at: SystemTime::UNIX_EPOCH,
            peer: Some("127.0.0.1:4000".parse().unwrap()),
            protocol: "http/1.1",
            method: Method::POST,
            path: "/v2/models/mlp/infer".to_owned(),
            status: 200,
            code: None,
            took: Duration::from_micros(1940),
            request_bytes: 300,
            response_bytes: 80,
            id: None,
            key: None,
            client: None,
            model: Some("mlp".into()),
            rows: Some(1),
            batch: Some(30),
            reason: Some("tick"),
            timing: None,
            logged: true,
            trace: None,
            spans: None,
        }
    }

    #[test]
    fn an_id_neither_fills_a_log_nor_begins_a_line_of_it() {
        assert_eq!(fit_for_a_log("a\nb\u{7f}c"), "abc");
        assert_eq!(fit_for_a_log(&"é".repeat(1_000)).chars().count(), 128);
    }

    #[test]
    fn it_reads_as_one_line() {
        assert_eq!(record().to_string(), "127.0.0.1 POST /v2/models/mlp/infer 200 1.9 ms rows=1 batch=30");
        let plain = AccessRecord { peer: None, rows: None, batch: None, status: 404, ..record() };
        let shown =
            |micros| AccessRecord { took: Duration::from_micros(micros), ..plain.clone() }.to_string();
        assert_eq!(shown(74), "- POST /v2/models/mlp/infer 404 0.07 ms");
        assert!(shown(1_234_567).ends_with(" 1235 ms"));
        let call = AccessRecord { code: Some(Code::NotFound), path: "/a.B/C".to_owned(), ..plain.clone() };
        assert_eq!(call.to_string(), "- POST /a.B/C NOT_FOUND 1.9 ms");
    }
}
