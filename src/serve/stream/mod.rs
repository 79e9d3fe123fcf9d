//! Answers that come in pieces while their model works on them: from the steps of a model to the body of an answer.

mod body;
mod flow;
mod keeper;
mod loading;
mod packing;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::time::timeout;

pub use body::StreamBody;

use self::body::Account;
use self::flow::Flow;
use self::keeper::Keeper;
use super::HttpSettings;
use super::answer::ReplyBody;
use super::routes::{self, Reply};
use crate::error::{Error, Result};
use crate::flow::StreamMemory;
use crate::metrics::{InFlight, StreamMetrics};
use crate::pipeline::{Endpoint, Finish, Piece, Pieces};

/// What an answer that comes in pieces looks like on the wire. Each method appends to `out`.
pub(super) trait Frames: Send {
    /// The content type of the answer.
    fn content_type(&self) -> HeaderValue;

    /// What the model said for a choice. [`ControlFlow::Break`] where the choice has all that was asked for: its generation
    /// is stopped, and [`end_choice`](Self::end_choice) is not called for it.
    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()>;

    /// How many tokens the prompt of a choice has whose generation is stopped, where the model has said so.
    fn prompt(&mut self, _choice: usize, _tokens: u64) {}

    /// The model has said all that it had to say for a choice.
    fn end_choice(&mut self, choice: usize, end: &Finish, out: &mut Vec<u8>);

    /// Every choice is done.
    fn close(&mut self, out: &mut Vec<u8>);

    /// It broke off: the last that is said.
    fn failed(&mut self, error: &Error, out: &mut Vec<u8>);

    /// Words that clients skip, so that nobody between takes the connection for dead; nothing where the format has no such
    /// thing.
    fn comment(&mut self, words: &str, out: &mut Vec<u8>);
}

/// What the streamed answers of a door have in common.
pub(super) struct Streams {
    keep_alive: Duration,
    /// False where answers are collected, and sent as a whole.
    pub(super) streaming: bool,
    packs: bool,
    /// Bytes of memory that answers take that are packed now.
    packed: Arc<AtomicUsize>,
    /// What their readers have not taken yet.
    memory: Arc<StreamMemory>,
    metrics: StreamMetrics,
    keeper: Arc<Keeper>,
}

impl Streams {
    pub(super) fn new(
        settings: &HttpSettings,
        memory: Arc<StreamMemory>,
        metrics: StreamMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            memory,
            keep_alive: settings.keep_alive,
            streaming: settings.streaming,
            packs: settings.compression,
            packed: Arc::default(),
            metrics,
            keeper: Keeper::new(settings),
        })
    }

    /// What is counted of streams, whichever way they go.
    pub(super) fn metrics(&self) -> &StreamMetrics {
        &self.metrics
    }

    /// Brings what is counted elsewhere up to date before the text of the metrics is made.
    pub(super) fn observe(&self) {
        let memory = &self.memory;
        self.metrics.observe(memory.held(), memory.pauses(), memory.dropped());
    }

    /// Ends what runs, with `error` as the last that is said.
    pub(super) fn end_all(&self, error: &Error) {
        self.keeper.end_all(error);
    }
}

/// Begins an answer of `model`: its head is there with the first piece of it, or after `keep_alive` without one, or after a
/// second where the model is loaded meanwhile: how far that is, is said in comments. From then on the pieces leave as they
/// come; all that are there leave together, and nothing waits for more.
///
/// `in_flight` counts as long as the answer lives.
///
/// # Errors
/// What the model fails with before its first piece; what comes later is said by [`Frames::failed`].
///
/// # Cancellation
/// Dropping the future, or the body of the answer, stops the generation of every choice.
pub(super) async fn streamed(
    streams: &Arc<Streams>,
    choices: Vec<Pieces>,
    frames: Box<dyn Frames>,
    headers: &HeaderMap,
    (model, in_flight): (&Arc<Endpoint>, InFlight),
) -> Result<Reply> {
    let mut flow = Flow::new(choices, frames, Arc::clone(model));
    if !streams.streaming {
        return Box::pin(whole(flow, in_flight)).await;
    }
    let mut account = Account::open(streams, in_flight);
    begin(&mut flow, streams.keep_alive).await.inspect_err(|_| account.failed())?;
    let kind = flow.content_type();
    let packing = packing::begin(streams, headers, &flow);
    let mut reply = Response::new(());
    let fields = reply.headers_mut();
    if kind.as_bytes().starts_with(b"text/event-stream") {
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Some proxies gather an answer unless they are told not to.
        fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    fields.insert(header::CONTENT_TYPE, kind);
    if streams.packs {
        fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if let Some(packing) = &packing {
        fields.insert(header::CONTENT_ENCODING, packing.name());
    }
    let body = StreamBody::open(flow, packing, account);
    Ok(reply.map(|()| ReplyBody::Stream(Box::new(body))))
}

/// The same answer as a whole: nothing of it leaves before all of it is there.
///
/// # Errors
/// What the model fails with, whatever it said before.
async fn whole(mut flow: Flow, _in_flight: InFlight) -> Result<Reply> {
    poll_fn(|context| match flow.fill(context, usize::MAX) {
        Ok(()) if !flow.is_over() => Poll::Pending,
        filled => Poll::Ready(filled),
    })
    .await?;
    Ok(routes::reply(StatusCode::OK, flow.content_type(), flow.out))
}

/// Bytes of frames that the head waits for at most.
const FIRST: usize = 8 << 10;

/// Waits until there is something to send, for no longer than an intermediary waits for the head: then that is a comment.
async fn begin(flow: &mut Flow, keep_alive: Duration) -> Result<()> {
    let early = if flow.is_loading() { keep_alive.min(loading::BETWEEN) } else { keep_alive };
    if let Some(begun) = first(flow, early).await {
        return begun;
    }
    if flow.is_loading() {
        flow.comment();
    }
    let late = keep_alive.saturating_sub(early);
    if flow.is_quiet()
        && !late.is_zero()
        && let Some(begun) = first(flow, late).await
    {
        return begun;
    }
    if flow.is_quiet() {
        flow.comment();
    }
    Ok(())
}

/// The outcome of the first frames, where they come within that time.
async fn first(flow: &mut Flow, limit: Duration) -> Option<Result<()>> {
    let begun = poll_fn(|context| match flow.fill(context, FIRST) {
        Ok(()) if flow.is_quiet() => Poll::Pending,
        filled => Poll::Ready(filled),
    });
    timeout(limit, begun).await.ok()
}
