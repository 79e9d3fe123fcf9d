//! Requests that are answered piece by piece, each on its way to the server until its end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{TextUpstream, asking, passing};
use crate::batch::{Batch, Entry, Ran};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Clock;
use crate::gateway::about::About;
use crate::gateway::refusal;
use crate::pipeline::{BatchAccount, Endpoint, Finished, Reply, Said, Shared, Speaker, Taken, Task};
use crate::tensor::Column;

/// True for requests that are answered in their own words, one by one; false for texts that vectors are made of.
pub(super) fn is_conversation(endpoint: &Endpoint, (batch, _): &Taken) -> bool {
    endpoint.spec.task == Task::Generate || is_passed(batch)
}

/// True where what lies in the rows is passed on: a question is a text alone, a request has an axis.
fn is_passed(batch: &Batch<(), Reply>) -> bool {
    matches!(batch.rows.columns().first(), Some(Column::Texts { shape, .. }) if !shape.is_empty())
}

/// Carries the requests of a batch to the server, all at the same time.
pub(super) async fn talk(upstream: Arc<TextUpstream>, (batch, mut account): Taken) {
    let endpoint = &upstream.endpoint;
    account.call();
    let passed = is_passed(&batch);
    let rows = batch.rows;
    let text = |row: usize| match rows.columns().first() {
        Some(Column::Texts { texts, .. }) => Bytes::copy_from_slice(texts.get(row).unwrap_or_default()),
        _ => Bytes::new(),
    };
    let is_alone = batch.entries.len() == 1;
    let mut talks: Vec<_> = Vec::with_capacity(batch.entries.len());
    for (row, entry) in batch.entries.into_iter().enumerate() {
        let talk = Talk {
            endpoint: Arc::clone(endpoint),
            entry: Some(entry),
            account: account.clone(),
            is_last: is_alone,
        };
        talks.push((talk, text(row)));
    }
    if is_alone && let Some((talk, text)) = talks.pop() {
        return talk.run(&upstream, text, passed).await;
    }
    let end = End { endpoint: Arc::clone(endpoint), account };
    let mut under_way = JoinSet::new();
    for (talk, text) in talks {
        let upstream = Arc::clone(&upstream);
        under_way.spawn(async move { talk.run(&upstream, text, passed).await });
    }
    while under_way.join_next().await.is_some() {}
    drop(end);
}

/// One request. Dropped before its end, it is refused.
struct Talk {
    endpoint: Arc<Endpoint>,
    entry: Option<Entry<Reply>>,
    account: BatchAccount,
    /// The batch ends with it.
    is_last: bool,
}

impl Talk {
    async fn run(mut self, upstream: &TextUpstream, text: Bytes, passed: bool) {
        let said = match &self.entry {
            Some(entry) => match entry.waiter.speaker() {
                Some(speaker) => {
                    let shared = self.shared(entry);
                    let about = About::of(&shared, self.endpoint.clock().now());
                    heard(upstream, text, passed, speaker, about).await
                }
                None => Err(Error::new(ErrorKind::Internal, "a text was asked for as a whole")),
            },
            None => return,
        };
        self.end(said);
    }

    /// On which terms it goes on: its own.
    fn shared(&self, entry: &Entry<Reply>) -> Shared {
        let shared = Shared::of(std::slice::from_ref(entry), &self.account);
        if self.is_last {
            return shared;
        }
        let trace = entry.waiter.label().trace.as_deref().cloned();
        Shared { trace, ..shared }
    }

    fn end(&mut self, said: Result<Said>) {
        let Some(entry) = self.entry.take() else { return };
        let mut account = self.account.clone();
        account.close(account.taken.elapsed());
        let finished = Finished { entries: vec![entry], rows: vec![said], account, ran: Ran::Unknown };
        if self.is_last {
            self.endpoint.finish(finished);
        } else {
            self.endpoint.answer(finished);
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if self.entry.is_none() {
            return;
        }
        let name = &self.endpoint.spec.name;
        let error = if std::thread::panicking() {
            Error::new(ErrorKind::Internal, format!("penstock panicked while it asked for model '{name}'"))
        } else {
            Error::new(ErrorKind::Closed, format!("model '{name}' was closed while it answered this request"))
        };
        self.end(Err(error));
    }
}

/// A batch of several, until all of them have ended.
struct End {
    endpoint: Arc<Endpoint>,
    account: BatchAccount,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut account = self.account.clone();
        account.close(account.taken.elapsed());
        let (entries, rows) = (Vec::new(), Vec::new());
        self.endpoint.finish(Finished { entries, rows, account, ran: Ran::Unknown });
    }
}

/// What the server says for a request, as long as somebody reads it: when nobody does any more, the server is told to stop.
async fn heard(
    upstream: &TextUpstream,
    text: Bytes,
    passed: bool,
    speaker: &Speaker,
    about: About<'_>,
) -> Result<Said> {
    let said = async {
        if passed {
            passing::pass(upstream, &text, speaker, about).await
        } else {
            asking::ask(upstream, &text, speaker, about).await
        }
    };
    tokio::select! {
        biased;
        () = speaker.left() => Ok(Said::Finish { reason: None, prompt_tokens: None }),
        said = said => said.map_err(|error| {
            upstream.consider(&error);
            told(&upstream.endpoint, error)
        }),
    }
}

/// A failure as its reader is told of it.
fn told(endpoint: &Endpoint, error: Error) -> Error {
    let is_said = error.remote_reply().is_some()
        || matches!(error.kind(), ErrorKind::Remote | ErrorKind::Stream | ErrorKind::StreamInterrupted);
    if is_said { error } else { refusal::of_failure(&endpoint.spec.name, error).error }
}
