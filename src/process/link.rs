//! The socket between a keeper and its child: messages with their length before them, and the shared memory.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::SharedMemory;
use crate::error::ErrorKind;

/// A message says where a batch lies, not what is in it: a longer one is a broken one.
const LONGEST: usize = 256 << 20;

/// Time that a child has to end by itself once its parent is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// What a child says before its first batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Its model is loaded.
    Ready,
    /// It cannot run batches.
    Failed {
        /// Name of the class of Penstock's error.
        class: String,
        /// What it says.
        message: String,
        /// Where it happened, as Python prints it.
        traceback: String,
    },
}

impl Verdict {
    /// The kind of error that a class stands for.
    pub fn kind_of(class: &str) -> ErrorKind {
        let known = ErrorKind::ALL.iter().copied().find(|kind| kind.meaning().class == class);
        known.unwrap_or(ErrorKind::LoadFailed)
    }
}

/// One end of the socket.
#[derive(Debug)]
pub struct Link {
    socket: UnixStream,
}

impl Link {
    /// An end.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// The other end for a child's standard input, and this one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::new(ours), OwnedFd::from(theirs)))
    }

    /// A child's end, which is its standard input.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn inherited() -> io::Result<Self> {
        let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::new(UnixStream::from(descriptor)))
    }

    /// Gives the other side the memory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn give(&self, memory: &SharedMemory) -> io::Result<()> {
        let descriptors = [memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(b"m")], &mut ancillary, SendFlags::empty())?;
        Ok(())
    }

    /// Takes the memory that the other side [`give`](Self::give)s.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where something else came.
    pub fn take_memory(&self) -> io::Result<SharedMemory> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&self.socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let given = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        given.map(SharedMemory::received).ok_or_else(|| broken("no shared memory came"))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::InvalidData`] for a message that is too long.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if message.len() > LONGEST {
            return Err(broken("a message is too long"));
        }
        let mut whole = Vec::with_capacity(message.len() + 8);
        whole.extend_from_slice(&(message.len() as u64).to_le_bytes());
        whole.extend_from_slice(message);
        self.socket.write_all(&whole)
    }

    /// The next message; `None` where the other side has ended.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::InvalidData`] for what is no message.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 8];
        match self.socket.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(broken("a message is too long"));
        }
        let mut message = vec![0; length];
        match self.socket.read_exact(&mut message) {
            Ok(()) => Ok(Some(message)),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`receive`](Self::receive), for an answer of a process: `None` also where that one has died, though others that
    /// it has left behind hold its end of the socket open.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_from(&mut self, process: Option<BorrowedFd<'_>>) -> io::Result<Option<Vec<u8>>> {
        if let Some(process) = process {
            let mut watched =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
            wait(&mut watched, None)?;
            if watched.first().is_some_and(|socket| socket.revents().is_empty()) {
                return Ok(None);
            }
        }
        self.receive()
    }

    /// Says that nothing more will come; whoever holds a copy of the descriptor is told, too.
    pub fn end(&self) {
        // It fails where the other side has ended already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Another handle to the same end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}

/// Ends this process soon after its parent has gone, whatever it is doing then. It takes a thread.
///
/// # Errors
/// What the operating system says.
pub fn end_with_parent(link: &Link) -> io::Result<()> {
    let socket = link.descriptor()?;
    let parent = rustix::process::getppid();
    let watch = move || {
        let parent = parent.and_then(lives);
        let mut watched = vec![PollFd::new(&socket, PollFlags::empty())];
        watched.extend(parent.as_ref().map(|parent| PollFd::new(parent, PollFlags::IN)));
        if wait(&mut watched, None).is_ok() {
            std::thread::sleep(ORPHAN_GRACE);
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    };
    std::thread::Builder::new().name("penstock-parent".to_owned()).spawn(watch).map(drop)
}

/// A descriptor that becomes readable when that process ends, where the system has such.
pub(super) fn lives(process: rustix::process::Pid) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    return rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok();
    #[cfg(not(target_os = "linux"))]
    return Some(process).and(None);
}

/// Waits until one of them has something to say; answers whether that came within the limit.
pub(super) fn wait(watched: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    loop {
        match poll(watched, limit.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

pub(super) fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
