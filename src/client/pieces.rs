//! A body that is made while it is sent: pieces go in as there is room, and out as the server takes them.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::request::config;
use crate::error::Result;

/// Bytes that may wait to be sent before whoever makes them must wait, too.
const AHEAD: usize = 256 * 1024;

/// The two ends of such a body.
#[derive(Clone)]
pub struct Pieces(Arc<Shared>);

struct Shared {
    /// How long it is, where that is known.
    length: Option<u64>,
    state: Mutex<State>,
    /// Called when there is room again after there was none.
    on_room: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    waiting: usize,
    /// Bytes that were put in.
    put: u64,
    has_begun: bool,
    is_finished: bool,
    sender: Option<Waker>,
}

impl Pieces {
    /// Of `length` bytes, where that is known; `on_room` is called when there is room again.
    pub fn new(length: Option<u64>, on_room: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { length, state: Mutex::default(), on_room: Box::new(on_room) }))
    }

    /// How long it is, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.0.length
    }

    /// Adds a piece; true where there is room for another.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) beyond the length that was said.
    pub fn put(&self, piece: Bytes) -> Result<bool> {
        let mut state = self.0.state.lock();
        state.put += piece.len() as u64;
        if let Some(length) = self.0.length.filter(|length| state.put > *length) {
            return Err(config(format!(
                "the body has more than the {length} bytes that it was said to have"
            )));
        }
        if !piece.is_empty() {
            state.waiting += piece.len();
            state.queue.push_back(piece);
        }
        let has_room = state.waiting < AHEAD;
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok(has_room)
    }

    /// Says that there are no more.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where that is fewer bytes than were said.
    pub fn finish(&self) -> Result<()> {
        let mut state = self.0.state.lock();
        if let Some(length) = self.0.length.filter(|length| state.put < *length) {
            let put = state.put;
            let message = format!("the body has {put} bytes, not the {length} that it was said to have");
            return Err(config(message));
        }
        state.is_finished = true;
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok(())
    }

    /// Whether more may be put in.
    pub fn has_room(&self) -> bool {
        self.0.state.lock().waiting < AHEAD
    }

    /// Whether any of it was taken: then it cannot be sent again.
    pub(super) fn has_begun(&self) -> bool {
        self.0.state.lock().has_begun
    }

    /// Waits for the next piece; none at the end.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.state.lock();
        let Some(piece) = state.queue.pop_front() else {
            if state.is_finished {
                return Poll::Ready(None);
            }
            state.sender = Some(context.waker().clone());
            return Poll::Pending;
        };
        let before = state.waiting;
        state.waiting -= piece.len();
        state.has_begun = true;
        let has_room_again = before >= AHEAD && state.waiting < AHEAD;
        drop(state);
        if has_room_again {
            (self.0.on_room)();
        }
        Poll::Ready(Some(piece))
    }
}

impl Debug for Pieces {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pieces").field("length", &self.0.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn next(pieces: &Pieces) -> Poll<Option<Bytes>> {
        pieces.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn whoever_makes_more_than_there_is_room_for_is_told_when_there_is() {
        let told = Arc::new(AtomicUsize::new(0));
        let telling = Arc::clone(&told);
        let pieces = Pieces::new(None, move || {
            telling.fetch_add(1, Ordering::Relaxed);
        });
        assert!(next(&pieces).is_pending() && !pieces.has_begun());
        assert!(pieces.put(Bytes::from_static(b"a")).unwrap());
        assert!(!pieces.put(vec![0; AHEAD].into()).unwrap() && !pieces.has_room());
        assert_eq!(next(&pieces), Poll::Ready(Some(Bytes::from_static(b"a"))));
        assert_eq!((told.load(Ordering::Relaxed), pieces.has_begun()), (0, true));
        assert!(next(&pieces).is_ready());
        assert_eq!((told.load(Ordering::Relaxed), pieces.has_room()), (1, true));
        pieces.finish().unwrap();
        assert_eq!(next(&pieces), Poll::Ready(None));
    }

    #[test]
    fn a_length_that_was_said_is_kept_to() {
        let pieces = Pieces::new(Some(3), || {});
        pieces.put(Bytes::from_static(b"ab")).unwrap();
        assert_eq!(pieces.finish().unwrap_err().kind(), ErrorKind::Config);
        let refused = pieces.put(Bytes::from_static(b"cd")).unwrap_err();
        assert!(refused.message().contains("more than the 3 bytes"), "{refused}");
    }
}
