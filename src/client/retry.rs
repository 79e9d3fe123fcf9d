//! Whether a request is sent again, as a pure function of what happened to it.

use std::time::Duration;

use http::StatusCode;

use super::request::Request;
use crate::error::ErrorKind;

/// When a request is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How often a request is sent in all; 1 is never again.
    pub attempts: u32,
    /// Retries, as a share of the requests.
    pub budget: f64,
    /// Retries each second that are had besides.
    pub per_second: f64,
    /// Statuses of answers that are asked for again, where the request is idempotent.
    pub statuses: Vec<StatusCode>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, budget: 0.2, per_second: 10.0, statuses: Vec::new() }
    }
}

/// The first pause between two attempts at the same endpoint; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What happened to an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) kind: ErrorKind,
    /// The server certainly never saw the request.
    pub(super) unsent: bool,
    /// Its connection had served before, and nothing of an answer came over it.
    pub(super) silent: bool,
}

impl Retry {
    /// True where the attempt may be followed by another: the budget still has its say.
    pub(super) fn allows(&self, request: &Request, attempts: u32, failed: Failed) -> bool {
        let lost = matches!(
            failed.kind,
            ErrorKind::ConnectFailed
                | ErrorKind::ConnectTimeout
                | ErrorKind::ReadFailed
                | ErrorKind::WriteFailed
        );
        let may = request.retries && attempts < self.attempts && request.is_whole();
        // Once: what comes back empty twice is no connection that was about to be closed.
        let was_stale = request.again_if_silent && failed.silent && attempts == 1;
        may && lost && (failed.unsent || request.idempotent || was_stale)
    }

    /// True where an answer of this status is asked for again.
    pub(super) fn repeats(&self, request: &Request, attempts: u32, status: StatusCode) -> bool {
        let may = request.retries && attempts < self.attempts && request.is_whole();
        may && request.idempotent && self.statuses.contains(&status)
    }

    /// How long to wait before the next attempt, after `attempts` of them; none before another endpoint is tried.
    pub(super) fn pause(attempts: u32, elsewhere: bool, random: f64) -> Duration {
        if elsewhere {
            return Duration::ZERO;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        // Half of it at least: those that failed together do not come back together.
        doubled.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::request::Target;
    use http::Method;

    fn request(method: Method) -> Request {
        Request::new(method, Target::new("/").unwrap())
    }

    #[test]
    fn what_was_never_sent_is_sent_again_and_what_was_sent_only_where_that_is_safe() {
        let retry = Retry::default();
        let failed = |unsent| Failed { kind: ErrorKind::ReadFailed, unsent, silent: false };
        assert!(retry.allows(&request(Method::POST), 1, failed(true)));
        assert!(!retry.allows(&request(Method::POST), 1, failed(false)));
        assert!(retry.allows(&request(Method::GET), 1, failed(false)));
        let marked = Request { idempotent: true, ..request(Method::POST) };
        assert!(retry.allows(&marked, 1, failed(false)));
        assert!(!retry.allows(&request(Method::GET), 3, failed(true)));
        let never = Request { retries: false, ..request(Method::GET) };
        assert!(!retry.allows(&never, 1, failed(true)));
    }

    #[test]
    fn what_a_kept_connection_swallowed_is_sent_again_once_where_that_is_asked_for() {
        let (retry, kind) = (Retry::default(), ErrorKind::ReadFailed);
        let silent = Failed { kind, unsent: false, silent: true };
        let asked = Request { again_if_silent: true, ..request(Method::POST) };
        assert!(retry.allows(&asked, 1, silent));
        assert!(!retry.allows(&asked, 2, silent), "once");
        assert!(!retry.allows(&asked, 1, Failed { silent: false, ..silent }), "it had begun to answer");
        assert!(!retry.allows(&request(Method::POST), 1, silent), "nobody asked for it");
        assert!(!retry.allows(&Request { retries: false, ..asked }, 1, silent));
    }

    #[test]
    fn time_outs_and_broken_protocols_are_not_tried_again() {
        for kind in [
            ErrorKind::FirstChunkTimeout,
            ErrorKind::DeadlineExceeded,
            ErrorKind::ProtocolError,
            ErrorKind::Closed,
        ] {
            assert!(
                !Retry::default().allows(
                    &request(Method::GET),
                    1,
                    Failed { kind, unsent: false, silent: true }
                ),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn answers_are_asked_for_again_by_status_and_only_where_asked_to() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        assert!(!Retry::default().repeats(&request(Method::GET), 1, status));
        let retry = Retry { statuses: vec![status], ..Retry::default() };
        assert!(retry.repeats(&request(Method::GET), 1, status));
        assert!(!retry.repeats(&request(Method::POST), 1, status));
        assert!(!retry.repeats(&request(Method::GET), 3, status));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_another_endpoint_is_tried_at_once() {
        assert_eq!(Retry::pause(1, true, 1.0), Duration::ZERO);
        assert_eq!(Retry::pause(1, false, 1.0), FIRST_PAUSE);
        assert_eq!(Retry::pause(2, false, 0.0), FIRST_PAUSE);
        assert_eq!(Retry::pause(40, false, 1.0), LONGEST_PAUSE);
    }
}
