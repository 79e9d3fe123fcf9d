//! Reads HTTP/1.1 responses from bytes that come in any portions. It knows no socket.
//!
//! RFC 9112, section 6.3 says how long a message is. What a strict reader may refuse is refused: who guesses where an
//! answer ends takes a part of it for the next one.

use std::mem::MaybeUninit;

use http::StatusCode;

use super::chunked::{Chunked, Portion};
use super::fields::Fields;
use crate::error::{Error, ErrorKind, Result};

const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// What the head of an answer says about its framing, its connection and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// True where the connection can carry another request.
    pub keeps: bool,
    /// `Inference-Header-Content-Length`, of the Open Inference Protocol's binary tensors.
    pub json_length: Option<usize>,
    /// For how many seconds the server keeps an idle connection, where `Keep-Alive` says so (RFC 2068, section 19.7.1.1).
    pub keep_alive: Option<u32>,
    /// True where the body has a content coding.
    pub encoded: bool,
    /// True where `Retry-After` says when to come again.
    pub retry_after: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Sized(u64),
    Chunked(Chunked),
    UntilClosed,
    Done,
}

/// Reads one answer, the interim ones before it included.
pub struct Decoder {
    stage: Stage,
    head: Option<Head>,
    /// An answer to a HEAD request has no body, whatever its head says.
    bodiless: bool,
    body_length: u64,
    keeps_fields: bool,
    fields: Option<Fields>,
}

impl Decoder {
    /// Reads the answer to a request whose method was HEAD, or any other.
    pub fn new(to_head_request: bool) -> Self {
        Self {
            stage: Stage::Head,
            head: None,
            bodiless: to_head_request,
            body_length: 0,
            keeps_fields: false,
            fields: None,
        }
    }

    /// As [`Decoder::new`], keeping the header fields of the answer.
    pub fn with_fields(to_head_request: bool) -> Self {
        Self { keeps_fields: true, ..Self::new(to_head_request) }
    }

    /// The header fields, once, where they are kept and have come.
    pub fn take_fields(&mut self) -> Option<Fields> {
        self.fields.take()
    }

    /// How many bytes of the body are still to come, where the head said it.
    pub fn left(&self) -> Option<u64> {
        match self.stage {
            Stage::Sized(left) => Some(left),
            Stage::Done => Some(0),
            _ => None,
        }
    }

    /// What the head says, once it has come.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Bytes of the body so far.
    pub fn body_length(&self) -> u64 {
        self.body_length
    }

