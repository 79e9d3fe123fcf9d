//! The chunked transfer coding, as a state machine over bytes that come in any portions.
//!
//! RFC 9112, section 7.1.

use crate::error::{Error, ErrorKind, Result};

/// A size line with its extensions, or a trailer section, that is longer is no longer waited for.
const MAX_LINE: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// Where in the coding the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    Size,
    Data(u64),
    /// The line end that follows the data of a chunk.
    DataEnd,
    Trailers,
    Done,
}

/// What a portion of the input was.
pub(super) enum Portion<'a> {
    /// These many bytes of framing.
    Framing(usize),
    /// Data of the body.
    Data(&'a [u8]),
    /// Too little to say: the same bytes must come again with more behind them.
    Partial,
}

impl Chunked {
    /// Takes the next portion from `input`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ProtocolError`] where the bytes are not of this coding.
    pub(super) fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Portion<'a>> {
        match *self {
            Self::Size => self.size(input),
            Self::Data(left) => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let Some((data, _)) = input.split_at_checked(here).filter(|_| here > 0) else {
                    return Ok(Portion::Partial);
                };
                let left = left - here as u64;
                *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                Ok(Portion::Data(data))
            }
            Self::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(Portion::Framing(2))
                }
                [] | [b'\r'] => Ok(Portion::Partial),
                _ => Err(broken("a chunk is longer than its size says")),
            },
            Self::Trailers => self.trailers(input),
            Self::Done => Ok(Portion::Framing(0)),
        }
    }

    fn size<'a>(&mut self, input: &[u8]) -> Result<Portion<'a>> {
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((used, 0))) => {
                *self = Self::Trailers;
                Ok(Portion::Framing(used))
            }
            Ok(httparse::Status::Complete((used, size))) => {
                *self = Self::Data(size);
                Ok(Portion::Framing(used))
            }
            Ok(httparse::Status::Partial) if input.len() < MAX_LINE => Ok(Portion::Partial),
            Ok(httparse::Status::Partial) => {
                Err(broken("the size line of a chunk is longer than 16384 bytes"))
            }
            Err(_) => Err(broken("the size of a chunk is no hexadecimal number")),
        }
    }

    fn trailers<'a>(&mut self, input: &[u8]) -> Result<Portion<'a>> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        match httparse::parse_headers(input, &mut fields) {
            Ok(httparse::Status::Complete((used, _))) => {
                *self = Self::Done;
                Ok(Portion::Framing(used))
            }
            Ok(httparse::Status::Partial) if input.len() < MAX_LINE => Ok(Portion::Partial),
            Ok(httparse::Status::Partial) => Err(broken("the trailers are longer than 16384 bytes")),
            Err(_) => Err(broken("the trailers are no header fields")),
        }
    }
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::ProtocolError, message)
}
