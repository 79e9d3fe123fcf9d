//! The words of this room.

/// A model, by name and version, once it is registered; the numbers are dense and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u32);

/// One load of one model and what became of it. Never used again: a model that is loaded anew is another residency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Residency(pub u64);

/// How far a load, or a model, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadState {
    /// Nothing of it is in memory, and nobody asked.
    Unloaded,
    /// It waits for its turn, or for its dependencies.
    Queued,
    /// It waits until there is memory for it.
    WaitingForSpace,
    /// Its loader runs.
    Loading,
    /// It is loaded and runs for the first time.
    Warming,
    /// It can be used.
    Ready,
    /// It leaves, as soon as nobody uses it.
    Draining,
    /// It could not be loaded, and that is remembered.
    Failed,
}

impl LoadState {
    /// As it is shown: lower-case, words joined by spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Queued => "queued",
            Self::WaitingForSpace => "waiting for space",
            Self::Loading => "loading",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }
}
