//! The place of a request in a trace, as its head says: `traceparent` and `tracestate`, over gRPC as metadata.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

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
    /// From when until when it waited: for its model, for company and for a worker.
    pub waited: (SystemTime, SystemTime),
    /// The batch that it was answered with.
    pub batch: Option<TraceContext>,
}

impl Spans {
    /// Those of a request that was answered with this batch.
    pub(super) fn of(batch: &BatchAccount, timing: &Timing) -> Self {
        let (now, here) = (Instant::now(), SystemTime::now());
        let ago = |moment: Instant| here.checked_sub(now.saturating_duration_since(moment)).unwrap_or(here);
        let taken = ago(batch.taken);
        let waited = timing.load.unwrap_or_default() + timing.parts.queue + timing.parts.slot;
        Self { waited: (taken.checked_sub(waited).unwrap_or(taken), taken), batch: batch.trace() }
    }

    /// Those of a request that is answered piece by piece; none where no batch ever had it.
    pub(super) fn boarded(boarding: &Boarding) -> Option<Self> {
        let (asked, boarded, batch) = boarding.known()?;
        let (now, here) = (Instant::now(), SystemTime::now());
        let ago = |moment: Instant| here.checked_sub(now.saturating_duration_since(moment)).unwrap_or(here);
        Some(Self { waited: (ago(asked), ago(boarded)), batch: batch.cloned() })
    }
}

/// Which requests are recorded, and who keeps what is.
#[derive(Debug)]
pub struct Tracing {
    log: Arc<dyn AccessLog>,
    ratio: f64,
}

impl Tracing {
    /// Records every request whose sender records it, and this share of those that come without a trace.
    pub fn new(log: Arc<dyn AccessLog>, ratio: f64) -> Self {
        Self { log, ratio }
    }

    /// Who keeps what is recorded.
    pub(super) fn log(&self) -> &Arc<dyn AccessLog> {
        &self.log
    }

    fn begin(&self, sender: Option<TraceContext>) -> Option<Traced> {
        let Some(sender) = sender else {
            let recorded = self.ratio > 0.0 && fastrand::f64() < self.ratio;
            return recorded.then(|| Traced {
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
        let never = Tracing::new(Arc::new(Nobody), 0.0);
        let child = begin(&sampled, Some(&never)).unwrap();
        assert_eq!(
            (child.context.trace_id, child.parent, child.recorded),
            (passed.context.trace_id, Some(passed.context.span_id), true,)
        );
        assert_ne!(child.context.span_id, passed.context.span_id);
        assert_eq!(begin(&head(&[]), Some(&never)), None);
        let always = Tracing::new(Arc::new(Nobody), 1.0);
        let root = begin(&head(&[]), Some(&always)).unwrap();
        assert!(root.recorded && root.parent.is_none() && root.context.sampled);
        let unsampled = head(&[("traceparent", &TEXT.replace("-01", "-00"))]);
        let passed = begin(&unsampled, Some(&always)).unwrap();
        assert!(!passed.recorded && passed.context.header().ends_with("-00"));
        let half = Tracing::new(Arc::new(Nobody), 0.5);
        let recorded = (0..1_000).filter(|_| begin(&head(&[]), Some(&half)).is_some()).count();
        assert!((350..650).contains(&recorded), "{recorded}");
    }
}
