//! A child process: how it is started, what it is told first, how it ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::link::{lives, wait};
use super::{Link, SharedMemory, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Monitor;

/// How a child is started, and what it is told before anything else.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The first message.
    pub hello: Vec<u8>,
    /// Whose process it is, as errors name it.
    pub name: String,
    /// Whether a batch that a child dies of is run once more, by another.
    pub runs_again: bool,
}

/// What others may do to a process while its keeper talks to it: end it.
#[derive(Debug, Default)]
pub struct Reins {
    held: Monitor<Held>,
}

#[derive(Debug, Default)]
struct Held {
    process: Option<std::process::Child>,
    /// True where none may run any more.
    let_go: bool,
}

impl Reins {
    /// Kills the process, and has none started any more.
    pub fn kill(&self) {
        let mut held = self.held.lock();
        held.let_go = true;
        if let Some(process) = held.process.as_mut() {
            // It fails where the process has ended.
            let _ = process.kill();
        }
        drop(held);
        self.held.wake_all();
    }

    /// The number of the process, where one runs.
    pub fn process_number(&self) -> Option<u32> {
        self.held.lock().process.as_ref().map(std::process::Child::id)
    }

    /// True once none may be started any more.
    pub fn is_let_go(&self) -> bool {
        self.held.lock().let_go
    }

    /// Sleeps; answers whether a process may be started then.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut held = self.held.lock();
        while !held.let_go && Instant::now() < end {
            held = self.held.wait(held, Some(end));
        }
        !held.let_go
    }

    fn hold(&self, process: std::process::Child) {
        let mut held = self.held.lock();
        let let_go = held.let_go;
        let process = held.process.insert(process);
        if let_go {
            let _ = process.kill();
        }
    }

    /// How the process has ended, once it has.
    fn ended(&self) -> Option<ExitStatus> {
        let mut held = self.held.lock();
        let status = held.process.as_mut()?.try_wait().ok().flatten();
        if status.is_some() {
            held.process = None;
        }
        status
    }

    fn kill_this(&self) {
        if let Some(process) = self.held.lock().process.as_mut() {
            let _ = process.kill();
        }
    }
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    link: Link,
    reins: Arc<Reins>,
    /// Readable once the process has ended, where the system has such a thing.
    life: Option<OwnedFd>,
}

impl Child {
    /// Starts a process and waits until it can run batches.
    ///
    /// # Errors
    /// [`ErrorKind::LoadFailed`], or the kind that the child names, where it cannot.
    pub fn start(launch: &Launch, reins: &Arc<Reins>, memory: &SharedMemory) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            let message = format!("{what} for {} failed: {error}", launch.name);
            Error::with_source(ErrorKind::LoadFailed, message, error)
        };
        let (link, stdin) = Link::pair().map_err(|error| failed("a socket", error))?;
        let process = Command::new(&launch.program)
            .args(&launch.arguments)
            .stdin(Stdio::from(stdin))
            // Ctrl-C in a terminal is for the parent, which ends its children.
            .process_group(0)
            .spawn()
            .map_err(|error| failed("a process", error))?;
        let life = rustix::process::Pid::from_raw(i32::try_from(process.id()).unwrap_or(0)).and_then(lives);
        reins.hold(process);
        let mut child = Self { link, reins: Arc::clone(reins), life };
        let told = child.link.give(memory).and_then(|()| child.link.send(&launch.hello));
        let verdict = told.and_then(|()| child.hear());
        match verdict.map(|message| message.and_then(|message| postcard::from_bytes(&message).ok())) {
            Ok(Some(Verdict::Ready)) => Ok(child),
            Ok(Some(Verdict::Failed { class, message, traceback })) => {
                child.end(Duration::from_secs(5));
                let kind = Verdict::kind_of(&class);
                Err(Error::with_source(kind, message, io::Error::other(traceback)))
            }
            Ok(None) | Err(_) => {
                let end = child.obituary();
                let message = format!("a process of {} {end} before it was ready", launch.name);
                Err(Error::new(ErrorKind::LoadFailed, message))
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// What the operating system says, mostly that the child has died.
    pub fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.link.send(message)
    }

    /// The child's next message; `None` where it has died.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::InvalidData`] for what is no message.
    pub fn hear(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.link.receive_from(self.life.as_ref().map(AsFd::as_fd))
    }

    /// True where the process has not ended.
    pub fn is_alive(&self) -> bool {
        match &self.life {
            Some(life) => {
                wait(&mut [PollFd::new(life, PollFlags::IN)], Some(Duration::ZERO)).is_ok_and(|ended| !ended)
            }
            None => true,
        }
    }

    /// How the process ended, in words. One that says nothing any more and still lives is killed.
    pub fn obituary(self) -> String {
        self.link.end();
        let status = self.wait_end(Duration::from_millis(500)).or_else(|| {
            self.reins.kill_this();
            self.wait_end(Duration::from_secs(5))
        });
        status.map_or_else(|| "ended".to_owned(), in_words)
    }

    /// Lets the process end, and kills it where it has not after `limit`.
    pub fn end(self, limit: Duration) {
        self.link.end();
        if self.wait_end(limit).is_none() {
            self.reins.kill_this();
            self.wait_end(Duration::from_secs(5));
        }
    }

    fn wait_end(&self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.reins.ended() {
                return Some(status);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match &self.life {
                Some(life) => drop(wait(&mut [PollFd::new(life, PollFlags::IN)], Some(left))),
                None => std::thread::sleep(left.min(Duration::from_millis(5))),
            }
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    const SIGNALS: [(i32, &str); 9] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
    ];
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match SIGNALS.iter().find(|(number, _)| *number == signal) {
            Some((_, name)) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}
