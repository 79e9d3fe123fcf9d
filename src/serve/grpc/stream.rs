//! `ModelStreamInfer`: many inference requests over one call, answered in their order.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::closing;
use super::infer::{self, Fit, Refused};
use super::message::Inbox;
use super::steps::{self, Said, Steps};
use crate::metrics::InFlight;
use crate::serve::access::Note;
use crate::serve::door::Door;
use crate::serve::terms::HeadTerms;
use crate::wire::grpc::proto::inference::{ModelInferResponse, ModelStreamInferResponse};
use crate::wire::grpc::{PREFIX, Status, framed, prefix_of};

/// A request of a stream, until its answer is there.
type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An answer, framed: as one piece, or as what stands before a message and the message.
type Answer = (Bytes, Option<Bytes>);

/// What reads on hands the inbox back with what it read, so that nothing is lost where something else comes first.
type Reading = Pin<Box<dyn Future<Output = (Inbox, Result<Option<Read>, Status>)> + Send>>;

/// A request that was read, and admitted as long as the guard lives.
type Read = Result<(Fit, InFlight), Refused>;

/// Answers the requests of a stream until its sender says that no more come, or the server closes. A request that fails
/// is answered by a message that says so, and the stream goes on. `max_streams` requests are answered at a time, and may
/// share batches; what is sent beyond that is not read. All of them wait on the `terms` of the call.
///
/// Whole answers come in the order of their requests. A model that answers step by step has a message for each step, as
/// it is made, among those of other requests; the last of a request says so.
///
/// # Errors
/// What breaks the stream itself; the requests before it are answered first.
///
/// # Cancellation
/// Requests in the queue leave it.
pub(super) async fn run(
    door: Arc<Door>,
    terms: HeadTerms,
    inbox: Inbox,
    answers: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let most = door.settings.max_streams as usize;
    let closed = door.service.closed();
    tokio::pin!(closed);
    let mut reading = Some(read_on(&door, inbox));
    let mut waiting = VecDeque::<Asked>::new();
    let mut going = VecDeque::<Steps>::new();
    let mut end = Ok(());
    while reading.is_some() || !waiting.is_empty() || !going.is_empty() {
        tokio::select! {
            biased;
            answer = first(&mut waiting) => {
                waiting.pop_front();
                if send(&answers, answer).await.is_err() {
                    return Ok(());
                }
            }
            (inbox, read) = next(&mut reading), if waiting.len() + going.len() < most => match read {
                Ok(Some(read)) => {
                    match begin(&door, read, terms.clone()) {
                        Begun::Steps(steps) => going.push_back(*steps),
                        Begun::Whole(read) => waiting.push_back(queue(*read, terms.clone()).await),
                    }
                    reading = Some(read_on(&door, inbox));
                }
                Ok(None) => reading = None,
                Err(status) => (reading, end) = (None, Err(status)),
            },
            // What has come by now was read above.
            () = &mut closed, if reading.is_some() => {
                (reading, end) = (None, Err(closing()));
            }
            // Last: a model that always has something to say must not keep the others from being heard.
            said = poll_fn(|context| steps::poll_any(&mut going, context)) => {
                let metrics = door.streams.metrics();
                let answer = match said {
                    Said::Part(message) | Said::Last(message) => {
                        metrics.pieces(1);
                        metrics.chunk(message.len());
                        wrapped(&message)
                    }
                    Said::Failed(id, status) => failed(id, &status),
                };
                if send(&answers, answer).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    end
}

/// A request whose answer has begun to come step by step, or one that is answered as a whole.
enum Begun {
    Steps(Box<Steps>),
    Whole(Box<Read>),
}

fn begin(door: &Door, read: Read, terms: HeadTerms) -> Begun {
    match read {
        Ok((fit, in_flight)) if fit.has_steps() => match fit.steps(terms, &door.streams, in_flight) {
            Ok(steps) => Begun::Steps(Box::new(steps)),
            Err(refused) => Begun::Whole(Box::new(Err(refused))),
        },
        read => Begun::Whole(Box::new(read)),
    }
}

/// The answer to the request that came first; never, where none waits.
async fn first(waiting: &mut VecDeque<Asked>) -> Answer {
    match waiting.front_mut() {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// What is read next; never, where nothing is read any more.
async fn next(reading: &mut Option<Reading>) -> (Inbox, Result<Option<Read>, Status>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

fn read_on(door: &Arc<Door>, mut inbox: Inbox) -> Reading {
    let door = Arc::clone(door);
    Box::pin(async move {
        let message = match inbox.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return (inbox, Ok(None)),
            Err(status) => return (inbox, Err(status)),
        };
        let read = match infer::read(&door.service, message).await {
            Err(refused) => Err(refused),
            Ok(fit) => match door.admit() {
                Ok(in_flight) => Ok((fit, in_flight)),
                Err(error) => {
                    let id = fit.id().unwrap_or_default().to_owned();
                    Err(Refused { id, status: Status::from(&error) })
                }
            },
        };
        (inbox, Ok(Some(read)))
    })
}

/// Puts a request into its model's queue at once: those of one stream are to share a batch.
async fn queue(read: Read, terms: HeadTerms) -> Asked {
    let mut asked: Asked = Box::pin(async move {
        let (fit, _in_flight) = match read {
            Ok(read) => read,
            Err(refused) => return failed(refused.id, &refused.status),
        };
        let id = fit.id().unwrap_or_default().to_owned();
        match fit.answer(terms, false, &mut Note::default()).await {
            Ok((message, _)) => wrapped(&message),
            Err(status) => failed(id, &status),
        }
    });
    let begun = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
    match begun {
        Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
        Poll::Pending => asked,
    }
}

async fn send(
    answers: &mpsc::Sender<Bytes>,
    (first, rest): Answer,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    answers.send(first).await?;
    match rest {
        Some(rest) => answers.send(rest).await,
        None => Ok(()),
    }
}

/// The answer to a request that failed: the words, and which one it was.
fn failed(id: String, status: &Status) -> Answer {
    let answer = ModelStreamInferResponse {
        error_message: status.message.clone(),
        infer_response: Some(ModelInferResponse { id, ..ModelInferResponse::default() }),
    };
    (framed(&answer), None)
}

/// Field `infer_response` of [`ModelStreamInferResponse`], a message of its own.
const INFER_RESPONSE: u8 = 2 << 3 | 2;

/// From here on a message is sent as a piece of its own, and not copied behind what stands before it.
const LARGE: usize = 4 << 10;

/// A framed answer of `ModelInfer` as one of `ModelStreamInfer`.
fn wrapped(framed: &Bytes) -> Answer {
    let message = framed.slice(PREFIX.min(framed.len())..);
    let length = 1 + prost::length_delimiter_len(message.len()) + message.len();
    let is_large = message.len() >= LARGE;
    let mut out = BytesMut::with_capacity(PREFIX + if is_large { 16 } else { length });
    out.extend_from_slice(&prefix_of(length));
    out.extend_from_slice(&[INFER_RESPONSE]);
    // There is room for it.
    let _ = prost::encode_length_delimiter(message.len(), &mut out);
    if is_large {
        return (out.freeze(), Some(message));
    }
    out.extend_from_slice(&message);
    (out.freeze(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_the_one_message_of_a_stream() {
        for length in [0, 1, 100, LARGE - 20, LARGE, 100_000] {
            let answer = ModelInferResponse { id: "x".repeat(length), ..ModelInferResponse::default() };
            let (first, rest) = wrapped(&framed(&answer));
            let whole = [&first[..], rest.as_deref().unwrap_or_default()].concat();
            let expected =
                ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) };
            assert_eq!(whole, framed(&expected), "{length}");
        }
    }
}
