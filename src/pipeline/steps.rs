//! Answers that come step by step: from a model's steps to the door, piece by piece.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::endpoint::Counted;
use super::residence::Hold;
use crate::batch::BatchAccount;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Bell, Receiver, Sender, StreamLimits, TraceContext, Weight, channel};
use crate::metrics::{ModelMetrics, Outcome};
use crate::tensor::AnswerRow;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Tensors to tensors.
    #[default]
    Tensors,
    /// A prompt to text, piece by piece. Its one input is a scalar text that holds a JSON document.
    Generate,
    /// Texts to vectors.
    Embed,
}

impl Task {
    /// The task of that name: `tensors`, `generate` or `embed`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "tensors" => Some(Self::Tensors),
            "generate" => Some(Self::Generate),
            "embed" => Some(Self::Embed),
            _ => None,
        }
    }
}

/// What one step of a model said for one request.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Whole characters of UTF-8. Empty where the step only began a character that the next ones complete, or said
    /// nothing that can be seen: it was a step all the same.
    Text(Bytes),
    /// The step's outputs.
    Row(AnswerRow),
    /// What a server elsewhere said, as it said it: an event, or a whole answer. For requests that are passed on alone.
    Passed(Bytes),
}

/// What a piece takes beside its bytes.
const PIECE: usize = 64;

impl Weight for Piece {
    fn weight(&self) -> usize {
        PIECE
            + match self {
                Self::Text(bytes) | Self::Passed(bytes) => bytes.len(),
                Self::Row(row) => row.bytes(),
            }
    }
}

/// What a generation ended with.
#[derive(Debug, Clone)]
pub struct Finish {
    /// `stop`, `length`, or what the model said; `None` where it said nothing.
    pub reason: Option<Arc<str>>,
    /// Tokens of the prompt, where the model counted them.
    pub prompt_tokens: Option<u64>,
    /// The batch that it was answered by.
    pub batch: Arc<BatchAccount>,
}

/// The last word of a model for one request.
#[derive(Debug, Clone)]
pub enum Said {
    /// The whole answer, or the last row of it.
    Row(AnswerRow),
    /// Everything was said by steps.
    Finish {
        /// As [`Finish::reason`].
        reason: Option<Arc<str>>,
        /// As [`Finish::prompt_tokens`].
        prompt_tokens: Option<u64>,
    },
}

/// The model's end of a request that is answered piece by piece.
#[derive(Debug)]
pub struct Speaker {
    sender: Sender<Piece, Result<Finish>>,
    /// Bytes of a character that is not whole yet.
    rest: Mutex<Rest>,
    spoken: AtomicBool,
    known: Arc<Known>,
}

/// What becomes known of a request before its end: a reader who has all he wants does not wait for that.
#[derive(Debug)]
struct Known {
    asked: Instant,
    /// The length of its prompt, as soon as the model has said it.
    prompt: AtomicU64,
    boarded: OnceLock<(Instant, Option<TraceContext>)>,
}

impl Known {
    const NO_PROMPT: u64 = u64::MAX;

    fn new() -> Arc<Self> {
        let prompt = AtomicU64::new(Self::NO_PROMPT);
        Arc::new(Self { asked: Instant::now(), prompt, boarded: OnceLock::new() })
    }

    fn prompt_tokens(&self) -> Option<u64> {
        Some(self.prompt.load(Ordering::Acquire)).filter(|tokens| *tokens != Self::NO_PROMPT)
    }
}

/// From when until when a request waits for its batch: known once that has it.
#[derive(Debug, Clone)]
pub struct Boarding(Arc<Known>);

impl Boarding {
    /// When it was asked for, when its batch began with it or was joined by it, and in which trace that batch is; none while
    /// it waits.
    pub fn known(&self) -> Option<(Instant, Instant, Option<&TraceContext>)> {
        let (boarded, batch) = self.0.boarded.get()?;
        Some((self.0.asked, *boarded, batch.as_ref()))
    }
}

#[derive(Debug, Default)]
struct Rest {
    bytes: [u8; 4],
    length: usize,
}

impl Speaker {
    /// Says a piece; answers whom to wake.
    #[must_use]
    pub fn say(&self, piece: Piece) -> Option<Waker> {
        self.spoken.store(true, Ordering::Relaxed);
        self.sender.send(piece)
    }

