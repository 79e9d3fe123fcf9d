//! A server of HTTP/2 that answers by a script, on purpose also wrongly, and notes what it was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A call as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the server does next with a stream.
#[derive(Clone)]
pub(crate) enum Step {
    /// A head of that status and these fields.
    Head(u16, Vec<(&'static str, String)>),
    /// A head that ends the stream.
    Only(u16, Vec<(&'static str, String)>),
    Data(Vec<u8>),
    Trailers(Vec<(&'static str, String)>),
    /// The end of the stream, without trailers.
    End,
    Reset(Reason),
    Wait(Duration),
    /// Says nothing until the client resets the stream.
    Hold,
    /// Sends what comes back, piece by piece, until the client is done.
    Echo,
    /// Says GOAWAY.
    Leave,
    /// Closes the connection.
    Close,
}

type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Manner {
    Serves,
    Leaves,
    Breaks,
}

/// What it has seen.
#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    resets: Mutex<Vec<Reason>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
    most_streams: AtomicUsize,
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Seen>,
    manner: watch::Sender<Manner>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::with(Builder::new(), script).await
    }

    /// With settings of HTTP/2.
    pub(crate) async fn with(
        builder: Builder,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), builder, script)
    }

    /// At an address that was taken before.
    pub(crate) async fn at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(address).await.unwrap(), Builder::new(), script)
    }

    fn on(
        listener: TcpListener,
        builder: Builder,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        let accept = async move |mut serve: Serving| {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                serve.take(stream);
            }
        };
        Self::serve(url, builder, script, accept)
    }

    pub(crate) fn unix(
        path: &std::path::Path,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = async move |mut serve: Serving| {
            while let Ok((stream, _)) = listener.accept().await {
                serve.take(stream);
            }
        };
        Self::serve(format!("grpc+unix://{}", path.display()), Builder::new(), script, accept)
    }

    /// Over TLS, for the name `localhost`.
    pub(crate) async fn tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpcs://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accept = async move |mut serve: Serving| {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve.take(stream);
                }
            }
        };
        Self::serve(url, Builder::new(), script, accept)
    }

    fn serve<F: Future<Output = ()> + Send + 'static>(
        url: String,
        builder: Builder,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
        accept: impl FnOnce(Serving) -> F,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let (manner, told) = watch::channel(Manner::Serves);
        let serving = Serving {
            connections: JoinSet::new(),
            builder,
            script: Arc::new(script),
            seen: Arc::clone(&seen),
            manner: told,
        };
        let task = Handle::current().spawn(accept(serving));
        Self { url, seen, manner, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("grpc://").unwrap().parse().unwrap()
    }

    /// Closes every connection that is open.
    pub(crate) fn break_off(&self) {
        self.manner.send_replace(Manner::Breaks);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().clone()
    }

    /// How many calls came.
    pub(crate) fn count(&self) -> usize {
        self.seen.asked.lock().len()
    }

    /// How many calls of that method came.
    pub(crate) fn count_of(&self, path: &str) -> usize {
        self.seen.asked.lock().iter().filter(|asked| asked.path == path).count()
    }

    pub(crate) fn resets(&self) -> Vec<Reason> {
        self.seen.resets.lock().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub(crate) fn most_streams(&self) -> usize {
        self.seen.most_streams.load(Ordering::SeqCst)
    }
}

/// The connections of a server.
struct Serving {
    connections: JoinSet<()>,
    builder: Builder,
    script: Arc<Script>,
    seen: Arc<Seen>,
    manner: watch::Receiver<Manner>,
}

impl Serving {
    fn take(&mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.seen.connections.fetch_add(1, Ordering::SeqCst);
        let line = Line { script: Arc::clone(&self.script), seen: Arc::clone(&self.seen) };
        let (builder, mut manner) = (self.builder.clone(), self.manner.clone());
        // What was said to those before does not concern this one.
        manner.mark_unchanged();
        self.connections.spawn(line.run(stream, builder, manner));
    }
}

/// Counts until it is dropped.
struct Counting<F: Fn(&Seen) -> &AtomicUsize>(Arc<Seen>, F);

