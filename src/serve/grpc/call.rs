//! A call, from its head to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::account::Account;
use super::body::{AnswerBody, Stream};
use super::inquiries::{decoded, status};
use super::message::Inbox;
use super::method::Method;
use super::reply::{self, Head};
use super::{health, infer, inquiries, reflection, stream};
use crate::serve::access::{Answered, Note};
use crate::serve::connection::OpenStream;
use crate::serve::deadline::{Deadline, within};
use crate::serve::door::{Door, guarded};
use crate::serve::request_id;
use crate::wire::grpc::{Code, Status};

/// Pieces of an answer that are made ahead of what the other side takes.
const AHEAD: usize = 8;

/// The message of a call that went well, and where its time went.
type Message = (Bytes, Option<HeaderValue>);

impl Door {
    /// Answers a call of gRPC. Every failure is an answer, with a status and words.
    ///
    /// # Cancellation
    /// Dropping the future, or the body of its answer, takes the call's requests out of their models' queues.
    pub(in crate::serve) async fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        client: Option<Arc<str>>,
        open: OpenStream,
    ) -> Response<AnswerBody> {
        let (parts, body) = request.into_parts();
        let mut note = Note { logged: self.access_log.is_some(), client, ..Note::default() };
        let asks_a_model = parts.uri.path().starts_with("/inference.");
        note.label(&parts.headers, self.tracing.get().filter(|_| asks_a_model));
        let asked = self.asked(&parts, &mut note);
        let began = note.logged.then(std::time::Instant::now);
        let answer = match asked {
            Ok((method, head)) if method.is_stream() => {
                let named = note.called().map(str::to_owned);
                let account = Account::open(Arc::clone(&self), parts, peer, note, open);
                let mut reply = self.stream(method, head, body, account);
                request_id::say(reply.headers_mut(), named.as_deref());
                return reply;
            }
            Ok((method, head)) => {
                let deadline = head.terms.deadline();
                let call = pin!(self.answer_call(method, head, body, &mut note));
                guarded(pin!(in_time(deadline, call)), |error| Err(Status::from(error))).await
            }
            Err(status) => Err(status),
        };
        let code = answer.as_ref().map_or_else(|status| status.code, |_| Code::Ok);
        let bytes = answer.as_ref().map_or(0, |(message, _)| message.len() as u64);
        let mut reply = match answer {
            Ok((message, timing)) => reply::message(message, timing),
            Err(status) => reply::failure(&status),
        };
        request_id::say(reply.headers_mut(), note.called());
        self.metrics.called(code.name());
        self.metrics.moved_by_call(note.bytes, bytes);
        if let Some((began, log)) = began.zip(self.reporter(&note)) {
            let mut record = note.record(&parts, Some(peer), &Answered::called(code, bytes), began);
            record.logged = self.access_log.is_some();
            log.access(record);
        }
        drop(open);
        reply
    }

    /// What a call asks for, if whoever calls may.
    fn asked(&self, parts: &Parts, note: &mut Note) -> Result<(Method, Head), Status> {
        let method = Method::of(parts.uri.path());
        let is_open = method.as_ref().is_ok_and(|method| method.is_open());
        note.key = self
            .security
            .admit_call(&parts.headers, is_open)
            .inspect_err(|_| self.metrics.refused("api_keys"))?;
        let (method, mut head) = (method?, Head::of(parts)?);
        head.terms.label(note);
        head.terms.default_tenant(note.key.as_ref());
        Ok((method, head))
    }

    /// A call with one message and one answer.
    async fn answer_call(
        &self,
        method: Method,
        head: Head,
        body: Incoming,
        note: &mut Note,
    ) -> Result<Message, Status> {
        let _in_flight = match method {
            Method::ModelInfer => Some(self.admit().map_err(status)?),
            _ => None,
        };
        let message = {
            let mut inbox = Inbox::new(body, head.encoding, &self.settings);
            let message = inbox.only(&self.settings).await;
            note.bytes = inbox.bytes().load(Ordering::Relaxed);
            message.inspect_err(|status| self.refused(status))?
        };
        if method != Method::ModelInfer {
            return self.answer_inquiry(method, message).await.map(|answer| (answer, None));
        }
        let fit = infer::read(&self.service, message).await.map_err(|refused| refused.status)?;
        fit.answer(head.terms, self.settings.server_timing, note).await
    }

    /// A call that asks no model.
    async fn answer_inquiry(&self, method: Method, message: Bytes) -> Result<Bytes, Status> {
        match method {
            Method::RepositoryIndex => Box::pin(self.repository_index(message)).await,
            Method::RepositoryLoad => Box::pin(self.repository_load(message)).await,
            Method::RepositoryUnload => Box::pin(self.repository_unload(message)).await,
            _ => inquiries::answer(&self.service, self.has_repository(), method, message),
        }
    }

    /// A call whose answers come while it goes on.
    fn stream(
        self: Arc<Self>,
        method: Method,
        head: Head,
        body: Incoming,
        mut account: Account,
    ) -> Response<AnswerBody> {
        let (answers, pieces) = mpsc::channel(AHEAD);
        let mut inbox = Inbox::new(body, head.encoding, &self.settings);
        account.hears(inbox.bytes());
        let deadline = head.terms.deadline();
        let call = async move {
            let ended = match method {
                Method::HealthWatch => {
                    let asked = decoded(inbox.only(&self.settings).await?)?;
                    health::watch(Arc::clone(&self.service), asked, answers).await
                }
                Method::Reflection => reflection::run(&self.service, inbox, answers).await,
                _ => stream::run(Arc::clone(&self), head.terms, inbox, answers).await,
            };
            ended.inspect_err(|status| self.refused(status))
        };
        let call = Box::pin(in_time(deadline, call));
        reply::of(AnswerBody::Stream(Box::new(Stream::new(call, pieces, account))))
    }

    /// Counts a message that a limit refused, or that was none.
    fn refused(&self, status: &Status) {
        self.metrics.refused(match status.code {
            Code::ResourceExhausted => "max_body",
            Code::DeadlineExceeded => "body_timeout",
            Code::Internal => "body",
            _ => return,
        });
    }
}

/// The outcome of a call, unless its time passes before, or has passed already.
async fn in_time<T>(
    deadline: Option<Deadline>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    if let Some(deadline) = deadline {
        deadline.check()?;
    }
    within(deadline, call).await
}
