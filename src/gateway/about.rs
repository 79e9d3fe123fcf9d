//! What a server is told of a request beside what it is asked: the same fields whatever it speaks, over gRPC as metadata.

use std::time::Duration;

use smallvec::SmallVec;

use crate::flow::{Moment, Priority, TraceContext};
use crate::pipeline::Shared;

/// Characters of a name at most that goes into a field; a longer one is left out.
const LONGEST: usize = 256;

/// What is known of a request, or of all requests that one asks for, beside what it asks.
#[derive(Debug)]
pub(super) struct About<'a> {
    /// How long its answer is worth anything.
    pub(super) left: Option<Duration>,
    seconds: Option<String>,
    traceparent: Option<String>,
    shared: &'a Shared,
}

impl<'a> About<'a> {
    /// What there is to tell now on those terms.
    pub(super) fn of(shared: &'a Shared, now: Moment) -> Self {
        let left = shared.latest.map(|latest| latest.since(now));
        Self {
            left,
            seconds: left.map(|left| format!("{:.6}", left.as_secs_f64())),
            traceparent: shared.trace.as_ref().map(TraceContext::header),
            shared,
        }
    }

    /// The header fields that say it.
    pub(super) fn fields(&self) -> SmallVec<[(&'static str, &str); 8]> {
        let shared = self.shared;
        // What everybody has by default need not be said.
        let priority = shared.priority.filter(|priority| *priority != Priority::default());
        let named = [
            ("x-request-timeout", self.seconds.as_deref()),
            ("traceparent", self.traceparent.as_deref()),
            ("tracestate", shared.trace.as_ref().and_then(|trace| trace.state.as_deref())),
            ("x-request-priority", priority.map(Priority::name)),
            ("x-request-tenant", fit(shared.tenant.as_deref())),
            ("x-request-id", fit(shared.id.as_deref())),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A name that can stand in a field of every protocol: what its sender calls something may be any text.
fn fit(name: Option<&str>) -> Option<&str> {
    name.filter(|name| {
        let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        is_plain && !name.trim().is_empty() && name.len() <= LONGEST
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(shared: &Shared) -> Vec<(String, String)> {
        let about = About::of(shared, Moment::from_nanos(1_000_000_000));
        about.fields().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_all_requests_agree_in_is_told() {
        assert_eq!(told(&Shared::default()), []);
        let plain = Shared { priority: Some(Priority::Normal), ..Shared::default() };
        assert_eq!(told(&plain), [], "what everybody has is not said");
        let trace =
            TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some("a=b"));
        let all = Shared {
            latest: Some(Moment::from_nanos(3_500_000_000)),
            priority: Some(Priority::High),
            tenant: Some("team a".into()),
            id: Some("r7".into()),
            trace: trace.clone(),
        };
        let expected = [
            ("x-request-timeout", "2.500000".to_owned()),
            ("traceparent", trace.unwrap().header()),
            ("tracestate", "a=b".to_owned()),
            ("x-request-priority", "high".to_owned()),
            ("x-request-tenant", "team a".to_owned()),
            ("x-request-id", "r7".to_owned()),
        ];
        assert_eq!(told(&all), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_name_that_no_field_can_have_fails_nobody() {
        for name in ["a\r\nb: c", "zwölf", " ", "", "a\u{7f}", &"x".repeat(LONGEST + 1)] {
            let shared = Shared { id: Some(name.into()), tenant: Some(name.into()), ..Shared::default() };
            assert_eq!(told(&shared), [], "{name}");
        }
    }
}