    /// True when the answer is whole.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Takes what it can of `input` and says how many bytes that was; the others must come again, with more behind them.
    /// The body is copied into `body`, where there is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ProtocolError`] where the bytes are no answer.
    pub fn advance(&mut self, input: &[u8], mut body: Option<&mut Vec<u8>>) -> Result<usize> {
        let mut rest = input;
        while !self.is_done() {
            let before = rest.len();
            let (used, data) = self.step(rest)?;
            if let (Some(data), Some(body)) = (data, body.as_mut()) {
                body.extend_from_slice(data);
            }
            self.body_length += data.map_or(0, <[u8]>::len) as u64;
            rest = rest.get(used..).unwrap_or_default();
            // A step without progress waits for more bytes, unless it was the last one.
            if before == rest.len() && !self.is_done() {
                break;
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Says that the server has closed its side, with everything it sent taken.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadFailed`] where the answer was not whole.
    pub fn end(&mut self) -> Result<()> {
        match self.stage {
            Stage::UntilClosed | Stage::Done => {
                self.stage = Stage::Done;
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::ReadFailed,
                "the connection was closed before the answer was whole",
            )),
        }
    }

    /// How many bytes of the input were used, and which of them are data.
    fn step<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<&'a [u8]>)> {
        match &mut self.stage {
            Stage::Head => Ok((self.read_head(input)?, None)),
            Stage::Sized(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= here as u64;
                if *left == 0 {
                    self.stage = Stage::Done;
                }
                Ok((here, input.get(..here)))
            }
            Stage::Chunked(coding) => {
                let portion = coding.advance(input)?;
                if *coding == Chunked::Done {
                    self.stage = Stage::Done;
                }
                Ok(match portion {
                    Portion::Framing(used) => (used, None),
                    Portion::Data(data) => (data.len(), Some(data)),
                    Portion::Partial => (0, None),
                })
            }
            Stage::UntilClosed => Ok((input.len(), Some(input))),
            Stage::Done => Ok((0, None)),
        }
    }

    fn read_head(&mut self, input: &[u8]) -> Result<usize> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let used = match parser.parse_response_with_uninit_headers(&mut response, input, &mut fields) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(0),
            Ok(httparse::Status::Partial) => return Err(broken("the head is longer than 65536 bytes")),
            Err(httparse::Error::TooManyHeaders) => return Err(broken("the head has more than 128 fields")),
            Err(source) => {
                let message = "the head is not one of HTTP/1.1";
                return Err(Error::with_source(ErrorKind::ProtocolError, message, source));
            }
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(|_| broken("the status is none of HTTP"))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken("the server switched protocols, which nobody had asked for"));
        }
        if status.is_informational() {
            return Ok(used);
        }
        let said = Framing::read(response.headers, response.version == Some(1))?;
        let bodiless = self.bodiless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.stage = if bodiless { Stage::Done } else { said.stage() };
        let keeps = said.connection.keeps && !said.connection.closes && self.stage != Stage::UntilClosed;
        if self.keeps_fields {
            self.fields = input.get(..used).map(Fields::of_head);
        }
        let Framing { json_length, keep_alive, encoded, retry_after, .. } = said;
        self.head = Some(Head { status, keeps, json_length, keep_alive, encoded, retry_after });
        Ok(used)
    }
}

/// The header fields that bear on framing, and the one of the Open Inference Protocol.
struct Framing {
    length: Option<u64>,
    chunked: bool,
    connection: Connection,
    json_length: Option<usize>,
    keep_alive: Option<u32>,
    encoded: bool,
    retry_after: bool,
}

/// What the head says about the time after the answer.
struct Connection {
    keeps: bool,
    closes: bool,
}

impl Framing {
    fn read(fields: &[httparse::Header<'_>], is_1_1: bool) -> Result<Self> {
        let mut said = Self {
            length: None,
            chunked: false,
            connection: Connection { keeps: is_1_1, closes: false },
            json_length: None,
            keep_alive: None,
            encoded: false,
            retry_after: false,
        };
        for field in fields {
            // By length first: an answer has more fields that do not matter than that do.
            match field.name.len() {
                10 if field.name.eq_ignore_ascii_case("connection") => said.connection(field.value),
                10 if field.name.eq_ignore_ascii_case("keep-alive") => {
                    said.keep_alive = seconds_kept(field.value);
                }
                11 if field.name.eq_ignore_ascii_case("retry-after") => said.retry_after = true,
                16 if field.name.eq_ignore_ascii_case("content-encoding") => {
                    said.encoded = !field.value.trim_ascii().eq_ignore_ascii_case(b"identity");
                }
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    said.content_length(field.value)?;
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    said.transfer_encoding(field.value, is_1_1)?;
                }
                31 if field.name.eq_ignore_ascii_case("inference-header-content-length") => {
                    let length = number(field.value).and_then(|length| usize::try_from(length).ok());
                    let refusal = || broken("inference-header-content-length is no number");
                    said.json_length = Some(length.ok_or_else(refusal)?);
                }
                _ => {}
            }
        }
        if said.chunked && said.length.is_some() {
            return Err(broken("content-length and transfer-encoding contradict each other"));
        }
        Ok(said)
    }

    fn connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.connection.closes |= token.eq_ignore_ascii_case(b"close");
            self.connection.keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<()> {
        let length = number(value).ok_or_else(|| broken("content-length is no number"))?;
        if self.length.is_some_and(|before| before != length) {
            return Err(broken("there are two content-lengths"));
        }
        self.length = Some(length);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8], is_1_1: bool) -> Result<()> {
        if self.chunked || !is_1_1 || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(broken("transfer-encoding is another one than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    fn stage(&self) -> Stage {
        match self.length {
            _ if self.chunked => Stage::Chunked(Chunked::Size),
            Some(0) => Stage::Done,
            Some(length) => Stage::Sized(length),
            None => Stage::UntilClosed,
        }
    }
}

/// The `timeout` of a `Keep-Alive` field.
fn seconds_kept(value: &[u8]) -> Option<u32> {
    let timeout = |part: &[u8]| number(part.trim_ascii().strip_prefix(b"timeout=")?);
    let seconds = value.split(|byte| *byte == b',').find_map(timeout)?;
    u32::try_from(seconds).ok()
}

/// Digits and nothing else, as RFC 9110, section 8.6 has it; the white space around a field's value is no part of it.
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::ProtocolError, message)
}
