//! Who goes first.

/// Who goes first: a higher priority is served before any lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Before all others.
    High = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// After all others.
    Low = 2,
}

impl Priority {
    /// Number of priorities.
    pub const COUNT: usize = 3;

    /// Every priority, the highest first.
    pub const ALL: [Priority; Self::COUNT] = [Self::High, Self::Normal, Self::Low];

    /// The priority of that name: `high`, `normal` or `low`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "high" => Some(Self::High),
            "normal" => Some(Self::Normal),
            "low" => Some(Self::Low),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}
