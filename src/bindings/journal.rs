//! What the core has to say, on its way to Python's `logging`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::bridge::lifecycle::generation;
use super::bridge::lock;
use super::spans::{self, BatchRecord};
use crate::flow::events::{self, Event, EventLog, Value};
use crate::flow::{Burst, Journal, Pace, WallClock};
use crate::metrics::LockCounts;
use crate::pipeline::{BatchAccount, BatchLog, ModelSpec};
use crate::serve::{AccessLog, AccessRecord, Lines, Look};
use crate::wire::grpc::Code;

/// The reader holds the interpreter's lock while it works, and so holds up the models: it takes few records at a time and
/// lets go of the lock for long enough that a waiting worker is sure to get it. What it gathers costs one acquisition.
const PACE: Pace = Pace { gather: Duration::from_millis(10), most: 32, breath: Duration::from_micros(200) };

#[allow(
    clippy::large_enum_variant,
    reason = "most records are of the large kind, and a box for each would be one more allocation"
)]
enum Record {
    Access(AccessRecord),
    Event(Event),
    Batch(BatchRecord),
}

/// Where the doors put what they note, and every room its events.
pub(crate) struct Sink(Journal<Record>);

impl fmt::Debug for Sink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sink").field("dropped", &self.0.dropped()).finish_non_exhaustive()
    }
}

impl AccessLog for Sink {
    fn access(&self, record: AccessRecord) {
        self.0.push(Record::Access(record));
    }
}

impl EventLog for Sink {
    fn event(&self, event: Event) {
        self.0.push_rare(Record::Event(event));
    }
}

impl BatchLog for Sink {
    fn batch(&self, model: &Arc<ModelSpec>, batch: &Arc<BatchAccount>) {
        self.0.push(Record::Batch(BatchRecord::new(model, batch)));
    }
}

/// What a reader gets: log records, how many were dropped, spans, and lines that are written already.
type Heard<'py> = (Bound<'py, PyList>, u64, Bound<'py, PyList>, Bound<'py, PyBytes>);

/// The native half of `penstock._logs`: log records of the core, for one thread that reads them.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeJournal {
    sink: Arc<Sink>,
    born: u64,
}

#[pymethods]
impl NativeJournal {
    /// Keeps at most `capacity` records, and events from `level` of `logging` upwards. From here on it is this journal
    /// that events go to.
    #[new]
    #[pyo3(signature = (*, capacity, level))]
    fn new(capacity: usize, level: u32) -> Self {
        let sink = Arc::new(Sink(Journal::new(capacity, PACE)));
        events::listen(Arc::clone(&sink) as Arc<dyn EventLog>, filter(level));
        Self { sink, born: generation() }
    }

    /// Blocks until there are records, for at most `limit` seconds. Gives a list of them, each as (logger, level, time,
    /// message, attributes); how many were dropped since the last; the spans of what is recorded, as `penstock._tracing`
    /// takes them; and access records as lines of UTF-8, where `look` wants them so, which gives "json" or "text" and how many
    /// seconds the clock of that is ahead of UTC. `None` where none will come any more.
    #[pyo3(signature = (limit, look=None))]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        limit: f64,
        look: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Heard<'py>>> {
        if self.is_foreign() {
            return Ok(None);
        }
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
        let lines_are_enough = look_in_force(look)?.is_some();
        let holds_up = |record: &Record| !(lines_are_enough && is_only_a_line(record));
        let burst = lock::without(py, &LockCounts::new(), || self.sink.0.wait_for(limit, holds_up));
        let Some(burst) = burst else { return Ok(None) };
        // Asked again: whoever listens may be another than when the wait began.
        let look = look_in_force(look.filter(|_| burst.records.iter().any(is_logged)))?;
        let told = lock::without(py, &LockCounts::new(), || self.told(burst, look));
        let lines =
            told.lines.iter().filter(|line| line.text.is_some()).map(|line| line.shown(py, told.wall));
        let lines = lines.collect::<PyResult<Vec<_>>>()?;
        let mut spans = Vec::new();
        for line in &told.lines {
            spans.extend(line.span(py, told.wall)?);
        }
        Ok(Some((
            PyList::new(py, lines)?,
            told.dropped,
            PyList::new(py, spans)?,
            PyBytes::new(py, told.written.as_bytes()),
        )))
    }

    /// Says from which level of `logging` upwards events are wanted.
    fn set_level(&self, level: u32) {
        if !self.is_foreign() {
            events::set_finest(filter(level));
        }
    }

    /// Records that were dropped because the reader was too far behind.
    #[getter]
    fn dropped(&self) -> u64 {
        if self.is_foreign() { 0 } else { self.sink.0.dropped() }
    }

    /// Takes no more records; `wait` gives those that are there, and then `None`.
    fn close(&self) {
        if !self.is_foreign() {
            events::leave(&(Arc::clone(&self.sink) as Arc<dyn EventLog>));
            self.sink.0.close();
        }
    }
}

