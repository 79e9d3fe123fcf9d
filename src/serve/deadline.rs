//! How long an inference request may take, as its sender says: in the header `X-Request-Timeout`, in seconds, or in the
//! parameter `timeout` of the protocol, in microseconds. Of both, the earlier end counts.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::{Instant, timeout_at};

use super::body::{Only, only};
use crate::error::{Error, ErrorKind};

const NAME: &str = "x-request-timeout";
const HEADER: HeaderName = HeaderName::from_static(NAME);
const PARAMETER: &str = "the parameter timeout";

/// A moment, and who named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
    named: &'static str,
}

impl Deadline {
    /// The end that the head of a request names which has come now.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it names none that can be.
    pub(super) fn of_head(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let wrong = |what: &str| Error::new(ErrorKind::Item, format!("{NAME} is {what}"));
        let value = match only(headers, &HEADER) {
            Only::None => return Ok(None),
            Only::Several => return Err(wrong("given twice")),
            Only::One(value) => value.to_str().unwrap_or("?").trim(),
        };
        let seconds = value.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
        let seconds = seconds.ok_or_else(|| wrong(&format!("'{value}', which is no number of seconds")))?;
        // Longer than any clock goes is as good as no end.
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Ok(Self::after(limit, NAME))
    }

    /// The end that the parameter of a request names which has come now.
    pub(super) fn of_parameter(timeout: Option<Duration>) -> Option<Self> {
        Self::after(timeout?, PARAMETER)
    }

    /// None where it is later than any clock goes.
    pub fn after(limit: Duration, named: &'static str) -> Option<Self> {
        Some(Self { at: Instant::now().checked_add(limit)?, limit, named })
    }

    /// The earlier of two.
    pub(super) fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).min_by_key(|deadline| deadline.at)
    }

    /// When that is.
    pub(super) fn at(self) -> std::time::Instant {
        self.at.into_std()
    }

    /// Whether there is time left to ask a model.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] where there is none.
    pub(super) fn check(self) -> Result<(), Error> {
        if self.at <= Instant::now() { Err(self.missed()) } else { Ok(()) }
    }

    fn missed(self) -> Error {
        let Self { limit, named, .. } = self;
        Error::new(ErrorKind::DeadlineExceeded, format!("the {limit:?} of {named} have passed"))
    }
}

/// The answer, unless its time passes before: then its request leaves the queue.
pub(super) async fn within<T, E: From<Error>>(
    deadline: Option<Deadline>,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match deadline {
        None => answer.await,
        // Boxed, as what few requests need: all would have room for it.
        Some(deadline) => {
            Box::pin(timeout_at(deadline.at, answer)).await.unwrap_or_else(|_| Err(deadline.missed().into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_names_seconds_or_nothing() {
        assert_eq!(Deadline::of_head(&head(&[])).unwrap(), None);
        for (value, millis) in [("0.25", 250), (" 2 ", 2_000), ("0", 0), ("1e3", 1_000_000)] {
            let deadline = Deadline::of_head(&head(&[value])).unwrap().unwrap();
            assert_eq!(deadline.at - Instant::now(), Duration::from_millis(millis), "{value}");
        }
        for long in ["1e19", "1e300"] {
            assert_eq!(Deadline::of_head(&head(&[long])).unwrap(), None, "longer than any clock goes");
        }
        for values in [&["x"][..], &[""], &["-1"], &["nan"], &["inf"], &["1", "2"]] {
            let error = Deadline::of_head(&head(values)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Item);
            assert!(error.message().contains("x-request-timeout"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_end_counts_and_is_named() {
        let head = Deadline::of_head(&head(&["2"])).unwrap();
        let parameter = Deadline::of_parameter(Some(Duration::from_secs(1)));
        let earlier = Deadline::earlier(head, parameter).unwrap();
        assert_eq!(Deadline::earlier(parameter, head), Some(earlier));
        assert_eq!(Deadline::earlier(head, None), head);
        earlier.check().unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let error = earlier.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.message(), "the 1s of the parameter timeout have passed");
    }
}
