//! Bytes cut into lines, which end with LF, CR or CRLF, wherever the portions are cut.

use std::collections::VecDeque;

use memchr::memchr2;

use crate::error::{Error, ErrorKind, Result};

/// A buffer that grew beyond this for one long line is given back after it.
const KEPT_BYTES: usize = 16 * 1024;

/// Finds where lines end. What has been looked at is never looked at again.
#[derive(Default)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The last line ended with CR: an LF that follows belongs to it, and the line was not held back for it.
    after_cr: bool,
}

impl Splitter {
    /// Hands every line that `bytes` end to `each`, without its line break.
    ///
    /// # Errors
    /// The first one of `each`; the rest of `bytes` is not looked at then.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some((line, rest)) = self.cut(bytes) {
            if self.begun.is_empty() {
                each(line)?;
            } else {
                self.begun.extend_from_slice(line);
                each(&self.begun)?;
                self.forget();
            }
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }

    /// The first line of `bytes`, and what follows its line break.
    fn cut<'a>(&mut self, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let end = match bytes.first()? {
            // The end of an event is an empty line: no search for it.
            b'\n' | b'\r' => 0,
            _ => memchr2(b'\n', b'\r', bytes)?,
        };
        let (line, rest) = bytes.split_at_checked(end)?;
        Some(match rest {
            [b'\r'] => {
                self.after_cr = true;
                (line, &[])
            }
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => (line, rest),
            [] => (line, &[]),
        })
    }

    /// Bytes that are held of a line whose end has not come.
    pub(super) fn held(&self) -> usize {
        self.begun.len()
    }

    /// Takes the line whose end has not come.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.after_cr = false;
        std::mem::take(&mut self.begun)
    }

    fn forget(&mut self) {
        self.begun.clear();
        if self.begun.capacity() > KEPT_BYTES {
            self.begun = Vec::new();
        }
    }
}

/// Cuts a body into lines: LF, CR and CRLF end one, and nothing else does, U+2028 and its like included.
///
/// A line comes as soon as its end is there, with nothing held back: a CR is not waited on for its LF. Newline-delimited
/// JSON is read with it too; empty lines come as they are.
///
/// ```
/// use std::collections::VecDeque;
/// use penstock::stream::{LineDecoder, MAX_EVENT};
///
/// let (mut decoder, mut lines) = (LineDecoder::new(MAX_EVENT), VecDeque::new());
/// decoder.feed(b"one\r", &mut lines).unwrap();
/// decoder.feed(b"\ntwo", &mut lines).unwrap();
/// assert_eq!(lines, [b"one"]);
/// decoder.end(&mut lines);
/// assert_eq!(lines, [b"one", b"two"]);
/// ```
pub struct LineDecoder {
    splitter: Splitter,
    max_line: usize,
    failed: bool,
}

impl LineDecoder {
    /// For lines of at most `max_line` bytes, the line break left out.
    pub fn new(max_line: usize) -> Self {
        Self { splitter: Splitter::default(), max_line, failed: false }
    }

    /// Takes a portion and adds the lines that it ends to `out`, without their line breaks.
    ///
    /// # Errors
    /// [`ErrorKind::Stream`] where a line is longer than `max_line`, then and at every later call; the lines before it are
    /// in `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut VecDeque<Vec<u8>>) -> Result<()> {
        let Self { splitter, max_line, failed } = self;
        if *failed {
            return Err(too_long(*max_line));
        }
        let cut = splitter.feed(bytes, |line| {
            if line.len() > *max_line {
                return Err(too_long(*max_line));
            }
            out.push_back(line.to_vec());
            Ok(())
        });
        if cut.is_err() || splitter.held() > *max_line {
            *failed = true;
            splitter.take();
            return Err(too_long(*max_line));
        }
        Ok(())
    }

    /// Ends the body: the last line comes too, where no line break ended it.
    pub fn end(&mut self, out: &mut VecDeque<Vec<u8>>) {
        let last = self.splitter.take();
        if !last.is_empty() {
            out.push_back(last);
        }
    }
}

fn too_long(limit: usize) -> Error {
    Error::new(ErrorKind::Stream, format!("a line of the stream is longer than max_line={limit} bytes"))
}