    /// Says a step's bytes, whose characters may go on in the next step; what is not UTF-8 is replaced. Answers whom
    /// to wake.
    #[must_use]
    pub fn say_bytes(&self, bytes: &[u8]) -> Option<Waker> {
        let text = self.rest.lock().whole(bytes);
        self.say(Piece::Text(text))
    }

    /// Says how it ended; answers whom to wake.
    #[must_use]
    pub fn finish(self, end: Result<Finish>) -> Option<Waker> {
        let rest = std::mem::take(&mut *self.rest.lock());
        let before = if rest.length > 0 && end.is_ok() {
            self.sender.send(Piece::Text(Bytes::from_static("\u{fffd}".as_bytes())))
        } else {
            None
        };
        self.sender.end(end).or(before)
    }

    /// Notes that the batch of this account has the request from now on.
    pub(super) fn board(&self, account: &BatchAccount) {
        self.known.boarded.get_or_init(|| (Instant::now(), account.trace()));
    }

    /// Notes how many tokens the prompt has.
    pub fn note_prompt(&self, tokens: u64) {
        self.known.prompt.store(tokens, Ordering::Release);
    }

    /// True once it said anything.
    pub fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// False where the request is to get no step until [`has_resumed`](Self::has_resumed): its reader is too slow.
    pub fn has_room(&self) -> bool {
        self.sender.has_room()
    }

    /// Notes that the request gets no steps; the bell of its endpoint is rung when it may have some again.
    pub fn pause(&self) {
        self.sender.pause();
    }

    /// True where a request that was paused may have steps again.
    pub fn has_resumed(&self) -> bool {
        self.sender.has_resumed()
    }

    /// Done once nobody reads any more.
    pub(super) fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        self.sender.poll_left(context)
    }

    /// True where nobody reads any more.
    pub fn is_left(&self) -> bool {
        self.sender.is_left()
    }

    /// Waits until nobody reads any more.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping the future.
    pub async fn left(&self) {
        poll_fn(|context| self.poll_left(context)).await;
    }

    /// Waits while the reader is too slow, until he has room or has left; for a task that speaks to him alone.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping the future.
    pub async fn room(&self) {
        if self.has_room() {
            return;
        }
        self.pause();
        poll_fn(|context| self.sender.poll_resumed(context)).await;
    }
}

impl Rest {
    /// The characters that are whole now; the beginning of the next is kept.
    fn whole(&mut self, bytes: &[u8]) -> Bytes {
        if self.length == 0
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Bytes::copy_from_slice(text.as_bytes());
        }
        let mut all = Vec::with_capacity(self.length + bytes.len());
        all.extend_from_slice(self.bytes.get(..self.length).unwrap_or_default());
        all.extend_from_slice(bytes);
        let kept = unfinished(&all);
        let (whole, rest) = all.split_at(all.len() - kept);
        self.bytes = [0; 4];
        for (place, byte) in self.bytes.iter_mut().zip(rest) {
            *place = *byte;
        }
        self.length = kept;
        Bytes::from(String::from_utf8_lossy(whole).into_owned())
    }
}

/// Bytes at the end that may become a character with those that follow.
fn unfinished(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        // A sequence that ends with the bytes, and not because of what follows it.
        Some(chunk) if is_prefix(chunk.invalid()) => chunk.invalid().len(),
        _ => 0,
    }
}

