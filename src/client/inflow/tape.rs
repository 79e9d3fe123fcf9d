//! The last bytes of a body: those that nobody has taken, and before them as many as a failure is to show.

use std::collections::VecDeque;

/// What ends a stream of chat completions, behind the spaces and line ends that may follow it.
const DONE: [&[u8]; 2] = [b"data: [DONE]", b"data:[DONE]"];

/// A ring of bytes. Those that were taken make room for others once there are more than are to be kept.
#[derive(Debug, Default)]
pub(super) struct Tape {
    bytes: VecDeque<u8>,
    /// How many of the last are not taken.
    unread: usize,
    /// How many have come in all.
    end: u64,
}

impl Tape {
    /// Adds what has come; `keep` is how many bytes stay at most, as far as they were taken.
    pub(super) fn push(&mut self, portion: &[u8], keep: usize) {
        self.add(portion, keep, self.unread + portion.len());
    }

    /// Adds what has come and is not to be taken from here.
    pub(super) fn pass(&mut self, portion: &[u8], keep: usize) {
        // Of a portion that is longer than all that is kept, the end is kept.
        let late = portion.len().saturating_sub(keep);
        self.end += late as u64;
        self.add(portion.get(late..).unwrap_or_default(), keep, self.unread);
    }

    fn add(&mut self, portion: &[u8], keep: usize, unread: usize) {
        let most = keep.max(unread);
        let surplus =
            (self.bytes.len() + portion.len()).saturating_sub(most).min(self.bytes.len() - self.unread);
        self.bytes.drain(..surplus);
        let length = self.bytes.len() + portion.len();
        if length > self.bytes.capacity() {
            // Doubled as long as it is short; no further than it may ever be.
            let room = (length * 2).min(most.max(length));
            self.bytes.reserve_exact(room - self.bytes.len());
        } else if self.bytes.capacity() / 4 > most.max(length) {
            self.bytes.shrink_to(most.max(length));
        }
        self.bytes.extend(portion);
        self.unread = unread;
        self.end += portion.len() as u64;
    }

    /// How many bytes nobody has taken.
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// Takes the next bytes, at most `most`, which are in two places.
    pub(super) fn take(&mut self, most: usize) -> (&[u8], &[u8]) {
        let start = self.bytes.len() - self.unread;
        let taken = most.min(self.unread);
        self.unread -= taken;
        let (first, second) = self.bytes.as_slices();
        let here = |part: &'_ [u8], before: usize| {
            let from = start.saturating_sub(before).min(part.len());
            from..(start + taken).saturating_sub(before).min(part.len())
        };
        let (front, back) = (here(first, 0), here(second, first.len()));
        (first.get(front).unwrap_or_default(), second.get(back).unwrap_or_default())
    }

    /// Counts all that has come as taken.
    pub(super) fn skip(&mut self) {
        self.unread = 0;
    }

    /// Which byte of the body is the first that is still here.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// How many bytes have come.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What is still here, in two places.
    pub(super) fn kept(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    /// Whether the last that has come is the event `[DONE]`.
    pub(super) fn is_done(&self) -> bool {
        let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n' | b' ');
        let last: Vec<u8> = self.bytes.iter().rev().copied().skip_while(is_blank).take(12).collect();
        DONE.iter().any(|done| last.len() >= done.len() && done.iter().rev().zip(&last).all(|(a, b)| a == b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(tape: &mut Tape, most: usize) -> Vec<u8> {
        let (first, second) = tape.take(most);
        [first, second].concat()
    }

    fn kept(tape: &Tape) -> Vec<u8> {
        let (first, second) = tape.kept();
        [first, second].concat()
    }

    #[test]
    fn what_is_not_taken_stays_and_what_was_taken_makes_room() {
        let mut tape = Tape::default();
        tape.push(b"abcdef", 4);
        assert_eq!((tape.unread(), kept(&tape)), (6, b"abcdef".to_vec()));
        assert_eq!(taken(&mut tape, 2), b"ab");
        assert_eq!(taken(&mut tape, 100), b"cdef");
        assert_eq!(taken(&mut tape, 100), b"");
        tape.push(b"gh", 4);
        assert_eq!((kept(&tape), tape.start(), tape.end()), (b"efgh".to_vec(), 4, 8));
        assert_eq!(taken(&mut tape, 9), b"gh");
    }

    #[test]
    fn a_ring_is_read_in_its_order_at_every_place_of_its_seam() {
        let mut tape = Tape::default();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for round in 0..500_usize {
            let portion: Vec<u8> =
                (0..round % 37).map(|at| u8::try_from((round * 7 + at) % 251).unwrap()).collect();
            sent.extend_from_slice(&portion);
            tape.push(&portion, 64);
            got.extend(taken(&mut tape, round % 53));
            assert_eq!(kept(&tape), sent[usize::try_from(tape.start()).unwrap()..]);
            assert!(kept(&tape).len() >= sent.len().min(64).min(tape.unread().max(64)));
        }
        got.extend(taken(&mut tape, usize::MAX));
        assert_eq!(got, sent);
    }

    #[test]
    fn what_passes_leaves_its_end() {
        let mut tape = Tape::default();
        tape.pass(b"0123456789", 4);
        assert_eq!((tape.unread(), kept(&tape), tape.start()), (0, b"6789".to_vec(), 6));
        tape.pass(b"a", 4);
        assert_eq!((kept(&tape), tape.end()), (b"789a".to_vec(), 11));
    }

    #[test]
    fn long_bodies_take_no_more_room_than_is_kept() {
        let mut tape = Tape::default();
        for _ in 0..1000 {
            tape.push(&[7; 5000], 100_000);
            tape.take(5000);
        }
        assert!(tape.bytes.capacity() <= 110_000, "{}", tape.bytes.capacity());
    }

    #[test]
    fn the_end_of_a_chat_is_seen_whatever_follows_it() {
        for (text, done) in [
            ("data: {}\n\ndata: [DONE]\n\n", true),
            ("data: [DONE]", true),
            ("data:[DONE]\r\n\r\n", true),
            ("data: [DONE]\n\n: bye", false),
            ("[DONE]", false),
            ("", false),
        ] {
            let mut tape = Tape::default();
            tape.pass(text.as_bytes(), 64);
            assert_eq!(tape.is_done(), done, "{text:?}");
        }
    }
}
