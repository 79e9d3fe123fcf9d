//! What calls may do with the models of a server.

use http::StatusCode;

use crate::wire::grpc::{Code, Status};

/// What calls may do with the models of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RepositoryAccess {
    /// List them, load them and unload them.
    #[default]
    Full,
    /// List them.
    ReadOnly,
    /// Nothing.
    Off,
}

impl RepositoryAccess {
    /// The one of that name: `full`, `read-only` or `off`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "full" => Some(Self::Full),
            "read-only" => Some(Self::ReadOnly),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// Why a call gets nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum NoAccess {
    /// There is no cache behind this door, or it is not shown.
    Off,
    /// Nothing may be changed.
    ReadOnly,
}

impl NoAccess {
    pub(in crate::serve) fn message(self) -> &'static str {
        match self {
            Self::Off => {
                "models are neither listed, loaded nor unloaded by calls: this server has no repository"
            }
            Self::ReadOnly => "models are neither loaded nor unloaded by calls: repository=read-only",
        }
    }

    pub(in crate::serve) fn status(self) -> StatusCode {
        match self {
            Self::Off => StatusCode::NOT_IMPLEMENTED,
            Self::ReadOnly => StatusCode::FORBIDDEN,
        }
    }
}

impl From<NoAccess> for Status {
    fn from(refused: NoAccess) -> Self {
        let code = match refused {
            NoAccess::Off => Code::Unimplemented,
            NoAccess::ReadOnly => Code::PermissionDenied,
        };
        Self::new(code, refused.message())
    }
}
