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

/// Why a model is loaded though nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It is to be there when the server starts.
    Start,
    /// Somebody said that it will be needed.
    Preload,
    /// It is expected to be asked for.
    Predicted,
}

/// Why a residency ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Another model needed its memory.
    Space,
    /// Somebody unloaded it.
    Unload,
    /// It was loaded anew.
    Reload,
    /// Its model was registered anew, or taken out.
    Replaced,
    /// It was larger than the whole memory.
    TooLarge,
    /// It broke while it was loaded.
    Dead,
    /// The cache was closed.
    Close,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 7;

    /// Every reason.
    pub const ALL: [Reason; Self::COUNT] =
        [Self::Space, Self::Unload, Self::Reload, Self::Replaced, Self::TooLarge, Self::Dead, Self::Close];

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Space => "space",
            Self::Unload => "unload",
            Self::Reload => "reload",
            Self::Replaced => "replaced",
            Self::TooLarge => "too_large",
            Self::Dead => "dead",
            Self::Close => "close",
        }
    }
}
