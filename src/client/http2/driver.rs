//! The task of a connection: moves its frames, notices what the server says about it, and asks a silent one for a sign.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::signals::{Counted, Signals};
use super::{Http2Settings, Shared, words};
use crate::pool::Condition;

pub(super) struct Driver {
    /// Gone once the connection is given up.
    connection: Option<Connection<Counted, Bytes>>,
    shared: Weak<Shared>,
    signals: Arc<Signals>,
    ping: Option<PingPong>,
    ping_after: Duration,
    ping_timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether the answer to a ping is awaited.
    asked: bool,
    /// How many bytes had come when the timer was set.
    read_before: u64,
    /// How many had when it was last looked whether the server ends the connection.
    read_seen: u64,
}

impl Driver {
    pub(super) fn new(
        mut connection: Connection<Counted, Bytes>,
        shared: Weak<Shared>,
        signals: Arc<Signals>,
        settings: &Http2Settings,
    ) -> Self {
        Self {
            ping: connection.ping_pong(),
            connection: Some(connection),
            shared,
            read_before: signals.read(),
            read_seen: 0,
            signals,
            ping_after: settings.ping_after,
            ping_timeout: settings.ping_timeout,
            timer: Box::pin(sleep(settings.ping_after)),
            asked: false,
        }
    }

    /// Looks at what the frames said that came.
    fn observe(&mut self) {
        let read = self.signals.read();
        if std::mem::replace(&mut self.read_seen, read) == read {
            return;
        }
        if let Some(connection) = &self.connection {
            self.signals.allow(connection.max_concurrent_send_streams());
        }
        // h2 shows a GOAWAY only to those who want to send. To hold a sender here would keep the connection open.
        if self.signals.condition() == Condition::Usable
            && let Some(shared) = self.shared.upgrade()
            && let Poll::Ready(Err(_)) =
                shared.sender.clone().poll_ready(&mut Context::from_waker(std::task::Waker::noop()))
        {
            self.signals.drain();
        }
    }

    /// Asks a server that owes an answer and sends nothing. True where it gave no sign in time.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> bool {
        let Some(ping) = &mut self.ping else { return false };
        if self.asked && ping.poll_pong(context).is_ready() {
            self.asked = false;
            self.set_timer(self.ping_after);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let silent = self.signals.read() == self.read_before;
            if self.asked && silent {
                return true;
            }
            let ask = silent && !self.asked && self.signals.open() > 0;
            if ask && let Some(ping) = &mut self.ping {
                self.asked = ping.send_ping(Ping::opaque()).is_ok();
            }
            self.set_timer(if self.asked { self.ping_timeout } else { self.ping_after });
        }
        false
    }

    fn set_timer(&mut self, wait: Duration) {
        self.read_before = self.signals.read();
        self.timer.as_mut().reset(Instant::now() + wait);
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(()) };
        if let Poll::Ready(ended) = Pin::new(connection).poll(context) {
            this.signals.close(ended.err().map(|error| words(&error)));
            return Poll::Ready(());
        }
        this.observe();
        if this.poll_silence(context) {
            let limit = this.ping_timeout.as_secs_f64();
            this.signals.close(Some(format!("the server did not answer a ping within {limit} s")));
            // With it go all streams.
            this.connection = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// A task that is dropped by its runtime leaves a closed connection, too.
    fn drop(&mut self) {
        if self.signals.condition() != Condition::Closed {
            self.signals.close(None);
        }
    }
}