/// True for a beginning of a character: a lone byte that begins none has an error length of its own.
fn is_prefix(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The door's end of a request that is answered piece by piece. Dropping it stops the generation within one step, also
/// where the request still waits.
pub struct Pieces {
    /// `None` once the time of the request has passed.
    receiver: Option<Receiver<Piece, Result<Finish>>>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    end: Option<Result<Finish>>,
    counted: Counted<ModelMetrics>,
    /// Until its last piece the model stays.
    hold: Hold,
    model: Arc<str>,
    known: Arc<Known>,
}

/// Both ends of a request to that model that is answered piece by piece.
pub(super) fn pieces(
    limits: StreamLimits,
    bell: Arc<Bell>,
    deadline: Option<Instant>,
    (hold, counted): (Hold, Counted<ModelMetrics>),
    model: &str,
) -> (Speaker, Pieces) {
    let (sender, receiver) = channel(limits, bell);
    let (receiver, model) = (Some(receiver), Arc::from(model));
    let known = Known::new();
    let speaker =
        Speaker { sender, rest: Mutex::default(), spoken: AtomicBool::new(false), known: Arc::clone(&known) };
    (speaker, Pieces { receiver, deadline, timer: None, end: None, counted, hold, model, known })
}

impl Pieces {
    /// The next piece, as soon as there is one; `None` where there is none any more: [`end`](Self::end) says why.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
        match receiver.poll_next(context) {
            Poll::Ready(Some(piece)) => Poll::Ready(Some(piece)),
            Poll::Ready(None) => {
                let closed = || Error::new(ErrorKind::Closed, format!("model '{}' was closed", self.model));
                let end = receiver.end().unwrap_or_else(|| Err(closed()));
                self.counted.note(end.as_ref().err());
                self.end = Some(end);
                self.receiver = None;
                Poll::Ready(None)
            }
            Poll::Pending => match self.hold.poll_refused(context) {
                Poll::Ready(error) => {
                    self.counted.note(Some(&error));
                    self.end = Some(Err(error));
                    self.receiver = None;
                    Poll::Ready(None)
                }
                Poll::Pending => self.poll_deadline(context),
            },
        }
    }

    /// From when until when it waits for its batch, for who asks when it has ended.
    pub fn boarding(&self) -> Boarding {
        Boarding(Arc::clone(&self.known))
    }

    /// True while its model is on its way.
    pub fn is_loading(&self) -> bool {
        self.hold.is_waiting()
    }

    /// How long its model was on its way, where it was not there when it was asked for.
    pub fn load(&self) -> Option<std::time::Duration> {
        self.hold.took()
    }

    /// As [`poll_next`](Self::poll_next), awaited.
    ///
    /// # Cancellation
    /// No piece is lost.
    pub async fn next(&mut self) -> Option<Piece> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// How it ended, once, after the last piece.
    ///
    /// # Errors
    /// What the model failed with; [`ErrorKind::DeadlineExceeded`] where the time of the request has passed;
    /// [`ErrorKind::Closed`] where the model was closed.
    pub fn end(&mut self) -> Result<Finish> {
        let early = || Error::new(ErrorKind::Internal, "a stream was asked for its end before it came");
        self.end.take().unwrap_or_else(|| Err(early()))
    }

    /// Tokens of the prompt, where the model has said so yet.
    pub fn prompt_tokens(&self) -> Option<u64> {
        self.known.prompt_tokens()
    }

    /// Says that the reader has all it wants: dropped from here on, the request counts as answered, and not as one whose
    /// sender hung up.
    pub fn enough(&mut self) {
        self.counted.note(None);
    }

    /// Notes that it was never queued.
    pub(super) fn refused(&mut self, error: &Error) {
        self.counted.note(Some(error));
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        std::task::ready!(timer.as_mut().poll(context));
        let message = "the request could not be answered before its deadline";
        let error = Error::new(ErrorKind::DeadlineExceeded, message);
        self.counted.outcome = Outcome::Expired;
        self.end = Some(Err(error));
        // Its generation stops within one step.
        self.receiver = None;
        Poll::Ready(None)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pieces")
            .field("model", &self.model)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parts: &[&[u8]]) -> Vec<String> {
        let mut rest = Rest::default();
        parts.iter().map(|part| String::from_utf8(rest.whole(part).to_vec()).unwrap()).collect()
    }

    #[test]
    fn characters_that_were_cut_come_whole() {
        assert_eq!(said(&[b"a", b"\xe2", b"\x82", b"\xac", b"b"]), ["a", "", "", "€", "b"]);
        assert_eq!(said(&[b"\xf0\x9f", b"\x98\x80!"]), ["", "😀!"]);
        assert_eq!(said(&[b"\xc3", b"\xa4\xc3", b"\xb6"]), ["", "ä", "ö"]);
    }

    #[test]
    fn what_is_no_character_is_replaced() {
        assert_eq!(said(&[b"\xff", b"a"]), ["\u{fffd}", "a"]);
        assert_eq!(said(&[b"\xe2\x82", b"a"]), ["", "\u{fffd}a"]);
        assert_eq!(said(&[b"\x80", b"\xe2", b"\xe2", b"\x82\xac"]), ["\u{fffd}", "", "\u{fffd}", "€"]);
        assert_eq!(said(&[b"\xed\xa0", b"x"]), ["\u{fffd}\u{fffd}", "x"]);
    }

    #[test]
    fn every_cut_of_a_text_gives_the_same_text() {
        let text = "a€😀ä\u{7ff}\u{800}\u{ffff}\u{10000}z".as_bytes();
        for first in 0..text.len() {
            for second in first..text.len() {
                let parts = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(said(&parts).concat().as_bytes(), text, "{first} {second}");
            }
        }
    }
}
