//! The place of a request in a trace, as its head says: `traceparent` and `tracestate`, over gRPC as metadata.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::body::{Only, only};
use crate::flow::TraceContext;

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// The context that a head names. One that cannot be read is none: the standard says to go on without.
pub(super) fn of_head(headers: &HeaderMap) -> Option<TraceContext> {
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
}
