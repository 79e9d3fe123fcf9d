//! What a door notes of each request that it answered.

use std::fmt::{self, Debug, Display, Formatter, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Version};
use hyper::body::Body;
use smallvec::SmallVec;

use super::timing::Timing;
use super::traced::{Spans, Traced, Tracing};
use super::{Reply, request_id, traced};
use crate::pipeline::{BatchAccount, Boarding, Endpoint, ModelSpec, Pieces};
use crate::wire::grpc::Code;

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the answer was ready to be written.
    pub at: Instant,
    /// The other side; `None` where it has no address.
    pub peer: Option<SocketAddr>,
    /// `http/1.1`, `http/2` or `grpc`.
    pub protocol: &'static str,
    /// The method of the request.
    pub method: Method,
    /// The path of the request as it was sent, without its query.
    pub path: RequestPath,
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
    pub model: Option<Arc<ModelSpec>>,
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

/// The path of a request. It is a copy, for a record must not hold a read buffer; and in the record itself where it is as
/// short as most are, for memory that one thread takes and another gives back is dear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath(SmallVec<[u8; 48]>);

impl RequestPath {
    /// A copy of a path.
    pub fn of(path: &str) -> Self {
        Self(SmallVec::from_slice(path.as_bytes()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
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
        let at = Instant::now();
        let spans = self
            .batch
            .as_ref()
            .filter(|_| self.is_recorded())
            .map(|(batch, timing)| Spans::of(batch, timing))
            .or_else(|| self.boarding.as_ref().and_then(Spans::boarded));
        let (batch, timing) = self.batch.unzip();
        AccessRecord {
            at,
            peer,
            protocol: match request.version {
                _ if answered.code.is_some() => "grpc",
                Version::HTTP_2 => "http/2",
                _ => "http/1.1",
            },
            method: request.method.clone(),
            path: RequestPath::of(request.uri.path()),
            status: answered.status,
            code: answered.code,
            took: at.saturating_duration_since(began),
            request_bytes: self.bytes,
            response_bytes: answered.bytes,
            id: self.id.or(self.named),
            key: self.key,
            client: self.client,
            model: self.model.map(|model| Arc::clone(&model.spec)),
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

impl AccessRecord {
    /// The name of the model that was asked.
    pub fn model_name(&self) -> Option<&str> {
        self.model.as_ref().map(|model| model.name.as_str())
    }

    /// Adds one line for a person: `127.0.0.1 POST /v2/models/mlp/infer 200 1.9 ms rows=1 batch=30`.
    ///
    /// It is said of every request that is logged, and so without `std::fmt`, which takes several times as long.
    pub(super) fn say(&self, out: &mut String) {
        match self.peer {
            Some(peer) => say_address(peer.ip(), out),
            None => out.push('-'),
        }
        for word in [self.method.as_str(), self.path.as_str()] {
            out.push(' ');
            out.push_str(word);
        }
        out.push(' ');
        match self.code {
            Some(code) => out.push_str(code.name()),
            None => out.push_str(itoa::Buffer::new().format(self.status)),
        }
        out.push(' ');
        say_milliseconds(self.took, out);
        out.push_str(" ms");
        if let Some(key) = &self.key {
            out.push_str(" key=");
            out.push_str(key);
        }
        for (name, rows) in [(" rows=", self.rows), (" batch=", self.batch)] {
            if let Some(rows) = rows {
                out.push_str(name);
                out.push_str(itoa::Buffer::new().format(rows));
            }
        }
    }
}

impl Display for AccessRecord {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        self.say(&mut line);
        out.write_str(&line)
    }
}

/// Three digits or so say all that is worth knowing.
fn say_milliseconds(took: Duration, out: &mut String) {
    let micros = took.as_micros();
    let (unit, digits) = match micros {
        0..1_000 => (10, 2),
        1_000..100_000 => (100, 1),
        _ => (1_000, 0),
    };
    let units = (took.as_nanos() + unit * 500) / (unit * 1_000);
    let whole = 10_u128.pow(digits);
    out.push_str(itoa::Buffer::new().format(units / whole));
    if digits > 0 {
        out.push('.');
        say_padded(whole + units % whole, out);
    }
}

/// The digits of a number below their leading one, which stands for as many noughts as are wanted.
pub(super) fn say_padded(number: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number).get(1..).unwrap_or_default());
}

/// The other side, as `address:port`.
pub(super) fn say_peer(peer: SocketAddr, out: &mut String) {
    match peer {
        SocketAddr::V4(peer) => {
            say_address((*peer.ip()).into(), out);
            out.push(':');
            out.push_str(itoa::Buffer::new().format(peer.port()));
        }
        SocketAddr::V6(peer) => {
            // Writing to a string does not fail.
            let _ = write!(out, "{peer}");
        }
    }
}

fn say_address(address: IpAddr, out: &mut String) {
    match address {
        IpAddr::V4(address) => {
            for (at, part) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push('.');
                }
                out.push_str(itoa::Buffer::new().format(part));
            }
        }
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            at: Instant::now(),
            peer: Some("127.0.0.1:4000".parse().unwrap()),
            protocol: "http/1.1",
            method: Method::POST,
            path: RequestPath::of("/v2/models/mlp/infer"),
            status: 200,
            code: None,
            took: Duration::from_micros(1940),
            request_bytes: 300,
            response_bytes: 80,
            id: None,
            key: None,
            client: None,
            model: None,
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
        for (micros, said) in [(0, "0.00"), (999, "1.00"), (1_000, "1.0"), (99_949, "99.9"), (100_000, "100")]
        {
            assert!(shown(micros).ends_with(&format!(" 404 {said} ms")), "{micros}");
        }
        let mut peers = String::new();
        for peer in ["10.0.255.1:8080", "[fe80::1]:1"] {
            say_peer(peer.parse().unwrap(), &mut peers);
        }
        assert_eq!(peers, "10.0.255.1:8080[fe80::1]:1");
        let call =
            AccessRecord { code: Some(Code::NotFound), path: RequestPath::of("/a.B/C"), ..plain.clone() };
        assert_eq!(call.to_string(), "- POST /a.B/C NOT_FOUND 1.9 ms");
    }
}
