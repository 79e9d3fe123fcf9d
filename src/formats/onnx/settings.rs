//! How a graph is run.

use crate::error::{Error, ErrorKind, Result};

/// Who computes a graph's nodes, by the name that the library gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// For example `CPUExecutionProvider`.
    pub name: String,
    /// Its options, as the library documents them.
    pub options: Vec<(String, String)>,
}

/// How much the library changes a graph before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// Nothing.
    None,
    /// What no result changes by: constants folded, nodes that do nothing dropped.
    Basic,
    /// Nodes fused, as well.
    Extended,
    /// Memory laid out anew, as well.
    #[default]
    All,
}

impl Optimization {
    /// The one of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for any other.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "basic" => Ok(Self::Basic),
            "extended" => Ok(Self::Extended),
            "all" => Ok(Self::All),
            _ => {
                let message = format!("optimization must be none, basic, extended or all, not '{name}'");
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }
}

/// How a graph is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Threads that one run may use; 1 is the thread that calls, and no other.
    pub threads: usize,
    /// Nodes that may run at the same time; 1 is one after another.
    pub inter_threads: usize,
    /// Who computes, the first that can; what none of them can is computed by the CPU. None is the CPU alone.
    pub providers: Vec<Provider>,
    /// How much the graph is changed before.
    pub optimization: Optimization,
    /// Threads that wait for work spin for a while: faster where runs follow at once, a core of heat where they do not.
    pub spin: bool,
    /// Memory of a run is kept for the next.
    pub arena: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            threads: 1,
            inter_threads: 1,
            providers: Vec::new(),
            optimization: Optimization::All,
            spin: false,
            arena: true,
        }
    }
}

impl SessionSettings {
    /// Most threads that can be asked for.
    const MOST_THREADS: usize = 1024;

    /// # Errors
    /// [`ErrorKind::Config`] where a number is out of range.
    pub(super) fn check(&self) -> Result<()> {
        for (name, threads) in [("threads", self.threads), ("inter_threads", self.inter_threads)] {
            if !(1..=Self::MOST_THREADS).contains(&threads) {
                let message = format!("{name} must be between 1 and {}, not {threads}", Self::MOST_THREADS);
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        Ok(())
    }
}
