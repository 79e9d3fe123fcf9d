//! Texts of many requests in one request for their vectors.

use std::sync::Arc;
use std::time::Instant;

use super::TextUpstream;
use super::exchange::Question;
use crate::error::{Error, ErrorKind};
use crate::flow::{Clock, offload};
use crate::gateway::about::About;
use crate::gateway::refusal::of_failure;
use crate::pipeline::{Blame, Fault, Portion, Rounds, Shared, Taken};
use crate::tensor::{Column, Rows, Texts};
use crate::wire::openai::{Passage, embedding_question, shares, vectors};

/// Carries the texts of a batch to the server, and their vectors back to the requests.
pub(super) async fn embed(upstream: Arc<TextUpstream>, taken: Taken) {
    let endpoint = &upstream.endpoint;
    let mut rounds = Rounds::new(endpoint, taken, upstream.settings.isolate, &upstream.tally);
    let shared = rounds.shared();
    while let Some(range) = rounds.next_rows() {
        let began = Instant::now();
        let computed = {
            let (portion, gone) = rounds.watched(range.clone());
            tokio::select! {
                biased;
                () = gone => None,
                vectors = ask(&upstream, &portion, &shared) => Some(vectors),
            }
        };
        let Some(computed) = computed else {
            let nobody = Error::new(ErrorKind::Closed, "nobody waits for these vectors any more");
            return rounds.give_up(&nobody);
        };
        let computed = match computed {
            Ok((vectors, tokens)) => {
                rounds.counted(range.clone(), tokens.into_iter());
                Ok(vec![vectors])
            }
            Err(fault) => {
                upstream.consider(&fault.error);
                Err(fault)
            }
        };
        rounds.computed(range, began.elapsed(), computed);
    }
    rounds.finish();
}

/// The vectors of a portion, and the tokens that each of its texts came to. What is long is written, and read, elsewhere than
/// on the thread that all connections share.
async fn ask(
    upstream: &TextUpstream,
    portion: &Portion<'_>,
    shared: &Shared,
) -> Result<(Column, Vec<u64>), Fault> {
    let (rows, range) = (Arc::clone(portion.rows), portion.range.clone());
    let Some(lengths) =
        texts(&rows).map(|texts| texts.range(range.clone()).map(<[u8]>::len).collect::<Vec<_>>())
    else {
        return Err(Error::new(ErrorKind::Internal, "vectors are made of texts").into());
    };
    let about = About::of(shared, upstream.endpoint.clock().now());
    let model = upstream.settings.model.clone();
    let body = offload::run(lengths.iter().sum(), move || {
        texts(&rows).map(|texts| embedding_question(&model, texts.range(range))).unwrap_or_default()
    });
    let body = body.await;
    let path = upstream.path(Passage::Embeddings, false);
    let answer = upstream.whole(Question { path, body, stream: false, about }).await;
    let answer = answer.map_err(|error| match error.remote_reply() {
        Some(_) => Fault { blame: blame(&error), ..Fault::from(error) },
        None => of_failure(&upstream.endpoint.spec.name, error),
    })?;
    let spares = Arc::clone(portion.spares);
    let told = offload::run(answer.len(), move || {
        let (vectors, tokens) = vectors(&answer, lengths.len(), &spares)?;
        Ok((vectors, shares(tokens, lengths.iter().copied())))
    });
    told.await.map_err(|error: Error| error.into())
}

fn texts(rows: &Rows) -> Option<&Texts> {
    match rows.columns().first() {
        Some(Column::Texts { texts, .. }) => Some(texts),
        _ => None,
    }
}

/// What is refused may be one of the texts; what else goes wrong is the server's or the way's.
fn blame(error: &Error) -> Blame {
    match error.kind() {
        ErrorKind::Item => Blame::Rows,
        _ => Blame::Elsewhere,
    }
}
