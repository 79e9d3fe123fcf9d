//! The place of a request in a trace, as its head says: `traceparent` and `tracestate`, over gRPC as metadata.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use http::{HeaderMap, HeaderName};

use super::access::AccessLog;
use super::body::{Only, only};
use super::timing::Timing;
use crate::flow::TraceContext;
use crate::pipeline::{BatchAccount, Boarding};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// The place of a request in a trace, and whether its spans are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The request's own span where that is recorded, else that of whoever sent it.
    pub context: Arc<TraceContext>,
    /// The span of whoever sent it, where one is known and the request's own is recorded.
    pub parent: Option<[u8; 8]>,
    /// Whether its spans are recorded.
    pub recorded: bool,
}

/// What became of a request that was recorded, besides what its record says anyway.
#[derive(Debug, Clone, PartialEq)]
pub struct Spans {
    /// How long it waited: for its model, for company and for a worker.
    pub waited: Duration,
    /// Until when it waited: a worker took its batch.
    pub taken: Instant,
    /// The batch that it was answered with.
    pub batch: Option<TraceContext>,
}

impl Spans {
    /// Those of a request that was answered with this batch.
    pub(super) fn of(batch: &BatchAccount, timing: &Timing) -> Self {
        let waited = timing.load.unwrap_or_default() + timing.parts.queue + timing.parts.slot;
        Self { waited, taken: batch.taken, batch: batch.trace() }
    }

    /// Those of a request that is answered piece by piece; none where no batch ever had it.
    pub(super) fn boarded(boarding: &Boarding) -> Option<Self> {
        let (asked, boarded, batch) = boarding.known()?;
        let waited = boarded.saturating_duration_since(asked);
        Some(Self { waited, taken: boarded, batch: batch.cloned() })
    }
}

/// Which requests are recorded, and who keeps what is.
#[derive(Debug)]
pub struct Tracing {
    log: Arc<dyn AccessLog>,
    ratio: f64,
    allowance: Mutex<Allowance>,
}

/// Traces that may be begun: so many a second, and a second's worth at once. A ratio alone would have a server spend the
/// more on its traces the less time it has.
#[derive(Debug)]
struct Allowance {
    a_second: f64,
    left: f64,
    /// When that much was left.
    at: Instant,
}

impl Allowance {
    fn new(a_second: u32, now: Instant) -> Self {
        let a_second = f64::from(a_second);
        Self { a_second, left: a_second, at: now }
    }

    /// Takes one, where there is one at this moment.
    fn take(&mut self, now: Instant) -> bool {
        let came = now.saturating_duration_since(self.at).as_secs_f64() * self.a_second;
        self.left = (self.left + came).min(self.a_second);
        self.at = self.at.max(now);
        let is_there = self.left >= 1.0;
        self.left -= f64::from(u8::from(is_there));
        is_there
    }
}

impl Tracing {
    /// Records every request whose sender records it, and this share of those that come without a trace: of these no more
    /// than `limit` a second.
    pub fn new(log: Arc<dyn AccessLog>, ratio: f64, limit: u32) -> Self {
        Self { log, ratio, allowance: Mutex::new(Allowance::new(limit, Instant::now())) }
    }

    fn begins_one(&self) -> bool {
        self.ratio > 0.0 && fastrand::f64() < self.ratio && self.allowance.lock().take(Instant::now())
    }

    /// Who keeps what is recorded.
    pub(super) fn log(&self) -> &Arc<dyn AccessLog> {
        &self.log
    }

    fn begin(&self, sender: Option<TraceContext>) -> Option<Traced> {
        let Some(sender) = sender else {
            return self.begins_one().then(|| Traced {
                context: Arc::new(TraceContext::root(true)),
                parent: None,
                recorded: true,
            });
        };
        if !sender.sampled {
            return Some(passed(sender));
        }
        let context = Arc::new(sender.child());
        Some(Traced { context, parent: Some(sender.span_id), recorded: true })
    }
}

