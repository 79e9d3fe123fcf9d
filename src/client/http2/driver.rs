//! The task of a connection: moves its frames, notices what the server says about it, and asks a silent one for a sign.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::sync::futures::OwnedNotified;
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
    /// Ready where a stream was given up while the server said nothing; looked at where the number of doubts has changed,
    /// and first of all.
    doubted: Pin<Box<OwnedNotified>>,
    doubts_seen: Option<usize>,
    /// A doubt came while the server was trusted: it is to be asked when that is over.
    in_doubt: bool,
    /// Until then the server has shown that it is there, and is not asked again for a doubt's sake.
    trusted_until: Instant,
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
            doubted: Box::pin(signals.doubted().notified_owned()),
            doubts_seen: None,
            in_doubt: false,
            trusted_until: Instant::now(),
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

    /// Asks a server that owes an answer and sends nothing, and one that has sent nothing while somebody waited until he
    /// gave up: a connection whose other end is gone would go on to be chosen. True where it gave no sign in time.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> bool {
        let Some(ping) = &mut self.ping else { return false };
        if self.asked && ping.poll_pong(context).is_ready() {
            self.asked = false;
            self.trusted_until = Instant::now() + self.ping_timeout;
            self.set_timer(self.ping_after);
        }
        self.poll_doubt(context);
        while self.timer.as_mut().poll(context).is_ready() {
            let silent = self.signals.read() == self.read_before;
            if self.asked && silent {
                return true;
            }
            let is_waited_for = std::mem::take(&mut self.in_doubt) || self.signals.open() > 0;
            if silent && !self.asked && is_waited_for {
                self.ask();
            } else {
                self.set_timer(if self.asked { self.ping_timeout } else { self.ping_after });
            }
        }
        false
    }

    /// Asks where a stream was given up without a sign of the server: at once, or when it has been trusted for long enough.
    fn poll_doubt(&mut self, context: &mut Context<'_>) {
        let doubts = self.signals.doubts();
        if self.doubts_seen.replace(doubts) == Some(doubts) {
            return;
        }
        while self.doubted.as_mut().poll(context).is_ready() {
            self.doubted.set(self.signals.doubted().notified_owned());
            let trusted = self.trusted_until.saturating_duration_since(Instant::now());
            if self.asked {
                continue;
            }
            if trusted.is_zero() {
                self.ask();
            } else {
                self.in_doubt = true;
                self.set_timer(trusted);
            }
        }
    }

    fn ask(&mut self) {
        self.asked = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
        self.set_timer(if self.asked { self.ping_timeout } else { self.ping_after });
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
