//! A door on the network: a listener, its connections, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::connection;
use super::door::Door;
use super::sockets::Counted;
use super::watch::Warden;
use crate::error::{Error, ErrorKind, Result};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// Time between two reports of a listener that goes on failing.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// A pause after the listener failed (too many open files, say), so that it does not fail in a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Clients at most that are told at a time that there are too many.
const MOST_REFUSED: usize = 64;

/// An open door.
pub struct HttpServer {
    address: SocketAddr,
    door: Arc<Door>,
    stage: watch::Sender<Stage>,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1 and HTTP/2, and calls of gRPC over the latter.
    HttpAndGrpc,
    /// Calls of gRPC alone.
    Grpc,
}

/// What the listener is at, in the order in which it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Connections wait in the kernel.
    Waiting,
    /// Connections are accepted.
    Open,
    /// No more come, and those there are end with their next answer.
    Leaving,
    /// Connections that the kernel has accepted get their answer, and no more come.
    Closing,
}

/// A socket that listens at `address`; port 0 takes any that is free.
///
/// # Errors
/// [`ErrorKind::Config`] where the address cannot be listened on.
pub fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    bind(address).map_err(|error| {
        Error::with_source(ErrorKind::Config, format!("cannot listen on {address}: {error}"), error)
    })
}

impl HttpServer {
    /// Opens `door` to the network by a socket that listens; it runs on `runtime` until it is closed. Connections wait
    /// in the kernel until [`accept`](Self::accept), unless `accepting`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the socket is none that listens.
    pub fn open(
        listener: std::net::TcpListener,
        door: Arc<Door>,
        accepting: bool,
        runtime: &Handle,
    ) -> Result<Self> {
        Self::open_for(Speaks::HttpAndGrpc, listener, door, accepting, runtime)
    }

    /// As [`open`](Self::open), for calls of gRPC alone: what else comes is told so.
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub fn open_grpc(
        listener: std::net::TcpListener,
        door: Arc<Door>,
        accepting: bool,
        runtime: &Handle,
    ) -> Result<Self> {
        Self::open_for(Speaks::Grpc, listener, door, accepting, runtime)
    }

