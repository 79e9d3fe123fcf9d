//! How a call ended, in a code and words.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::Code;
use crate::error::Error;

/// What `grpc-message` does not carry as it is: all but the printable characters of ASCII, and the percent sign.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Bytes of a message at most: it travels among header fields, which have their limit.
const LONGEST: usize = 4 << 10;

/// The end of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The sentence for the person who reads it.
    pub message: String,
    /// After how long the same call may succeed, where that is known.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The message as `grpc-message` carries it; what is too long for that is cut.
    pub fn header(&self) -> String {
        let mut end = self.message.len().min(LONGEST);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        utf8_percent_encode(self.message.get(..end).unwrap_or_default(), ESCAPED).to_string()
    }

    /// The message that `grpc-message` carries.
    pub fn message_of(header: &[u8]) -> String {
        percent_decode(header).decode_utf8_lossy().into_owned()
    }
}

impl From<&Error> for Status {
    /// By the one table.
    fn from(error: &Error) -> Self {
        let retry_after = error.wait_before_retry();
        Self { code: Code::of_kind(error.kind()), message: error.message().to_owned(), retry_after }
    }
}

impl From<Error> for Status {
    /// By the one table.
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_message_travels_as_ascii_and_comes_back() {
        let status = Status::new(Code::Internal, "100 % zwölf\nlines");
        assert_eq!(status.header(), "100 %25 zw%C3%B6lf%0Alines");
        assert_eq!(Status::message_of(status.header().as_bytes()), status.message);
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let status = Status::new(Code::Internal, format!("x{}", "ö".repeat(LONGEST)));
        let shown = Status::message_of(status.header().as_bytes());
        assert!(shown.len() < LONGEST && status.message.starts_with(&shown));
    }

    #[test]
    fn an_error_becomes_the_code_of_its_row() {
        let error = Error::new(ErrorKind::Overloaded, "full").retry_after(Duration::from_secs(2));
        let status = Status::from(&error);
        assert_eq!((status.code, &*status.message), (Code::ResourceExhausted, "full"));
        assert_eq!(status.retry_after, Some(Duration::from_secs(2)));
    }
}
