//! One request to a server, and what is read of its answer while it comes: no further ahead than somebody takes it.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::runtime::Handle;

use super::refusal::{refusal, whole};
use super::{TextSettings, TextUpstream};
use crate::client::{Body, Client, DRAINED_FOR, Request, Response, Route, Timeouts, Waiting};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::about::About;
use crate::pipeline::Speaker;
use crate::pool::Place;

/// Bytes that are read behind the end of an answer, so that its connection serves on.
const DRAINED_BYTES: usize = 64 * 1024;

/// How long the end of an answer is waited for behind its last word.
const SETTLED: Duration = Duration::from_millis(50);

const PLACE: Place = Place::Fixed("penstock gateway");

/// What is asked of a server.
pub(super) struct Question<'a> {
    /// The path, behind the prefix.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// The answer is to come as it is made.
    pub(super) stream: bool,
    pub(super) about: About<'a>,
}

/// What a portion of an answer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that counts: a comment, a part of an event.
    Nothing,
    /// Something.
    Something,
    /// All that there is to say.
    Over,
}

/// Who hears what comes.
pub(super) trait Hear: Send {
    /// A portion has come.
    ///
    /// # Errors
    /// What it says that is wrong, or that is too long.
    fn hear(&mut self, portion: &[u8]) -> Result<Heard>;

    /// Nothing more comes.
    ///
    /// # Errors
    /// Where that is too early.
    fn end(&mut self) -> Result<()>;
}

impl TextUpstream {
    /// Asks a server, and gives its whole answer.
    pub(super) async fn whole(&self, question: Question<'_>) -> Result<Bytes> {
        let (route, request) = self.request(question)?;
        let response = Client::send(route, request).await?;
        if response.status.is_success() {
            return Ok(response.body);
        }
        Err(refusal(&response, &response.body))
    }

    /// Asks a server, and has `hear` hear what it says as it comes, as fast as `speaker` is listened to.
    pub(super) async fn stream(
        &self,
        question: Question<'_>,
        speaker: &Speaker,
        hear: &mut dyn Hear,
    ) -> Result<()> {
        let (route, request) = self.request(question)?;
        let (response, mut body) = Client::stream(route, request, PLACE).await?;
        if !response.status.is_success() {
            return Err(refusal(&response, &whole(&mut body).await));
        }
        if !are_events(&response) {
            let kind = response.fields.get("content-type").map(String::from_utf8_lossy).unwrap_or_default();
            let message = format!("{} answered '{kind}' where events were asked for", response.endpoint);
            return Err(Error::new(ErrorKind::ProtocolError, message));
        }
        let Some(mut waiting) = body.waiting() else { return hear.end() };
        listen(&mut body, &mut waiting, speaker, hear).await?;
        if !is_over(&mut body, &waiting).await {
            // Behind its last word comes the end of the body. It is read for the connection's sake, also where the reader
            // has left at that word; whoever has not, and asks again at once, is to find the connection.
            let drained = Handle::current().spawn(drain(body, waiting));
            let _ = tokio::time::timeout(SETTLED, drained).await;
        }
        Ok(())
    }

    fn request(&self, question: Question<'_>) -> Result<(Route, Request)> {
        let Question { path, body, stream, about } = question;
        let (route, target) = self.client.route(&format!("{}{path}", self.settings.prefix))?;
        let mut request = Request::new(Method::POST, target);
        let accept = if stream { "text/event-stream" } else { "application/json" };
        let mut own = about.fields();
        // To pack and unpack a token costs more than to send it.
        own.extend([
            ("content-type", "application/json"),
            ("accept", accept),
            ("accept-encoding", "identity"),
        ]);
        let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        request.fields = self.fields(&own)?;
        request.body = body.into();
        let TextSettings { timeouts, max_response, .. } = self.settings;
        request.timeouts = Timeouts { total: timeouts.total.into_iter().chain(about.left).min(), ..timeouts };
        request.max_response = max_response;
        Ok((route, request))
    }
}

fn are_events(response: &Response) -> bool {
    let kind = response.fields.get("content-type").unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"text/event-stream")
}

async fn listen(
    body: &mut Body,
    waiting: &mut Waiting,
    speaker: &Speaker,
    hear: &mut dyn Hear,
) -> Result<()> {
    let mut bytes = 0;
    loop {
        if !speaker.has_room() {
            // What is not read here, the server must wait with.
            speaker.room().await;
            waiting.goes_on();
        }
        let next = body.next_in(waiting).await.map_err(|error| broken(error, bytes))?;
        let Some(portion) = next else {
            return hear.end().map_err(|error| broken(error, bytes));
        };
        bytes += portion.len();
        match hear.hear(&portion)? {
            Heard::Nothing => {}
            Heard::Something => waiting.came(),
            Heard::Over => return Ok(()),
        }
    }
}

/// The failure of an answer of which so much had come.
fn broken(error: Error, bytes: usize) -> Error {
    match error.kind() {
        ErrorKind::ReadFailed | ErrorKind::WriteFailed | ErrorKind::ProtocolError => {
            // Where the upstream is, is for those who run it: they find it as the cause.
            let message = format!("the upstream's answer broke off after {bytes} bytes");
            Error::with_source(ErrorKind::StreamInterrupted, message, error)
        }
        _ => error,
    }
}

/// Looks, without waiting, whether the body has ended.
async fn is_over(body: &mut Body, waiting: &Waiting) -> bool {
    let next = body.next_in(waiting);
    let mut next = std::pin::pin!(next);
    std::future::poll_fn(|context| {
        use std::task::Poll;
        Poll::Ready(match next.as_mut().poll(context) {
            Poll::Ready(Ok(Some(_))) | Poll::Pending => false,
            Poll::Ready(Ok(None) | Err(_)) => true,
        })
    })
    .await
}

/// Reads what is left of a body, where that is little and comes soon; else its connection is closed.
async fn drain(mut body: Body, waiting: Waiting) {
    let read = async {
        let mut bytes = 0;
        while let Ok(Some(portion)) = body.next_in(&waiting).await {
            bytes += portion.len();
            if bytes > DRAINED_BYTES {
                break;
            }
        }
    };
    // Either way it is dropped.
    let _ = tokio::time::timeout(DRAINED_FOR, read).await;
}
