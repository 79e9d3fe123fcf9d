//! The messages of a call, as they come.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::flow::offload;
use crate::serve::HttpSettings;
use crate::wire::grpc::{Code, Encoding, Messages, Status};

/// The messages of one call.
pub(super) struct Inbox {
    body: Incoming,
    messages: Messages,
    packed: bool,
    ended: bool,
    bytes: Arc<AtomicU64>,
}

impl Inbox {
    /// Of messages that have at most `max_body` bytes each.
    pub(super) fn new(body: Incoming, encoding: Encoding, limits: &HttpSettings) -> Self {
        let messages = Messages::new(encoding, limits.max_body, "max_body");
        Self { body, messages, packed: encoding != Encoding::Identity, ended: false, bytes: Arc::default() }
    }

    /// Bytes that have come, also for who asks when the call is over.
    pub(super) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// The next message, or none where the caller has said that no more come.
    ///
    /// # Errors
    /// What [`Messages::take`] refuses; [`Code::Cancelled`] where the call breaks off.
    ///
    /// # Cancellation
    /// A message that is being unpacked is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let next = if self.packed { Box::pin(self.unpacked()).await } else { self.messages.take() };
            if let Some(message) = next? {
                return Ok(Some(message));
            }
            if self.ended {
                return self.messages.end().map(|()| None);
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        self.messages.push(piece);
                    }
                }
                Some(Err(error)) => {
                    let message = format!("the call could not be read: {error}");
                    return Err(Status::new(Code::Cancelled, message));
                }
            }
        }
    }

    /// What a packed message unfolds to does not show in its length, so it leaves the thread that all connections share.
    async fn unpacked(&mut self) -> Result<Option<Bytes>, Status> {
        let none = Messages::new(Encoding::Identity, 0, "max_body");
        let mut messages = std::mem::replace(&mut self.messages, none);
        let (messages, next) = offload::run(usize::MAX, move || {
            let next = messages.take();
            (messages, next)
        })
        .await;
        self.messages = messages;
        next
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// As [`next`](Self::next); [`Code::Unimplemented`] for none, or for several; [`Code::DeadlineExceeded`] where it takes
    /// longer than `body_timeout`.
    pub(super) async fn only(&mut self, limits: &HttpSettings) -> Result<Bytes, Status> {
        let mut read = pin!(async {
            let first = self.next().await?;
            let Some(message) = first else { return Err(wrong_number("none came")) };
            match self.next().await? {
                None => Ok(message),
                Some(_) => Err(wrong_number("more came")),
            }
        });
        // Mostly the message has come with the head: a timer only where it has not.
        match poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await {
            Poll::Ready(message) => message,
            Poll::Pending => {
                let read = Box::pin(tokio::time::timeout(limits.body_timeout, read)).await;
                read.unwrap_or_else(|_| {
                    let limit = limits.body_timeout;
                    let message = format!("the message took longer than body_timeout={limit:?}");
                    Err(Status::new(Code::DeadlineExceeded, message))
                })
            }
        }
    }
}

fn wrong_number(what: &str) -> Status {
    Status::new(Code::Unimplemented, format!("this method takes one message, and {what}"))
}
