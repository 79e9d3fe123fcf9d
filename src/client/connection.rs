//! What the pool pools: a connection of HTTP/1.1 or of HTTP/2, how it is opened, and how its health is checked.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::{Origin, Protocol};
use super::connect::{Dialer, Http2Choice};
use super::grpc::{self, Caller, Readiness, Service};
use super::http1::{Exchange, Lost, Socket};
use super::http2::{Http2, Http2Body, Http2Settings, SendError};
use super::io::Idle;
use super::request::{Deadlines, Request, Target, Timeouts};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Condition, Connection, Connector};

/// What the Open Inference Protocol asks a server whether it is ready.
const READY: &str = "/v2/health/ready";
/// Bytes of the answer to it that are read.
const MAX_READY: usize = 64 * 1024;
/// A server that takes longer to say that it is ready is not.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// One connection.
pub(super) enum HttpConnection {
    /// HTTP/1.1: whoever has the lease takes the socket out, and puts it back.
    Alone(Mutex<Option<Box<Socket>>>),
    /// HTTP/2.
    Shared(Http2),
}

impl HttpConnection {
    /// The socket of a connection of HTTP/1.1.
    pub(super) fn take(&self) -> Option<Box<Socket>> {
        match self {
            Self::Alone(socket) => socket.lock().take(),
            Self::Shared(_) => None,
        }
    }

    /// True where the socket was taken and is not coming back.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Alone(socket) if socket.lock().is_none())
    }

    /// Puts the socket back.
    pub(super) fn put(&self, back: Box<Socket>) {
        if let Self::Alone(socket) = self {
            *socket.lock() = Some(back);
        }
    }
}

/// The wait for the answer to a check. Given up before it is over, by whatever limit, it says that a server which has
/// answered before is not ready; a connection that the server closed meanwhile says nothing.
struct Silence<'a> {
    connector: &'a HttpConnector,
    is_over: bool,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.connector.is_known_to_answer() {
            self.connector.report(false);
        }
    }
}

impl Connection for HttpConnection {
    fn capacity(&self) -> usize {
        match self {
            Self::Alone(_) => 1,
            Self::Shared(http2) => http2.capacity(),
        }
    }

    fn condition(&self) -> Condition {
        match self {
            Self::Alone(socket) => match socket.lock().as_mut().map(|socket| socket.settle()) {
                // It is with its borrower.
                Some(Idle::Quiet) | None => Condition::Usable,
                Some(Idle::Readable | Idle::Closed) => Condition::Closed,
            },
            Self::Shared(http2) => http2.condition(),
        }
    }
}

/// How the health of an endpoint is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Probe {
    /// By the path of the Open Inference Protocol, if the server knows it.
    Unknown,
    Ready,
    /// By the Open Inference Protocol, over gRPC: it has no other health.
    Inference,
    /// It does not: that the connection stands is all there is.
    Plain,
}

/// Opens connections to one endpoint and checks them.
pub(super) struct HttpConnector {
    pub(super) origin: Origin,
    pub(super) label: Arc<str>,
    pub(super) authority: Box<str>,
    /// What calls to an endpoint of gRPC begin with; none for others.
    pub(super) caller: Option<Caller>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) http2: Http2Settings,
    likely_capacity: Option<usize>,
    probe: AtomicU8,
    report: OnceLock<Report>,
}

/// Who wants to know whether a health check found the server ready.
pub(super) type Report = Box<dyn Fn(bool) + Send + Sync>;

impl HttpConnector {
    /// With `asks_ready`, a server of the Open Inference Protocol is asked whether it is ready.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a host that no request can name.
    pub(super) fn new(
        origin: Origin,
        dialer: Arc<Dialer>,
        http2: Http2Settings,
        asks_ready: bool,
    ) -> Result<Self> {
        let is_grpc = origin.protocol() == Protocol::Grpc;
        let caller = is_grpc.then(|| Caller::new(&origin)).transpose()?;
        let label = Arc::from(origin.to_string());
        let authority = origin.authority().into();
        let probe = AtomicU8::new(if asks_ready { Probe::Unknown } else { Probe::Plain } as u8);
        let likely_capacity = match dialer.http2() {
            _ if is_grpc => Some(http2.streams),
            Http2Choice::PriorKnowledge => Some(http2.streams),
            Http2Choice::Alpn if origin.is_secure() => None,
            _ => Some(1),
        };
        let report = OnceLock::new();
        Ok(Self { origin, label, authority, caller, dialer, http2, likely_capacity, probe, report })
    }

    /// The most requests that a connection carries at a time, as far as is known before one is open.
    pub(super) fn most_streams(&self) -> usize {
        self.likely_capacity.unwrap_or(self.http2.streams)
    }

    /// Sets who hears what health checks find; the first stays.
    pub(super) fn report_to(&self, report: Report) {
        // Nobody sets it twice.
        let _ = self.report.set(report);
    }

    fn report(&self, ready: bool) {
        if let Some(report) = self.report.get() {
            report(ready);
        }
    }

    fn is_known_to_answer(&self) -> bool {
        let probe = self.probe.load(Ordering::Relaxed);
        probe == Probe::Ready as u8 || probe == Probe::Inference as u8
    }

    fn is_plain(&self) -> bool {
        self.probe.load(Ordering::Relaxed) == Probe::Plain as u8
    }