impl NativeJournal {
    /// Where a door puts its records.
    pub(crate) fn access_log(&self) -> Arc<dyn AccessLog> {
        Arc::clone(&self.sink) as Arc<dyn AccessLog>
    }

    /// Records that were dropped.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let sink = Arc::clone(&self.sink);
        move || sink.0.dropped()
    }

    /// Where models put what became of batches whose requests are recorded.
    pub(crate) fn batch_log(&self) -> Arc<dyn BatchLog> {
        Arc::clone(&self.sink) as Arc<dyn BatchLog>
    }

    /// Does everything with a burst that needs no interpreter.
    fn told(&self, mut burst: Burst<Record>, look: Option<Look>) -> Told {
        let wall = WallClock::read();
        let mut written = look.map(|look| Lines::new(look, wall, burst.records.len()));
        let mut told = Told { lines: Vec::new(), dropped: burst.dropped, wall, written: String::new() };
        for record in burst.records.drain(..) {
            let text = match (&record, &mut written) {
                (Record::Access(access), Some(written)) if access.logged => {
                    written.add(access);
                    None
                }
                (Record::Access(access), None) if access.logged => Some(access.to_string()),
                (Record::Event(event), _) => Some(event.to_string()),
                _ => None,
            };
            let has_span = !matches!(record, Record::Event(_)) && !is_only_a_line(&record);
            if text.is_some() || has_span {
                told.lines.push(Line { record, text });
            }
        }
        self.sink.0.give_back(burst.records);
        told.written = written.map(Lines::into_text).unwrap_or_default();
        told
    }

    /// True in a child that was forked since: whoever held its lock does not exist here.
    fn is_foreign(&self) -> bool {
        self.born != generation()
    }
}

/// A burst, with everything done that needs no interpreter.
struct Told {
    lines: Vec<Line>,
    dropped: u64,
    wall: WallClock,
    /// Access records that need no line.
    written: String,
}

/// A record that the interpreter is needed for.
struct Line {
    record: Record,
    /// Its message, where it is a log record.
    text: Option<String>,
}

fn is_logged(record: &Record) -> bool {
    matches!(record, Record::Access(access) if access.logged)
}

/// True for a record that needs no interpreter where its line is all that is wanted of it.
fn is_only_a_line(record: &Record) -> bool {
    matches!(record, Record::Access(access) if !access.trace.as_ref().is_some_and(|trace| trace.recorded))
}

/// How lines look that need not be log records first; `None` where somebody wants the records.
fn look_in_force(asked: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Look>> {
    let Some(asked) = asked else { return Ok(None) };
    let look = asked.call0()?.extract::<Option<(String, i32)>>()?;
    Ok(look.map(|(look, ahead)| if look == "json" { Look::Json } else { Look::Text(ahead) }))
}

impl Line {
    fn span<'py>(&self, py: Python<'py>, wall: WallClock) -> PyResult<Option<Bound<'py, PyTuple>>> {
        match &self.record {
            Record::Access(access) => spans::of_request(py, access, wall),
            Record::Batch(batch) => batch.shown(py, wall),
            Record::Event(_) => Ok(None),
        }
    }

    fn shown<'py>(&self, py: Python<'py>, wall: WallClock) -> PyResult<Bound<'py, PyTuple>> {
        let fields = PyDict::new(py);
        let (logger, level, at) = match &self.record {
            Record::Access(access) => {
                describe(access, &fields)?;
                (intern!(py, "penstock.access").clone(), 20, wall.at(access.at))
            }
            Record::Event(event) => {
                for (name, value) in &event.fields {
                    set(&fields, name, value)?;
                }
                let logger = PyString::new(py, &event.target.replace("::", "."));
                (logger, number(event.level), event.at)
            }
            // It has no message: nobody asks.
            Record::Batch(_) => (intern!(py, "penstock.trace").clone(), 5, SystemTime::UNIX_EPOCH),
        };
        (logger, level, seconds(at), &self.text, fields).into_pyobject(py)
    }
}

