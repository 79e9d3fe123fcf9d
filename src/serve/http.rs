//! The HTTP door: a listener, its connections, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{AccessLog, Service, connection};
use crate::error::{Error, ErrorKind, Result};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// A pause after the listener failed (too many open files, say), so that it does not fail in a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Time between two reports of a listener that goes on failing.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// What a door allows.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Bytes of a request body at most.
    pub max_body: usize,
    /// Time that a client may take to send its headers.
    pub header_timeout: Duration,
    /// Where a record of each request goes.
    pub access_log: Option<Arc<dyn AccessLog>>,
}

impl Default for HttpSettings {
    /// 64 MiB and 10 s.
    fn default() -> Self {
        Self { max_body: 64 << 20, header_timeout: Duration::from_secs(10), access_log: None }
    }
}

/// An open door.
pub struct HttpServer {
    address: SocketAddr,
    service: Arc<Service>,
    closing: watch::Sender<bool>,
    connections: Connections,
}

/// Sockets of a door that are open: its connections, and the one that listens.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Sockets>);

#[derive(Debug, Default)]
struct Sockets {
    connections: AtomicUsize,
    listeners: AtomicUsize,
}

impl Connections {
    /// Blocks until none is open and the port is free again, for at most `limit`; answers whether that came.
    pub fn wait_none(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.is_none()
    }

    fn count(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    fn is_none(&self) -> bool {
        // The listener first: it may hand over a connection as its last act.
        self.0.listeners.load(Ordering::Acquire) == 0 && self.count() == 0
    }

    fn one_more(&self, which: fn(&Sockets) -> &AtomicUsize) -> Counted {
        which(&self.0).fetch_add(1, Ordering::AcqRel);
        Counted { of: self.clone(), which }
    }
}

/// A socket that is counted as long as it lives.
struct Counted {
    of: Connections,
    which: fn(&Sockets) -> &AtomicUsize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.of.0).fetch_sub(1, Ordering::AcqRel);
    }
}

impl HttpServer {
    /// Opens a door at `address` (port 0 for any that is free); it runs on `runtime` until it is closed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the address cannot be listened on.
    pub fn open(
        address: SocketAddr,
        service: Arc<Service>,
        settings: HttpSettings,
        runtime: &Handle,
    ) -> Result<Self> {
        let listener = bind(address).map_err(|error| {
            Error::with_source(ErrorKind::Config, format!("cannot listen on {address}: {error}"), error)
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the listener has no address", error))?;
        let (closing, closed) = watch::channel(false);
        let connections = Connections::default();
        let listening = connections.one_more(|sockets| &sockets.listeners);
        let accepting = accept(
            runtime.clone(),
            listener,
            Arc::clone(&service),
            Arc::new(settings),
            closed,
            connections.clone(),
        );
        drop(runtime.spawn(async move {
            accepting.await;
            drop(listening);
        }));
        Ok(Self { address, service, closing, connections })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Says "not ready", stops accepting and lets every connection finish the answer that it is at. Does not wait.
    pub fn begin_close(&self) {
        self.service.begin_close();
        // No receiver is left where nothing listens any more.
        let _ = self.closing.send(true);
    }

    /// The count of its connections, for somebody who waits for their end.
    pub fn connection_count(&self) -> Connections {
        self.connections.clone()
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A server that is started again must not wait for connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(
    runtime: Handle,
    listener: std::net::TcpListener,
    service: Arc<Service>,
    settings: Arc<HttpSettings>,
    mut closing: watch::Receiver<bool>,
    connections: Connections,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut failures = Failures::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures.report(&error);
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                continue;
            }
        };
        let counted = connections.one_more(|sockets| &sockets.connections);
        let served =
            connection::serve(stream, peer, Arc::clone(&service), Arc::clone(&settings), closing.clone());
        drop(runtime.spawn(async move {
            served.await;
            drop(counted);
        }));
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
