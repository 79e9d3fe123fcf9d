//! The terms on which a request waits, as its sender says them.

use std::sync::Arc;
use std::time::Instant;

use crate::batch::Priority;
use crate::flow::TraceContext;

/// What the sender of a request says of how it is to wait. The default is what most say: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestTerms {
    /// Who goes first.
    pub priority: Priority,
    /// On whose behalf it is made.
    pub tenant: Option<Arc<str>>,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// What its sender calls it.
    pub id: Option<Arc<str>>,
    /// Its place in a trace, where it has one.
    pub trace: Option<Arc<TraceContext>>,
}

/// What goes with a request as far as its batch, for whoever asks about that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// What its sender calls it.
    pub id: Option<Arc<str>>,
    /// Its place in a trace, where it has one.
    pub trace: Option<Arc<TraceContext>>,
    /// Who goes first: others may be asked on its behalf.
    pub priority: Priority,
    /// On whose behalf it is made.
    pub tenant: Option<Arc<str>>,
}

impl RequestTerms {
    /// What goes with the request.
    pub fn into_label(self) -> Label {
        Label { id: self.id, trace: self.trace, priority: self.priority, tenant: self.tenant }
    }
}
