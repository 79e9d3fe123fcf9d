//! A server on a real socket that answers by a script, on purpose also wrongly, and notes what it was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// A request as the server saw it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Which connection it came over, from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Its first line and its fields.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What the server does next with a connection.
pub(crate) enum Step {
    Say(Vec<u8>),
    /// A byte at a time, with a pause before each.
    Drip(Vec<u8>, Duration),
    Wait(Duration),
    /// Neither reads nor writes until it is told to go on.
    Pause(Arc<Notify>),
    /// Says nothing, and reads until the client closes.
    Hold,
    /// Closes in good order.
    Close,
    /// Closes with RST.
    Reset,
}

/// What the server does when it was asked something.
type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

/// What it has seen.
#[derive(Default)]
pub(crate) struct Seen {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// Bytes that went out by [`Step::Drip`].
    dripped: AtomicUsize,
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// One that reads a request, asks the script, and does what it says; then the next.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Habit::ReadsBodies, script)
    }

    /// One that asks the script as soon as it has the head; the body stays where it is.
    pub(crate) async fn hasty(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Habit::LeavesBodies, script)
    }

    /// One that answers every request with its method, its target and its body.
    pub(crate) async fn echo() -> Self {
        Self::start(|asked| vec![Step::Say(echo(asked))]).await
    }

    /// As [`Server::start`], at that address.
    pub(crate) async fn at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(address).await.unwrap(), Habit::ReadsBodies, script)
    }

    pub(crate) fn unix(
        path: &std::path::Path,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let url = format!("unix://{}", path.display());
        Self::serve(listener, url, Habit::ReadsBodies, script)
    }

    fn on(
        listener: TcpListener,
        habit: Habit,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(listener, url, habit, script)
    }

    fn serve(
        listener: impl Listens,
        url: String,
        habit: Habit,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let (noted, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        let task = tokio::runtime::Handle::current().spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok(stream) = listener.line().await {
                let connection = Connection::new(stream, Arc::clone(&noted), habit);
                serving.spawn(connection.run(Arc::clone(&script)));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { url, seen, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().clone()
    }

    /// How many requests came.
    pub(crate) fn count(&self) -> usize {
        self.seen.asked.lock().len()
    }

    /// How many requests for that path came.
    pub(crate) fn count_of(&self, target: &str) -> usize {
        self.seen.asked.lock().iter().filter(|asked| asked.target == target).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub(crate) fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::SeqCst)
    }

    pub(crate) fn dripped(&self) -> usize {
        self.seen.dripped.load(Ordering::SeqCst)
    }
}

/// An answer of that status line and fields (each with its line end), and of that body, whose length it states.
pub(crate) fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "", body)
}

pub(crate) fn echo(asked: &Asked) -> Vec<u8> {
    let mut body = format!("{} {} ", asked.method, asked.target).into_bytes();
    body.extend_from_slice(&asked.body);
    ok(&body)
}

/// A step that says those bytes, and no other.
pub(crate) fn say(bytes: impl Into<Vec<u8>>) -> Vec<Step> {
    vec![Step::Say(bytes.into())]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    ReadsBodies,
    LeavesBodies,
}

/// What brings connections.
trait Listens: Send + Sync + 'static {
    type Line: Line;
    fn line(&self) -> impl Future<Output = std::io::Result<Self::Line>> + Send;
}

impl Listens for TcpListener {
    type Line = TcpStream;
    async fn line(&self) -> std::io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listens for UnixListener {
    type Line = UnixStream;
    async fn line(&self) -> std::io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// What a server needs of a stream.
trait Line: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn reset(self);
}

impl Line for TcpStream {
    fn reset(self) {
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Line for UnixStream {
    fn reset(self) {}
}

struct Connection<S> {
    stream: S,
    number: usize,
    seen: Arc<Seen>,
    habit: Habit,
    input: Vec<u8>,
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: Line> Connection<S> {
    fn new(stream: S, seen: Arc<Seen>, habit: Habit) -> Self {
        let number = seen.connections.fetch_add(1, Ordering::SeqCst);
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_open.fetch_max(open, Ordering::SeqCst);
        Self { stream, number, seen, habit, input: Vec::new() }
    }

    async fn run(mut self, script: Arc<Script>) {
        let _open = Open(Arc::clone(&self.seen));
        while let Some(asked) = self.read().await {
            let steps = script(&asked);
            self.seen.asked.lock().push(asked);
            for step in steps {
                match self.act(step).await {
                    Ok(true) => {}
                    Ok(false) => return self.stream.reset(),
                    Err(_) => return,
                }
            }
        }
    }

    /// Reads a request; none where the client closed before it was whole.
    async fn read(&mut self) -> Option<Asked> {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut body = Vec::new();
        if self.habit == Habit::ReadsBodies {
            while self.input.len() < length {
                self.fill().await?;
            }
            body = self.input.drain(..length).collect();
        }
        Some(Asked { connection: self.number, method, target, head, body })
    }

    async fn fill(&mut self) -> Option<usize> {
        self.input.reserve(64 * 1024);
        self.stream.read_buf(&mut self.input).await.ok().filter(|read| *read > 0)
    }

    /// Answers false where the connection is to be reset.
    async fn act(&mut self, step: Step) -> std::io::Result<bool> {
        match step {
            Step::Say(bytes) => self.stream.write_all(&bytes).await?,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    self.stream.write_all(&[byte]).await?;
                    self.seen.dripped.fetch_add(1, Ordering::SeqCst);
                }
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Pause(told) => told.notified().await,
            Step::Hold => {
                while self.fill().await.is_some() {
                    self.input.clear();
                }
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Step::Close => {
                self.stream.shutdown().await?;
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Step::Reset => return Ok(false),
        }
        Ok(true)
    }
}

/// The value of a field in the text of a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