    fn open_for(
        speaks: Speaks,
        listener: std::net::TcpListener,
        door: Arc<Door>,
        accepting: bool,
        runtime: &Handle,
    ) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Error::with_source(ErrorKind::Config, format!("the socket cannot be listened on: {error}"), error)
        };
        listener.set_nonblocking(true).map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        if speaks == Speaks::HttpAndGrpc {
            // Of several, it is the first that others name.
            let _ = door.http_address.set(address);
        }
        let (stage, staged) = watch::channel(if accepting { Stage::Open } else { Stage::Waiting });
        let warden = Warden::new(&door.settings);
        let acceptor = Acceptor {
            speaks,
            runtime: runtime.clone(),
            listening: door.connections.one_more(|sockets| &sockets.listeners),
            door: Arc::clone(&door),
            warden: Arc::clone(&warden),
        };
        drop(runtime.spawn(async move {
            tokio::select! {
                () = acceptor.run(listener, staged) => {}
                () = warden.run() => {}
            }
        }));
        Ok(Self { address, door, stage })
    }

    /// Accepts connections, where it did not yet.
    pub fn accept(&self) {
        self.go_on_to(Stage::Open);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leaves what comes to others who listen on the same socket: accepts no more, and lets each connection end with its
    /// next answer, which says so. One that is idle is not closed: a request may be on its way. Does not wait.
    pub fn hand_over(&self) {
        self.go_on_to(Stage::Leaving);
    }

    /// Says "not ready", stops accepting and lets every connection finish the answer that it is at. Does not wait.
    pub fn begin_close(&self) {
        self.door.service.begin_close();
        self.go_on_to(Stage::Closing);
    }

    /// Stages come in their order: one that is past does not come again.
    fn go_on_to(&self, next: Stage) {
        self.stage.send_if_modified(|stage| {
            let is_next = *stage < next;
            *stage = next.max(*stage);
            is_next
        });
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.begin_close();
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A server that is started again must not wait for connections of the one before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What takes connections from the kernel.
struct Acceptor {
    speaks: Speaks,
    runtime: Handle,
    door: Arc<Door>,
    warden: Arc<Warden>,
    listening: Counted,
}

impl Acceptor {
    async fn run(self, listener: std::net::TcpListener, mut stage: watch::Receiver<Stage>) {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        // A sender that is gone has closed before.
        let _ = stage.wait_for(|stage| *stage != Stage::Waiting).await;
        let mut failures = Failures::default();
        let mut courtesy = Courtesy::default();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage >= Stage::Leaving) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.admit(stream, peer);
                    courtesy.extend(&self.door).await;
                }
                Err(error) => {
                    failures.report(&error);
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
        self.finish(listener, stage).await;
    }

    /// Whoever the kernel has accepted may have sent his request already: he gets his answer.
    async fn finish(self, listener: TcpListener, mut stage: watch::Receiver<Stage>) {
        // First, so that nobody who is let in now hears that the connection goes on.
        if *stage.borrow() == Stage::Leaving {
            self.warden.leave();
        } else {
            self.warden.close();
        }
        while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            self.admit(stream, peer);
        }
        drop(listener);
        drop(self.listening);
        // A sender that is gone has closed before.
        let _ = stage.wait_for(|stage| *stage == Stage::Closing).await;
        self.warden.close();
        // The warden goes on as long as there is somebody to look after.
        while self.door.connections.count() > 0 {
            tokio::time::sleep(LAST_LOOK).await;
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let most = self.door.settings.max_connections;
        let open = self.door.connections.count();
        if open >= most {
            self.door.metrics.refused("max_connections");
            tracing::debug!(target: "penstock::serve", %peer, most, "a connection was refused: there are too many");
            if open < most + MOST_REFUSED {
                let counted = self.door.connections.one_more(|sockets| &sockets.connections);
                let encrypted = self.door.security.is_encrypted();
                drop(self.runtime.spawn(async move {
                    connection::refuse(stream, most, encrypted).await;
                    drop(counted);
                }));
            }
            return;
        }
        let counted = self.door.connections.one_more(|sockets| &sockets.connections);
        let served = {
            let door = Arc::clone(&self.door);
            connection::serve(stream, peer, self.speaks, door, self.warden.admit())
        };
        self.door.metrics.accepted();
        self.door.publish_connections();
        let door = Arc::clone(&self.door);
        drop(self.runtime.spawn(async move {
            served.await;
            drop(counted);
            door.publish_connections();
        }));
    }
}

/// How often a door that closes looks whether its last connection has ended.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// Lets processes that share the port, and have fewer connections, take the next one.
#[derive(Default)]
struct Courtesy {
    /// Nobody took it: they may be dead, and nothing waits for them until then.
    off_until: Option<Instant>,
}

impl Courtesy {
    const STEP: Duration = Duration::from_millis(1);
    const STEPS: usize = 10;
    const OFF: Duration = Duration::from_secs(1);

    /// After a connection was taken: waits while this process is ahead, for ten milliseconds at most.
    async fn extend(&mut self, door: &Door) {
        let Some(siblings) = door.siblings.get() else { return };
        if self.off_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        for _ in 0..Self::STEPS {
            if !siblings.is_ahead(door.connections()) {
                return;
            }
            tokio::time::sleep(Self::STEP).await;
        }
        self.off_until = Some(Instant::now() + Self::OFF);
    }
}

/// Failures of a listener, reported now and then: it may fail twenty times a second for as long as files are short.
#[derive(Default)]
struct Failures {
    unreported: u64,
    reported: Option<Instant>,
}

impl Failures {
    fn report(&mut self, error: &std::io::Error) {
        self.unreported += 1;
        if self.reported.is_none_or(|reported| reported.elapsed() >= BETWEEN_REPORTS) {
            self.reported = Some(Instant::now());
            let failures = std::mem::take(&mut self.unreported);
            tracing::warn!(target: "penstock::serve", failures, %error, "a connection could not be accepted");
        }
    }
}