    /// Takes the status of the answer to the question whether the server is ready.
    fn heard(&self, status: u16) -> Result<()> {
        if (200..300).contains(&status) {
            self.probe.store(Probe::Ready as u8, Ordering::Relaxed);
            self.report(true);
            return Ok(());
        }
        if self.is_known_to_answer() || status == 503 {
            self.report(false);
            let message = format!("{} is not ready: it answers {READY} with {status}", self.label);
            return Err(Error::new(ErrorKind::ModelNotReady, message));
        }
        // It has never known the path: a server of another kind, which is in good health as far as can be seen.
        self.probe.store(Probe::Plain as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a request over HTTP/2, and waits for the head of its answer.
    pub(super) async fn over_http2(
        &self,
        http2: &Http2,
        request: &Request,
    ) -> std::result::Result<(http::Response<()>, Http2Body), Lost> {
        let head = request
            .to_http2(self.origin.scheme(), &self.authority)
            .map_err(|error| Lost::new(error, true))?;
        let sent = match &request.pieces {
            Some(pieces) => http2.send_pieces(head, pieces.clone()).await,
            None => http2.send(head, request.body.clone()).await,
        };
        sent.map_err(|SendError { error, unsent, .. }| Lost::new(error, unsent))
    }

    async fn ask(&self, connection: &HttpConnection) -> Result<u16> {
        let mut request = Request::new(Method::GET, Target::new(READY)?);
        request.timeouts = Timeouts { total: Some(CHECK_LIMIT), ..Timeouts::default() };
        let deadlines = Deadlines::new(request.timeouts, Instant::now());
        let total = deadlines.total();
        match connection {
            HttpConnection::Alone(_) => {
                let Some(socket) = connection.take() else { return Ok(200) };
                let mut exchange = Exchange::new(socket, &request, &self.authority, &self.label);
                let (head, _) = exchange.head(total).await.map_err(|lost: Lost| lost.error)?;
                while exchange.more(|| total).await? {
                    if exchange.arrived.len() > MAX_READY {
                        let message =
                            format!("{} answers {READY} with more than {MAX_READY} bytes", self.label);
                        return Err(Error::new(ErrorKind::ProtocolError, message));
                    }
                }
                if let Some(socket) = exchange.into_socket() {
                    connection.put(socket);
                }
                Ok(head.status.as_u16())
            }
            HttpConnection::Shared(http2) => {
                let asked = self.over_http2(http2, &request);
                let answer = tokio::time::timeout(CHECK_LIMIT, asked).await.map_err(|_| {
                    let message = format!("{} did not answer {READY} within {CHECK_LIMIT:?}", self.label);
                    Error::new(ErrorKind::DeadlineExceeded, message)
                })?;
                answer.map(|(head, _)| head.status().as_u16()).map_err(|lost| lost.error)
            }
        }
    }
}

impl HttpConnector {
    /// Asks by the standard health service, or by the Open Inference Protocol where the server does not know that.
    async fn ask_over_grpc(&self, caller: &Caller, http2: &Http2) -> Result<()> {
        const BY_HEALTH: (Service, Probe) = (Service::Health, Probe::Ready);
        const BY_INFERENCE: (Service, Probe) = (Service::Inference, Probe::Inference);
        let ways: &[_] = match self.probe.load(Ordering::Relaxed) {
            probe if probe == Probe::Ready as u8 => &[BY_HEALTH],
            probe if probe == Probe::Inference as u8 => &[BY_INFERENCE],
            _ => &[BY_HEALTH, BY_INFERENCE],
        };
        for (service, probe) in ways {
            match grpc::is_ready(*service, http2, caller, CHECK_LIMIT, &self.label).await? {
                Readiness::Ready => {
                    self.probe.store(*probe as u8, Ordering::Relaxed);
                    self.report(true);
                    return Ok(());
                }
                // Whoever has known the question before is not well where he does not any more.
                Readiness::Unknown(_) if !self.is_known_to_answer() => {}
                Readiness::NotReady(said) | Readiness::Unknown(said) => {
                    self.report(false);
                    let message = format!("{} is not ready: {said}", self.label);
                    return Err(Error::new(ErrorKind::ModelNotReady, message));
                }
            }
        }
        // A server of another kind, which is in good health as far as can be seen.
        self.probe.store(Probe::Plain as u8, Ordering::Relaxed);
        Ok(())
    }
}

impl Connector for HttpConnector {
    type Connection = HttpConnection;

    async fn connect(&self) -> Result<HttpConnection> {
        let connected = self.dialer.dial(&self.origin).await?;
        if connected.http2 {
            return Ok(HttpConnection::Shared(Http2::handshake(connected.stream, self.http2).await?));
        }
        let origin = self.origin.to_string();
        Ok(HttpConnection::Alone(Mutex::new(Some(Box::new(Socket::new(connected, &origin))))))
    }

    fn likely_capacity(&self) -> Option<usize> {
        self.likely_capacity
    }

    async fn check(&self, connection: &HttpConnection) -> Result<()> {
        if connection.condition() == Condition::Closed {
            return Err(Error::new(ErrorKind::ReadFailed, "the server closed the connection"));
        }
        if self.is_plain() {
            return Ok(());
        }
        let mut silence = Silence { connector: self, is_over: false };
        let asked = match (&self.caller, connection) {
            (Some(caller), HttpConnection::Shared(http2)) => self.ask_over_grpc(caller, http2).await,
            _ => self.ask(connection).await.and_then(|status| self.heard(status)),
        };
        silence.is_over = !matches!(&asked, Err(error) if error.kind() == ErrorKind::DeadlineExceeded);
        asked?;
        if connection.is_gone() {
            return Err(Error::new(ErrorKind::ReadFailed, "the server closed the connection after a check"));
        }
        Ok(())
    }
}