impl<F: Fn(&Seen) -> &AtomicUsize> Drop for Counting<F> {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Line {
    script: Arc<Script>,
    seen: Arc<Seen>,
}

impl Line {
    async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        builder: Builder,
        mut manner: watch::Receiver<Manner>,
    ) {
        self.seen.open.fetch_add(1, Ordering::SeqCst);
        let _open = Counting(Arc::clone(&self.seen), |seen| &seen.open);
        let Ok(mut connection): Result<Connection<_, Bytes>, _> = builder.handshake(stream).await else {
            return;
        };
        let (own, mut said) = watch::channel(Manner::Serves);
        let mut streams = JoinSet::new();
        loop {
            let told = tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    streams.spawn(self.clone().stream(request, respond, own.clone()));
                    continue;
                }
                Ok(()) = manner.changed() => *manner.borrow_and_update(),
                Ok(()) = said.changed() => *said.borrow_and_update(),
            };
            match told {
                Manner::Leaves => connection.graceful_shutdown(),
                _ => return,
            }
        }
    }

    async fn stream(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        own: watch::Sender<Manner>,
    ) {
        let streams = self.seen.streams.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_streams.fetch_max(streams, Ordering::SeqCst);
        let _counting = Counting(Arc::clone(&self.seen), |seen| &seen.streams);
        let (parts, mut inbound) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = if path.ends_with("Stream") { Bytes::new() } else { whole(&mut inbound).await };
        let authority = parts.uri.authority().unwrap().to_string();
        let asked = Asked { path, authority, fields: parts.headers, body };
        let steps = (self.script)(&asked);
        self.seen.asked.lock().push(asked);
        let mut sending = None;
        for step in steps {
            if self.act(step, &mut respond, &mut sending, &mut inbound, &own).await.is_none() {
                return;
            }
        }
    }

    async fn act(
        &self,
        step: Step,
        respond: &mut SendResponse<Bytes>,
        sending: &mut Option<SendStream<Bytes>>,
        inbound: &mut RecvStream,
        own: &watch::Sender<Manner>,
    ) -> Option<()> {
        match step {
            Step::Head(status, fields) => {
                *sending = Some(respond.send_response(response(status, &fields), false).ok()?);
            }
            Step::Only(status, fields) => {
                respond.send_response(response(status, &fields), true).ok()?;
            }
            Step::Data(bytes) => send(sending.as_mut().unwrap(), bytes.into()).await?,
            Step::Trailers(trailers) => {
                sending.as_mut().unwrap().send_trailers(fields(&trailers)).ok()?;
            }
            Step::End => sending.as_mut().unwrap().send_data(Bytes::new(), true).ok()?,
            Step::Reset(reason) => respond.send_reset(reason),
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Hold => {
                let reset = match sending {
                    Some(sending) => std::future::poll_fn(|context| sending.poll_reset(context)).await,
                    None => std::future::poll_fn(|context| respond.poll_reset(context)).await,
                };
                self.seen.resets.lock().push(reset.ok()?);
            }
            Step::Echo => {
                while let Some(piece) = inbound.data().await {
                    let Ok(piece) = piece else {
                        self.seen.resets.lock().push(piece.unwrap_err().reason()?);
                        return None;
                    };
                    inbound.flow_control().release_capacity(piece.len()).unwrap();
                    send(sending.as_mut().unwrap(), piece).await?;
                }
            }
            Step::Leave => drop(own.send_replace(Manner::Leaves)),
            Step::Close => {
                own.send_replace(Manner::Breaks);
                // Until then the stream says nothing of its own.
                std::future::pending::<()>().await;
            }
        }
        Some(())
    }
}

async fn whole(inbound: &mut RecvStream) -> Bytes {
    let mut body = BytesMut::new();
    while let Some(Ok(piece)) = inbound.data().await {
        let _ = inbound.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    body.freeze()
}

async fn send(sending: &mut SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await?.ok()?;
        sending.send_data(bytes.split_to(room.min(bytes.len())), false).ok()?;
    }
    Some(())
}

fn response(status: u16, named: &[(&'static str, String)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = fields(named);
    response
}

fn fields(named: &[(&'static str, String)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, String)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    named.iter().map(field).collect()
}