/// The attributes of a log record; `penstock.logs` documents them.
fn describe(access: &AccessRecord, fields: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = fields.py();
    let time = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    fields.set_item(intern!(py, "peer"), access.peer.map(|peer| peer.to_string()))?;
    fields.set_item(intern!(py, "protocol"), access.protocol)?;
    fields.set_item(intern!(py, "method"), access.method.as_str())?;
    fields.set_item(intern!(py, "path"), access.path.as_str())?;
    fields.set_item(intern!(py, "status"), access.status)?;
    fields.set_item(intern!(py, "grpc_code"), access.code.map(Code::name))?;
    fields.set_item(intern!(py, "seconds"), access.took.as_secs_f64())?;
    fields.set_item(intern!(py, "request_bytes"), access.request_bytes)?;
    fields.set_item(intern!(py, "response_bytes"), access.response_bytes)?;
    fields.set_item(intern!(py, "request_id"), access.id.as_deref())?;
    let trace = access.trace.as_ref().map(|trace| &trace.context);
    fields.set_item(intern!(py, "trace_id"), trace.map(|trace| trace.trace_text()))?;
    fields.set_item(intern!(py, "span_id"), trace.map(|trace| trace.span_text()))?;
    fields.set_item(intern!(py, "key"), access.key.as_deref())?;
    fields.set_item(intern!(py, "client"), access.client.as_deref())?;
    fields.set_item(intern!(py, "model"), access.model_name())?;
    fields.set_item(intern!(py, "rows"), access.rows)?;
    fields.set_item(intern!(py, "batch"), access.batch)?;
    fields.set_item(intern!(py, "reason"), access.reason)?;
    let parts = access.timing.map(|timing| timing.parts);
    fields.set_item(intern!(py, "load_seconds"), time(access.timing.and_then(|timing| timing.load)))?;
    fields.set_item(intern!(py, "queue_seconds"), time(parts.map(|parts| parts.queue)))?;
    fields.set_item(intern!(py, "slot_seconds"), time(parts.map(|parts| parts.slot)))?;
    fields.set_item(intern!(py, "gather_seconds"), time(parts.map(|parts| parts.gather)))?;
    fields.set_item(intern!(py, "model_seconds"), time(parts.map(|parts| parts.model)))?;
    fields.set_item(intern!(py, "scatter_seconds"), time(parts.map(|parts| parts.scatter)))?;
    fields.set_item(intern!(py, "encode_seconds"), time(access.timing.map(|timing| timing.encode)))
}

fn set(fields: &Bound<'_, PyDict>, name: &str, value: &Value) -> PyResult<()> {
    match value {
        Value::Text(text) => fields.set_item(name, text),
        Value::Signed(number) => fields.set_item(name, number),
        Value::Unsigned(number) => fields.set_item(name, number),
        Value::Number(number) => fields.set_item(name, number),
        Value::Truth(truth) => fields.set_item(name, truth),
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Python's `logging` has no name for what is finer than DEBUG; 5 is what others use.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

fn filter(level: u32) -> LevelFilter {
    match level {
        0..=5 => LevelFilter::TRACE,
        6..=10 => LevelFilter::DEBUG,
        11..=20 => LevelFilter::INFO,
        21..=30 => LevelFilter::WARN,
        31..=40 => LevelFilter::ERROR,
        _ => LevelFilter::OFF,
    }
}