/// The place of a request under this head in a trace.
pub(super) fn begin(headers: &HeaderMap, tracing: Option<&Tracing>) -> Option<Traced> {
    let sender = of_head(headers);
    match tracing {
        Some(tracing) => tracing.begin(sender),
        None => sender.map(passed),
    }
}

/// It is passed on as it came.
fn passed(sender: TraceContext) -> Traced {
    Traced { context: Arc::new(sender), parent: None, recorded: false }
}

/// The context that a head names. One that cannot be read is none: the standard says to go on without.
fn of_head(headers: &HeaderMap) -> Option<TraceContext> {
    let Only::One(parent) = only(headers, &PARENT) else { return None };
    TraceContext::parse(parent.to_str().ok()?, state(headers).as_deref())
}

/// `tracestate`, which may be spread over several fields.
fn state(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut fields = headers.get_all(&STATE).iter().map(|field| field.to_str().ok());
    let first = fields.next()??;
    let mut state = Cow::Borrowed(first);
    for field in fields {
        let state = state.to_mut();
        state.push(',');
        state.push_str(field?);
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_head_names_one_context_or_none() {
        assert_eq!(of_head(&head(&[])), None);
        let context = of_head(&head(&[("traceparent", TEXT), ("tracestate", "a=b"), ("tracestate", "c=d")]));
        let context = context.unwrap();
        assert_eq!((context.header().as_str(), context.state.as_deref()), (TEXT, Some("a=b,c=d")));
        assert_eq!(of_head(&head(&[("traceparent", TEXT), ("traceparent", TEXT)])), None, "given twice");
        assert_eq!(of_head(&head(&[("traceparent", "00-x")])), None);
        assert_eq!(of_head(&head(&[("tracestate", "a=b")])), None);
    }

    #[derive(Debug)]
    struct Nobody;

    impl AccessLog for Nobody {
        fn access(&self, _record: super::super::AccessRecord) {}
    }

    #[test]
    fn what_the_sender_records_is_recorded_and_a_share_of_the_rest() {
        let sampled = head(&[("traceparent", TEXT), ("tracestate", "a=b")]);
        let passed = begin(&sampled, None).unwrap();
        assert_eq!((passed.context.header().as_str(), passed.recorded), (TEXT, false));
        assert_eq!(begin(&head(&[]), None), None);
        let never = Tracing::new(Arc::new(Nobody), 0.0, 1);
        let child = begin(&sampled, Some(&never)).unwrap();
        assert_eq!(
            (child.context.trace_id, child.parent, child.recorded),
            (passed.context.trace_id, Some(passed.context.span_id), true,)
        );
        assert_ne!(child.context.span_id, passed.context.span_id);
        assert_eq!(begin(&head(&[]), Some(&never)), None);
        let always = Tracing::new(Arc::new(Nobody), 1.0, 1);
        let root = begin(&head(&[]), Some(&always)).unwrap();
        assert!(root.recorded && root.parent.is_none() && root.context.sampled);
        let unsampled = head(&[("traceparent", &TEXT.replace("-01", "-00"))]);
        let passed = begin(&unsampled, Some(&always)).unwrap();
        assert!(!passed.recorded && passed.context.header().ends_with("-00"));
        let half = Tracing::new(Arc::new(Nobody), 0.5, 1_000_000);
        let recorded = (0..1_000).filter(|_| begin(&head(&[]), Some(&half)).is_some()).count();
        assert!((350..650).contains(&recorded), "{recorded}");
    }

    #[test]
    fn a_second_has_its_share_of_traces_and_saves_none_for_later() {
        let start = Instant::now();
        let mut allowance = Allowance::new(3, start);
        let mut taken_after =
            |millis| (0..10).filter(|_| allowance.take(start + Duration::from_millis(millis))).count();
        assert_eq!([0, 0, 334, 900, 60_000, 0].map(&mut taken_after), [3, 0, 1, 1, 3, 0]);
    }
}
