//! The status codes of gRPC: <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>.

use crate::error::ErrorKind;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $number:literal, $name:literal, $http:literal, $kind:ident;)*) => {
        /// How a call ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $code = $number,)* }

        impl Code {
            /// Every code, by its number.
            pub const ALL: [Self; 17] = [$(Self::$code,)*];

            /// Its name, as the specification writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// The status that an answer of HTTP with the same meaning has.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$code => $http,)* }
            }

            /// What it means that the other side answers so.
            pub const fn kind(self) -> ErrorKind {
                match self { $(Self::$code => ErrorKind::$kind,)* }
            }
        }
    };
}

codes! {
    /// All went well.
    Ok = 0, "OK", 200, Remote;
    /// The caller gave it up.
    Cancelled = 1, "CANCELLED", 499, Remote;
    /// Nobody knows.
    Unknown = 2, "UNKNOWN", 500, Remote;
    /// The request is wrong, whatever the state of the server.
    InvalidArgument = 3, "INVALID_ARGUMENT", 400, Item;
    /// The time was up.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED", 504, DeadlineExceeded;
    /// There is no such thing.
    NotFound = 5, "NOT_FOUND", 404, ModelNotFound;
    /// There is such a thing already.
    AlreadyExists = 6, "ALREADY_EXISTS", 409, Remote;
    /// The caller may not.
    PermissionDenied = 7, "PERMISSION_DENIED", 403, Remote;
    /// A limit was hit.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED", 503, Overloaded;
    /// The server is not in the state for it.
    FailedPrecondition = 9, "FAILED_PRECONDITION", 400, Remote;
    /// It lost against another call.
    Aborted = 10, "ABORTED", 409, Remote;
    /// It reached beyond the end.
    OutOfRange = 11, "OUT_OF_RANGE", 400, Remote;
    /// The server does not know the call.
    Unimplemented = 12, "UNIMPLEMENTED", 501, Remote;
    /// Something is broken.
    Internal = 13, "INTERNAL", 500, Remote;
    /// The server cannot be reached, or does not answer now.
    Unavailable = 14, "UNAVAILABLE", 503, ModelNotReady;
    /// Something is lost for good.
    DataLoss = 15, "DATA_LOSS", 500, Remote;
    /// The caller did not say who he is.
    Unauthenticated = 16, "UNAUTHENTICATED", 401, Remote;
}

impl Code {
    /// Its number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of the header `grpc-status`; what is no number of a code is [`Code::Unknown`].
    pub fn of_header(value: &[u8]) -> Self {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
        number.and_then(|number| Self::ALL.get(number).copied()).unwrap_or(Self::Unknown)
    }

    /// The code that the one table of errors has for a kind.
    pub fn of_kind(kind: ErrorKind) -> Self {
        let name = kind.meaning().grpc_code;
        Self::ALL.into_iter().find(|code| code.name() == name).unwrap_or(Self::Unknown)
    }

    /// What an answer means that is none of gRPC:
    /// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>.
    pub const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_table_of_errors_is_a_code() {
        for kind in ErrorKind::ALL {
            assert_eq!(Code::of_kind(*kind).name(), kind.meaning().grpc_code, "{kind:?}");
        }
    }

    #[test]
    fn a_code_that_stands_for_a_kind_of_its_own_means_the_same_over_http() {
        for code in Code::ALL {
            let meaning = code.kind().meaning();
            if code.kind() != ErrorKind::Remote {
                assert_eq!((meaning.grpc_code, meaning.http_status), (code.name(), code.http_status()));
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_specification_and_others_are_unknown() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(Code::of_header(number.to_string().as_bytes()), code);
        }
        for value in ["17", "-1", "", "x", "99999999999999999999"] {
            assert_eq!(Code::of_header(value.as_bytes()), Code::Unknown, "{value}");
        }
    }
}
