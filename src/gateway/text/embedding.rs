//! Texts of many requests in one request for their vectors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TextUpstream;
use super::exchange::{About, Question};
use crate::error::{Error, ErrorKind};
use crate::flow::{Clock, TraceContext};
use crate::gateway::refusal::of_failure;
use crate::pipeline::{Blame, Fault, Portion, Rounds, Taken};
use crate::tensor::Column;
use crate::wire::openai::{Passage, embedding_question, vectors};

/// Carries the texts of a batch to the server, and their vectors back to the requests.
pub(super) async fn embed(upstream: Arc<TextUpstream>, taken: Taken) {
    let endpoint = &upstream.endpoint;
    let mut rounds = Rounds::new(endpoint, taken, upstream.settings.isolate, &upstream.tally);
    let shared = rounds.shared();
    while let Some(range) = rounds.next_rows() {
        let left = shared.latest.map(|latest| latest.since(endpoint.clock().now()));
        let began = Instant::now();
        let computed = {
            let (portion, gone) = rounds.watched(range.clone());
            tokio::select! {
                biased;
                () = gone => None,
                vectors = ask(&upstream, &portion, (left, shared.trace.clone())) => Some(vectors),
            }
        };
        let Some(computed) = computed else {
            let nobody = Error::new(ErrorKind::Closed, "nobody waits for these vectors any more");
            return rounds.give_up(&nobody);
        };
        if let Err(fault) = &computed {
            upstream.consider(&fault.error);
        }
        rounds.computed(range, began.elapsed(), computed);
    }
    rounds.finish();
}

async fn ask(
    upstream: &TextUpstream,
    portion: &Portion<'_>,
    (left, trace): (Option<Duration>, Option<TraceContext>),
) -> Result<Vec<Column>, Fault> {
    let Some(Column::Texts { texts, .. }) = portion.rows.columns().first() else {
        return Err(Error::new(ErrorKind::Internal, "vectors are made of texts").into());
    };
    let body = embedding_question(&upstream.settings.model, texts.range(portion.range.clone()));
    let path = upstream.path(Passage::Embeddings, false);
    let about = About { left, trace };
    let question = Question { path, body, stream: false, fields: Vec::new(), about };
    let answer = upstream.whole(question).await;
    let answer = answer.map_err(|error| match error.remote_reply() {
        Some(_) => Fault { blame: blame(&error), ..Fault::from(error) },
        None => of_failure(&upstream.endpoint.spec.name, error),
    })?;
    Ok(vec![vectors(&answer, portion.range.len(), portion.spares)?])
}

/// What is refused may be one of the texts; what else goes wrong is the server's or the way's.
fn blame(error: &Error) -> Blame {
    match error.kind() {
        ErrorKind::Item => Blame::Rows,
        _ => Blame::Elsewhere,
    }
}
