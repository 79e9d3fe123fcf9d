//! The one error type that leaves a room, and the one table that says what each kind means to every audience.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// What a failure means: the Python class, the HTTP status, the gRPC code, and whether the same call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Name of the class in `penstock.errors`.
    pub class: &'static str,
    /// Name of the class directly above it in `penstock.errors`.
    pub parent: &'static str,
    /// HTTP status code that the doors answer with.
    pub http_status: u16,
    /// gRPC status code name, as in the gRPC specification.
    pub grpc_code: &'static str,
    /// True where trying the very same call again later can succeed.
    pub retryable: bool,
}

macro_rules! error_table {
    ($($(#[$doc:meta])* $kind:ident => $class:literal < $parent:literal, $http:literal, $grpc:literal, $retry:literal;)*) => {
        /// Every kind of failure that Penstock reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The row of the table for this kind.
            pub const fn meaning(self) -> Meaning {
                match self {
                    $(ErrorKind::$kind => Meaning {
                        class: $class, parent: $parent, http_status: $http, grpc_code: $grpc, retryable: $retry,
                    },)*
                }
            }
        }
    };
}

error_table! {
    /// A setting or an argument contradicts itself or another one.
    Config => "ConfigError" < "PenstockError", 500, "FAILED_PRECONDITION", false;
    /// The object was closed, or belongs to the process before a fork.
    Closed => "Closed" < "PenstockError", 503, "UNAVAILABLE", false;
    /// A bounded queue is full.
    Overloaded => "Overloaded" < "PenstockError", 503, "RESOURCE_EXHAUSTED", true;
    /// The time that the caller gave has passed.
    DeadlineExceeded => "DeadlineExceeded" < "PenstockError", 504, "DEADLINE_EXCEEDED", false;
    /// No connection became free in time.
    AcquireTimeout => "AcquireTimeout" < "DeadlineExceeded", 504, "DEADLINE_EXCEEDED", true;
    /// A connection could not be opened in time.
    ConnectTimeout => "ConnectTimeout" < "DeadlineExceeded", 504, "DEADLINE_EXCEEDED", true;
    /// The first chunk of a response did not come in time.
    FirstChunkTimeout => "FirstChunkTimeout" < "DeadlineExceeded", 504, "DEADLINE_EXCEEDED", false;
    /// The next chunk of a response did not come in time.
    IdleTimeout => "IdleTimeout" < "DeadlineExceeded", 504, "DEADLINE_EXCEEDED", false;
    /// A connection failed.
    Transport => "TransportError" < "PenstockError", 502, "UNAVAILABLE", false;
    /// A connection could not be opened.
    ConnectFailed => "ConnectFailed" < "TransportError", 502, "UNAVAILABLE", true;
    /// Reading from a connection failed.
    ReadFailed => "ReadFailed" < "TransportError", 502, "UNAVAILABLE", false;
    /// Writing to a connection failed.
    WriteFailed => "WriteFailed" < "TransportError", 502, "UNAVAILABLE", false;
    /// The other side broke the protocol.
    ProtocolError => "ProtocolError" < "TransportError", 502, "INTERNAL", false;
    /// The other side answered with an error.
    Remote => "RemoteError" < "PenstockError", 502, "UNKNOWN", false;
    /// One item was refused: by its function, or because its shape or data type does not fit.
    Item => "ItemError" < "PenstockError", 400, "INVALID_ARGUMENT", false;
    /// A model returned the wrong thing: count, shape, data type or name.
    Output => "OutputError" < "PenstockError", 500, "INTERNAL", false;
    /// A model raised; its exception is the cause.
    Model => "ModelError" < "PenstockError", 500, "INTERNAL", false;
    /// No model of that name or version is served.
    ModelNotFound => "ModelNotFound" < "ModelError", 404, "NOT_FOUND", false;
    /// The model exists and is not ready yet, or is shutting down.
    ModelNotReady => "ModelNotReady" < "ModelError", 503, "UNAVAILABLE", true;
    /// Loading the model failed.
    LoadFailed => "LoadFailed" < "ModelError", 503, "UNAVAILABLE", true;
    /// Loading the model took longer than its time-out.
    LoadTimeout => "LoadTimeout" < "ModelError", 504, "DEADLINE_EXCEEDED", true;
    /// Models require one another in a circle.
    DependencyCycle => "DependencyCycle" < "ModelError", 500, "FAILED_PRECONDITION", false;
    /// A model does not fit into the memory that is left.
    Capacity => "CapacityError" < "ModelError", 503, "RESOURCE_EXHAUSTED", true;
    /// A file format that can run code was refused.
    UnsafeFormat => "UnsafeFormat" < "ModelError", 500, "FAILED_PRECONDITION", false;
    /// A file is not the one that was promised.
    ChecksumMismatch => "ChecksumMismatch" < "ModelError", 500, "DATA_LOSS", false;
    /// A path leads out of the directory that it must stay in.
    PathEscape => "PathEscape" < "ModelError", 500, "PERMISSION_DENIED", false;
    /// A stream failed.
    Stream => "StreamError" < "PenstockError", 502, "UNKNOWN", false;
    /// A stream ended before its end; what had arrived is kept.
    StreamInterrupted => "StreamInterrupted" < "StreamError", 502, "UNAVAILABLE", false;
    /// A stream was used after it was closed.
    StreamClosed => "StreamClosed" < "StreamError", 499, "CANCELLED", false;
    /// A defect of Penstock itself, a caught panic included.
    Internal => "InternalError" < "PenstockError", 500, "INTERNAL", false;
}

/// A failure: its kind, a sentence for the person who reads it, and what caused it.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What a server elsewhere answered a request with that it refused or failed with: the cause of an [`Error`] that says so.
/// A door passes it on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("status {status}")]
pub struct RemoteReply {
    /// Its status.
    pub status: u16,
    /// What its body is said to be.
    pub content_type: Option<Box<str>>,
    /// Its body, or the beginning of one that is very long.
    pub body: Bytes,
}

/// What every fallible function of the crate returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `kind`; `message` is lower-case, without a full stop, and names the limit that was hit.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    /// As [`Error::new`], keeping the failure that caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: Some(Arc::new(source)) }
    }

    /// Says after how long the same call may succeed.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The kind, which the table explains.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence for the person who reads it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What a server elsewhere answered, where that is what this failure is about.
    pub fn remote_reply(&self) -> Option<&RemoteReply> {
        self.source.as_deref().and_then(|source| source.downcast_ref())
    }

    /// After how long the same call may succeed, where that is known.
    pub fn wait_before_retry(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.kind.meaning().class, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_class_of_its_own_under_a_parent_of_the_table() {
        let mut known = HashSet::from(["PenstockError"]);
        for kind in ErrorKind::ALL {
            let row = kind.meaning();
            assert!(known.contains(row.parent), "{kind:?} stands before its parent");
            assert!(known.insert(row.class), "{} stands twice", row.class);
            assert!((400..600).contains(&row.http_status));
        }
    }

    #[test]
    fn an_error_shows_its_message_and_keeps_its_cause() {
        let cause = std::io::Error::other("socket gone");
        let error = Error::with_source(ErrorKind::ReadFailed, "reading the answer failed", cause);
        assert_eq!(error.to_string(), "reading the answer failed");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "socket gone");
        assert_eq!(format!("{error:?}"), "ReadFailed(\"reading the answer failed\")");
    }

    #[test]
    fn retry_after_is_kept() {
        let error = Error::new(ErrorKind::Overloaded, "full").retry_after(Duration::from_secs(2));
        assert_eq!(error.wait_before_retry(), Some(Duration::from_secs(2)));
        assert!(error.kind().meaning().retryable);
    }
}
