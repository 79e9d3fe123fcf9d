//! One worker's place, kept filled: a child that dies is started again, and its batch is run once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Child, Launch, Reins, SharedMemory};
use crate::error::{Error, ErrorKind, Result};

/// Time before a child that died is started again; four times as long after each further death.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Times that a batch is given to a child at most.
const ATTEMPTS: usize = 2;

/// Why a batch has no answer.
#[derive(Debug)]
pub enum Broken {
    /// The child has died, or speaks nonsense: another may do better.
    Child,
    /// It could not be asked, and nor could another.
    Here(Error),
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self::Child
    }
}

/// What came of one attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt<A> {
    /// An answer.
    Answered(A),
    /// The child has died: ask once more.
    Died,
}

/// One worker: its memory, and the child that runs its batches.
pub struct Keeper {
    launch: Arc<Launch>,
    memory: SharedMemory,
    reins: Arc<Reins>,
    child: Option<Child>,
    /// Children that have died since a batch was last answered.
    deaths: usize,
    /// When the last one died.
    died: Instant,
    /// Why the last one could not be started.
    failure: Option<Error>,
    restarted: Box<dyn Fn() + Send + Sync>,
}

impl Keeper {
    /// A worker without a child yet; `restarted` is called for each child that takes the place of a dead one.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the operating system gives no memory.
    pub fn new(launch: Arc<Launch>, restarted: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let memory = SharedMemory::new().map_err(|error| {
            Error::with_source(ErrorKind::Internal, "no shared memory could be made", error)
        })?;
        let restarted = Box::new(restarted);
        Ok(Self {
            launch,
            memory,
            reins: Arc::default(),
            child: None,
            deaths: 0,
            died: Instant::now(),
            failure: None,
            restarted,
        })
    }

    /// The means to end the child from another thread.
    pub fn reins(&self) -> &Arc<Reins> {
        &self.reins
    }

    /// The memory that is shared with the child, with each that takes its place, too.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Starts the child, where none is alive, after a pause where it has died lately.
    ///
    /// # Errors
    /// What [`Child::start`] says; [`ErrorKind::Closed`] where none may be started any more.
    pub fn start(&mut self) -> Result<()> {
        if self.child.as_ref().is_some_and(Child::is_alive) {
            return Ok(());
        }
        if let Some(dead) = self.child.take() {
            dead.obituary();
            self.count_death();
        }
        if !self.reins.pause(self.pause()) {
            return Err(self.closed());
        }
        match Child::start(&self.launch, &self.reins, &self.memory) {
            Ok(child) => (self.child, self.failure) = (Some(child), None),
            Err(_) if self.reins.is_let_go() => return Err(self.closed()),
            Err(error) => {
                self.count_death();
                self.failure = Some(error.clone());
                return Err(error);
            }
        }
        if self.deaths > 0 {
            (self.restarted)();
        }
        Ok(())
    }

    /// As [`start`](Self::start), again and again while it fails and a child is `wanted`; answers whether one is there.
    pub fn keep_alive(&mut self, wanted: impl Fn() -> bool) -> bool {
        while !self.child.as_ref().is_some_and(Child::is_alive) {
            if !wanted() || self.reins.is_let_go() {
                return false;
            }
            // Why it failed is told to those who wait, should they come.
            let _ = self.start();
        }
        true
    }

    /// Has a batch run: once more, by another child, where the first one dies of it and it may run twice.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] where the last one dies, naming how; what [`start`](Self::start) says.
    pub fn run<A>(
        &mut self,
        mut ask: impl FnMut(&mut Child, &SharedMemory) -> std::result::Result<A, Broken>,
    ) -> Result<A> {
        for attempt in 1..=ATTEMPTS {
            if let Attempt::Answered(answer) = self.attempt(attempt, &mut ask)? {
                return Ok(answer);
            }
        }
        Err(Error::new(ErrorKind::Internal, "a batch was run too often"))
    }

    /// Has a batch run, for the `attempt`th time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn attempt<A>(
        &mut self,
        attempt: usize,
        ask: impl FnOnce(&mut Child, &SharedMemory) -> std::result::Result<A, Broken>,
    ) -> Result<Attempt<A>> {
        if let Some(failure) = &self.failure
            && !self.pause().is_zero()
        {
            // It is too early to try again, and nobody should wait to be told the same.
            return Err(failure.clone());
        }
        self.start()?;
        let Some(child) = self.child.as_mut() else { return Err(self.closed()) };
        match ask(child, &self.memory) {
            Ok(answer) => {
                self.deaths = 0;
                return Ok(Attempt::Answered(answer));
            }
            Err(Broken::Here(error)) => return Err(error),
            Err(Broken::Child) => {}
        }
        let end = self.child.take().map(Child::obituary).unwrap_or_default();
        self.count_death();
        if self.reins.is_let_go() {
            return Err(self.closed());
        }
        if attempt < ATTEMPTS && self.launch.runs_again {
            return Ok(Attempt::Died);
        }
        let name = &self.launch.name;
        let before =
            if self.launch.runs_again { ", as one before it had" } else { ", which may not run twice" };
        let message = format!("the process of {name} {end} while it ran this batch{before}");
        Err(Error::new(ErrorKind::Model, message))
    }

    /// Ends the child: lets go of it, and kills it where it has not ended after `limit`.
    pub fn end(&mut self, limit: Duration) {
        if let Some(child) = self.child.take() {
            child.end(limit);
        }
    }

    fn count_death(&mut self) {
        self.deaths += 1;
        self.died = Instant::now();
    }

    fn pause(&self) -> Duration {
        match self.deaths {
            0 => Duration::ZERO,
            deaths => pause_after(deaths).saturating_sub(self.died.elapsed()),
        }
    }

    fn closed(&self) -> Error {
        let message = format!("{} was closed before this batch was answered", self.launch.name);
        Error::new(ErrorKind::Closed, message)
    }
}

/// How long to wait before a child is started again after so many deaths in a row.
pub(super) fn pause_after(deaths: usize) -> Duration {
    let times = u32::try_from(deaths.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(4_u32.saturating_pow(times)).min(LONGEST_PAUSE)
}
