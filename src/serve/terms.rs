//! On which terms an inference request waits, as its head says: `X-Request-Priority` (`high`, `normal` or `low`),
//! `X-Request-Tenant`, and how long it may take. They are the same over gRPC, as metadata.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::access::Note;
use super::body::{Only, only};
use super::deadline::Deadline;
use super::request_id;
use crate::batch::Priority;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::TraceContext;
use crate::pipeline::RequestTerms;

const PRIORITY: HeaderName = HeaderName::from_static("x-request-priority");
const TENANT: HeaderName = HeaderName::from_static("x-request-tenant");

/// Characters of a tenant's name at most.
const LONGEST_TENANT: usize = 128;

/// What the head of a request says of how it waits.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadTerms {
    priority: Option<Priority>,
    tenant: Option<Arc<str>>,
    trace: Option<Arc<TraceContext>>,
    /// What the request is called, where it does not say so itself.
    id: Option<Arc<str>>,
    /// It is to be called something.
    named: bool,
    deadline: Option<Deadline>,
    /// Somebody looks after that end already.
    timed: bool,
}

impl HeadTerms {
    /// The terms that the head of a request names which has come now.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it names some that cannot be.
    pub(super) fn of_head(headers: &HeaderMap) -> Result<Self> {
        let priority = text(headers, &PRIORITY)?.map(priority).transpose()?;
        let tenant = text(headers, &TENANT)?.map(tenant).transpose()?;
        Ok(Self { priority, tenant, ..Self::default() })
    }

    /// What is noted of the request goes with it.
    pub(super) fn label(&mut self, note: &Note) {
        self.trace = note.trace.as_ref().map(|trace| Arc::clone(&trace.context));
        self.id.clone_from(&note.named);
        self.named = note.logged;
    }

    /// Whose request it is, where the head does not say.
    pub(super) fn default_tenant(&mut self, name: Option<&Arc<str>>) {
        if self.tenant.is_none() {
            self.tenant = name.map(Arc::clone);
        }
    }

    /// Whoever calls this gives up at `deadline`.
    pub(super) fn end_by(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
        self.timed = true;
    }

    /// As [`end_by`](Self::end_by), and the request is to be given up where it waits.
    pub(super) fn give_up_at(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
        self.timed = false;
    }

    /// The end that the head names.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// The terms of a request under this head, with what it says itself: when its answer is worth nothing any more, and
    /// who is to give it up.
    pub(super) fn with(
        self,
        parameter: Option<Deadline>,
        level: Option<u64>,
    ) -> (RequestTerms, Option<Deadline>) {
        let earlier = Deadline::earlier(self.deadline, parameter);
        let terms = RequestTerms {
            priority: self.priority.or(level.map(of_level)).unwrap_or_default(),
            tenant: self.tenant,
            deadline: earlier.map(Deadline::at),
            id: self.id.or_else(|| self.named.then(request_id::made)),
            trace: self.trace,
        };
        (terms, if self.timed { parameter } else { earlier })
    }
}

/// Triton's levels go from 1, the highest, as far as a model says; here are three.
fn of_level(level: u64) -> Priority {
    match level {
        1 => Priority::High,
        2 => Priority::Normal,
        _ => Priority::Low,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>> {
    match only(headers, name) {
        Only::None => Ok(None),
        Only::Several => Err(refused(name, "given twice")),
        Only::One(value) => {
            let value = value.to_str().map_err(|_| refused(name, "no text of printable characters"))?;
            Ok(Some(value.trim()))
        }
    }
}

fn priority(name: &str) -> Result<Priority> {
    Priority::from_name(name).ok_or_else(|| {
        refused(&PRIORITY, &format!("'{}', which is none of high, normal and low", name.escape_debug()))
    })
}

fn tenant(name: &str) -> Result<Arc<str>> {
    if name.is_empty() {
        return Err(refused(&TENANT, "empty"));
    }
    if name.len() > LONGEST_TENANT {
        return Err(refused(&TENANT, &format!("longer than {LONGEST_TENANT} characters")));
    }
    if name.contains(char::is_control) {
        return Err(refused(&TENANT, "no text of printable characters"));
    }
    Ok(name.into())
}

fn refused(name: &HeaderName, what: &str) -> Error {
    Error::new(ErrorKind::Item, format!("{name} is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_head_names_priority_and_tenant_or_neither() {
        let (terms, _) = HeadTerms::of_head(&head(&[])).unwrap().with(None, None);
        assert_eq!((terms.priority, terms.tenant, terms.deadline), (Priority::Normal, None, None));
        let given = head(&[("x-request-priority", "high"), ("x-request-tenant", " team a ")]);
        let (terms, _) = HeadTerms::of_head(&given).unwrap().with(None, Some(3));
        assert_eq!(terms.priority, Priority::High, "the head is stronger than the parameter");
        assert_eq!(terms.tenant.as_deref(), Some("team a"));
        for (level, expected) in
            [(1, Priority::High), (2, Priority::Normal), (3, Priority::Low), (9, Priority::Low)]
        {
            assert_eq!(HeadTerms::default().with(None, Some(level)).0.priority, expected, "{level}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let long = "x".repeat(LONGEST_TENANT + 1);
        for (fields, words) in [
            (&[("x-request-priority", "urgent")][..], "x-request-priority is 'urgent'"),
            (
                &[("x-request-priority", "high"), ("x-request-priority", "low")],
                "x-request-priority is given twice",
            ),
            (&[("x-request-tenant", " ")], "x-request-tenant is empty"),
            (&[("x-request-tenant", "a\tb")], "x-request-tenant is no text"),
            (&[("x-request-tenant", "zwölf")], "x-request-tenant is no text"),
            (&[("x-request-tenant", &*long)], "x-request-tenant is longer than 128"),
        ] {
            let error = HeadTerms::of_head(&head(fields)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Item);
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_end_is_the_deadline_and_nobody_looks_after_it_twice() {
        let of_head = Deadline::after(Duration::from_secs(1), "head");
        let parameter = Deadline::after(Duration::from_secs(2), "parameter");
        let mut terms = HeadTerms::default();
        terms.give_up_at(of_head);
        let (waits, watched) = terms.clone().with(parameter, None);
        assert_eq!((waits.deadline, watched), (of_head.map(Deadline::at), of_head));
        terms.end_by(of_head);
        let (waits, watched) = terms.with(parameter, None);
        assert_eq!((waits.deadline, watched), (of_head.map(Deadline::at), parameter));
    }
}
