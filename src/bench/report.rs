//! What a run found.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;

use super::feed::Job;
use super::link::Whole;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::grpc::Code;

const SIGNIFICANT_DIGITS: u8 = 3;
const LONGEST_MICROSECONDS: u64 = 24 * 60 * 60 * 1_000_000;

/// How long many things took, in whole microseconds, exact to three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    microseconds: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        match Histogram::new_with_max(LONGEST_MICROSECONDS, SIGNIFICANT_DIGITS) {
            Ok(microseconds) => Ok(Self { microseconds }),
            Err(source) => {
                let message = "the latency histogram could not be built";
                Err(Error::with_source(ErrorKind::Internal, message, source))
            }
        }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.saturating_record(microseconds.max(1));
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.microseconds.len()
    }

    /// The time within which the fraction `quantile` of all was done: 0.99 for p99. Zero where none was.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.microseconds.value_at_quantile(quantile))
    }

    /// The shortest; zero where there is none.
    pub fn min(&self) -> Duration {
        Duration::from_micros(self.microseconds.min())
    }

    /// The longest; zero where there is none.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.microseconds.max())
    }

    /// The arithmetic mean; zero where there is none.
    pub fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.microseconds.mean() / 1e6).unwrap_or_default()
    }

    /// The histogram itself, in microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.microseconds
    }
}

/// One answer of the server, kept for checking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Index in [`Plan::bodies`](super::Plan::bodies) of the body that was sent.
    pub body_index: usize,
    /// Status of the answer.
    pub status: StatusCode,
    /// Body of the answer, in memory of its own.
    pub body: Vec<u8>,
}

/// What a run found. [`planned`](Self::planned) is what was answered, what failed and what was left unfinished.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests to be sent: all of them in a closed loop, those that fell due in an open one.
    pub planned: u64,
    /// Requests that were handed to a connection.
    pub sent: u64,
    /// Requests that were answered with a status from 200 to 299; over gRPC with [`Code::Ok`] and one message.
    pub ok: u64,
    /// Answers that refused the request for want of room and said when to come again: 429 or 503 with `Retry-After`,
    /// over gRPC `RESOURCE_EXHAUSTED` or `UNAVAILABLE` with it.
    pub refused: u64,
    /// Answers by status, which is that of HTTP.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers by the code that a call of gRPC ended with; empty over HTTP. One that names none is
    /// [`Code::Unknown`].
    pub codes: HashMap<Code, u64>,
    /// Requests lost, by kind: `ConnectFailed`, `ConnectTimeout`, `WriteFailed`, `ReadFailed`, `ProtocolError`, and
    /// `DeadlineExceeded` for those that took longer than the plan's time-out.
    pub transport_errors: HashMap<ErrorKind, u64>,
    /// Answers that the check of the plan refused; they are among the answers.
    pub wrong: u64,
    /// What was wrong with the first of them.
    pub first_wrong: Option<String>,
    /// Requests without an answer when the run ended.
    pub unfinished: u64,
    /// Connections that were opened anew after one broke or was closed by the server.
    pub reopened: u64,
    /// Clients that gave up, having opened their connection anew as often as the plan allows.
    pub gave_up: u64,
    /// Requests of the warm-up that were answered, which no other figure counts.
    pub warmup_answered: u64,
    /// Requests of the warm-up that were lost.
    pub warmup_failed: u64,
    /// In an open loop, how many requests had fallen due and waited for a client when the last one fell due: where it is
    /// more than a few, the server or the number of clients did not keep up with the rate.
    pub backlog: u64,
    /// True where somebody ended the run before it was done.
    pub stopped: bool,
    /// True where the deadline did.
    pub timed_out: bool,
    /// From the first request that counts, all connections being open, to the end of the run.
    pub elapsed: Duration,
    /// Bytes of answers' bodies, those that broke off included.
    pub bytes_read: u64,
    /// From the start of each request, or the moment it fell due, to the last byte of its answer.
    ///
    /// Answers of any status count; requests that failed or were left unfinished do not, so quantiles are
    /// lower bounds where there are many of them.
    pub latency: Latencies,
    /// Likewise to the first byte of the answer, or to its head over HTTP/2.
    pub first_byte: Latencies,
    /// How late the load generator itself was, in an open loop: from the moment a request fell due to the
    /// moment a client that had nothing else to do turned to it. Included in [`latency`](Self::latency).
    pub lag: Latencies,
    answers: Vec<Answer>,
}

impl Report {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            planned: 0,
            sent: 0,
            ok: 0,
            refused: 0,
            statuses: BTreeMap::new(),
            codes: HashMap::new(),
            transport_errors: HashMap::new(),
            wrong: 0,
            first_wrong: None,
            unfinished: 0,
            reopened: 0,
            gave_up: 0,
            warmup_answered: 0,
            warmup_failed: 0,
            backlog: 0,
            stopped: false,
            timed_out: false,
            elapsed: Duration::ZERO,
            bytes_read: 0,
            latency: Latencies::new()?,
            first_byte: Latencies::new()?,
            lag: Latencies::new()?,
            answers: Vec::new(),
        })
    }

    /// Requests that were answered, whatever the status.
    pub fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Requests lost to a connection, whatever the kind of failure.
    pub fn failed(&self) -> u64 {
        self.transport_errors.values().sum()
    }

    /// Answers in a second, over the whole run.
    pub fn throughput(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { to_float(self.answered()) / seconds } else { 0.0 }
    }

    /// The latency within which the fraction `quantile` of the answers came: 0.99 for p99.
    pub fn quantile(&self, quantile: f64) -> Duration {
        self.latency.quantile(quantile)
    }

    /// Every answer, by the index of the body that was sent; empty unless the plan kept them.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// The answers to the body of that index, in the order they came.
    pub fn answers_to(&self, body_index: usize) -> &[Answer] {
        let start = self.answers.partition_point(|answer| answer.body_index < body_index);
        let end = self.answers.partition_point(|answer| answer.body_index <= body_index);
        self.answers.get(start..end).unwrap_or_default()
    }

    pub(super) fn add_answer(&mut self, job: &Job, whole: &Whole) {
        if job.uncounted {
            self.warmup_answered += 1;
            return;
        }
        *self.statuses.entry(whole.status.as_u16()).or_default() += 1;
        if let Some(code) = whole.code {
            *self.codes.entry(code).or_default() += 1;
        }
        self.ok += u64::from(whole.is_success());
        self.refused += u64::from(whole.is_refusal());
        self.bytes_read += whole.length;
        self.latency.record(whole.ended.saturating_duration_since(job.since));
        self.first_byte.record(whole.began.saturating_duration_since(job.since));
        if let Some(lag) = job.lag {
            self.lag.record(lag);
        }
    }

    pub(super) fn add_wrong(&mut self, job: &Job, what: String) {
        if !job.uncounted {
            self.wrong += 1;
            self.first_wrong.get_or_insert(what);
        }
    }

    pub(super) fn keep(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    pub(super) fn add_failure(&mut self, job: &Job, kind: ErrorKind, bytes: u64) {
        if job.uncounted {
            self.warmup_failed += 1;
            return;
        }
        self.bytes_read += bytes;
        *self.transport_errors.entry(kind).or_default() += 1;
    }

    /// Closes the books after everything else was added.
    pub(super) fn finish(&mut self, planned: u64, elapsed: Duration) {
        self.planned = planned;
        self.elapsed = elapsed;
        self.unfinished = planned.saturating_sub(self.answered() + self.failed());
        self.answers.sort_by_key(|answer| answer.body_index);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn to_float(count: u64) -> f64 {
    count as f64
}
