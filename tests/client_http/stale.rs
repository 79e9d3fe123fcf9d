//! Connections that the server closes between two requests.
//!
//! What the client's kernel knows and its runtime has not seen yet cannot be had from a server on the same runtime: here it
//! is a thread, and the test blocks the runtime until the thread has closed. And a thread can close just as the next
//! request comes, which no look beforehand shows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use penstock::client::Client;
use penstock::error::ErrorKind;
use socket2::SockRef;
use tokio::runtime::Handle;

use crate::asking::*;
use crate::server::{Server, Step, echo, ok, say};

/// How the first connection ends after its first answer.
#[derive(Clone, Copy, Debug)]
enum End {
    InOrder,
    ByReset,
    /// As the next request comes, which it leaves unread.
    OverRequest,
}

/// Ends its first connection when it is told to; answers what comes over the others.
struct Thread {
    url: String,
    orders: Sender<End>,
    done: Receiver<()>,
    /// The first line of every request.
    asked: Receiver<String>,
}

impl Thread {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (orders, ordered) = channel();
        let (did, done) = channel();
        let (heard, asked) = channel();
        std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            heard.send(serve(&mut first).unwrap()).unwrap();
            let Ok(end) = ordered.recv() else { return };
            if matches!(end, End::OverRequest) {
                did.send(()).unwrap();
                first.peek(&mut [0]).unwrap();
            }
            match end {
                End::OverRequest => {}
                End::InOrder => first.shutdown(Shutdown::Write).unwrap(),
                End::ByReset => SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap(),
            }
            drop(first);
            let _ = did.send(());
            while let Ok((mut next, _)) = listener.accept() {
                while let Some(line) = serve(&mut next) {
                    if heard.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        Self { url, orders, done, asked }
    }

    /// Ends the first connection while the client's runtime is not looking.
    fn end(&self, end: End) {
        self.orders.send(end).unwrap();
        self.done.recv().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads one request without a body to speak of, and answers it.
fn serve(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&some[..read]);
    }
    stream.write_all(&ok(b"hi")).ok()?;
    Some(String::from_utf8_lossy(&head).lines().next()?.to_owned())
}

async fn asked_once(thread: &Thread) -> Client {
    let client = Client::new(std::slice::from_ref(&thread.url), settings(), Handle::current()).unwrap();
    assert_eq!(ask(&client, get("/first")).await.unwrap().attempts, 1);
    assert_eq!(thread.asked.recv().unwrap(), "GET /first HTTP/1.1");
    client
}

#[tokio::test]
async fn a_connection_that_ended_while_the_runtime_did_not_look_is_not_even_tried() {
    for end in [End::InOrder, End::ByReset] {
        let thread = Thread::start();
        let client = asked_once(&thread).await;
        thread.end(end);
        let response = ask(&client, post("/second", "x")).await.unwrap();
        assert_eq!((response.attempts, response.reused), (1, false), "{end:?}");
        assert_eq!(thread.asked.recv().unwrap(), "POST /second HTTP/1.1");
        assert!(thread.asked.try_recv().is_err(), "it was seen once");
    }
}

#[tokio::test]
async fn what_was_sent_over_a_stale_connection_is_sent_again_where_that_is_safe() {
    let thread = Thread::start();
    let client = asked_once(&thread).await;
    thread.end(End::OverRequest);
    let response = ask(&client, get("/second")).await.unwrap();
    assert_eq!(response.attempts, 2);
    assert_eq!(thread.asked.recv().unwrap(), "GET /second HTTP/1.1");
}

#[tokio::test]
async fn what_was_sent_over_a_stale_connection_is_not_sent_again_where_that_is_not_safe() {
    let thread = Thread::start();
    let client = asked_once(&thread).await;
    thread.end(End::OverRequest);
    let error = fails(&client, post("/second", "x")).await;
    assert!(matches!(error.kind(), ErrorKind::ReadFailed | ErrorKind::WriteFailed), "{error:?}");
    let marked = penstock::client::Request { idempotent: true, ..post("/third", "x") };
    assert_eq!(ask(&client, marked).await.unwrap().status, 200);
    assert_eq!(thread.asked.recv().unwrap(), "POST /third HTTP/1.1");
}

#[tokio::test]
async fn a_connection_that_is_seen_to_be_stale_is_not_even_tried() {
    let server =
        Server::start(|asked| vec![Step::Say(echo(asked)), Step::Wait(millis(10)), Step::Close]).await;
    let client = client(&server);
    for number in 0..3 {
        let response = ask(&client, post("/", "x")).await.unwrap();
        assert_eq!((response.attempts, response.reused), (1, false));
        eventually(|| server.open() == 0).await;
        assert_eq!(server.count(), number + 1);
    }
    assert_eq!(stats(&client, &server).pool.size, 1, "nobody has looked at the last one yet");
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_the_time_that_the_server_named() {
    let server =
        Server::start(|_| say(crate::server::answer("200 OK", "Keep-Alive: timeout=1\r\n", b""))).await;
    let client = client(&server);
    for reused in [false, true] {
        assert_eq!(ask(&client, get("/")).await.unwrap().reused, reused);
    }
    // The client closes it, before the server would.
    eventually(|| server.open() == 0).await;
    let stats = stats(&client, &server).pool;
    assert_eq!(stats.retired_for(penstock::pool::Retired::KeepAlive), 1);
    assert!(!ask(&client, get("/")).await.unwrap().reused);
}
