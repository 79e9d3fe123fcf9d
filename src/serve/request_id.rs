//! What a request is called, for whoever looks for it later: by its sender in `X-Request-Id`, else by the server, where it
//! is written down. Its answer says it, too.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::access;
use crate::flow::digits;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the head of a request calls it.
pub(super) fn of_head(headers: &HeaderMap) -> Option<Arc<str>> {
    let named = headers.get(REQUEST_ID)?.to_str().ok()?;
    let named = access::fit_for_a_log(named);
    (!named.is_empty()).then(|| named.into())
}

/// A name for a request that has none.
pub(super) fn made() -> Arc<str> {
    std::str::from_utf8(&digits(fastrand::u128(..))).unwrap_or_default().into()
}

/// Says in the head of an answer what its request is called. What a field cannot carry is not said.
pub(super) fn say(headers: &mut HeaderMap, id: Option<&str>) {
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert(REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_where_it_is_one_and_said_again() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_head(&headers), None);
        headers.insert(REQUEST_ID, HeaderValue::from_static("a7"));
        assert_eq!(of_head(&headers).as_deref(), Some("a7"));
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(of_head(&headers), None);
        headers.insert(REQUEST_ID, HeaderValue::from_str(&"x".repeat(500)).unwrap());
        assert_eq!(of_head(&headers).unwrap().len(), 128);
        let mut answer = HeaderMap::new();
        say(&mut answer, None);
        say(&mut answer, Some("a\nb"));
        assert!(answer.is_empty());
        let made = made();
        say(&mut answer, Some(&made));
        assert_eq!(answer.get(REQUEST_ID).unwrap().to_str().unwrap(), &*made);
        assert_eq!(made.len(), 32);
        assert_eq!(digits(0x00f0_67aa).as_slice(), format!("{:032x}", 0x00f0_67aa).as_bytes());
    }
}
