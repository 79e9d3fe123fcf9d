//! Texts of many requests in one request for their vectors.

use std::sync::Arc;
use std::time::Instant;

use super::TextUpstream;
use super::exchange::Question;
use crate::error::{Error, ErrorKind};
use crate::flow::Clock;
use crate::pipeline::{Blame, Endpoint, Fault, Portion, Rounds, Taken, Tally};
use crate::tensor::Column;
use crate::wire::openai::{Passage, embedding_question, vectors};

/// Carries the texts of a batch to the server, and their vectors back to the requests.
pub(super) async fn embed(
    (upstream, endpoint): (Arc<TextUpstream>, Arc<Endpoint>),
    taken: Taken,
    isolate: bool,
    tally: Arc<dyn Tally>,
) {
    let mut rounds = Rounds::new(&endpoint, taken, isolate, &tally);
    while let Some(range) = rounds.next_rows() {
        let left = rounds.latest().map(|latest| latest.since(endpoint.clock().now()));
        let began = Instant::now();
        let computed = {
            let (portion, gone) = rounds.watched(range.clone());
            tokio::select! {
                biased;
                () = gone => None,
                vectors = ask(&upstream, &portion, left) => Some(vectors),
            }
        };
        let Some(computed) = computed else {
            let nobody = Error::new(ErrorKind::Closed, "nobody waits for these vectors any more");
            return rounds.give_up(&nobody);
        };
        rounds.computed(range, began.elapsed(), computed);
    }
    rounds.finish();
}

async fn ask(
    upstream: &TextUpstream,
    portion: &Portion<'_>,
    left: Option<std::time::Duration>,
) -> Result<Vec<Column>, Fault> {
    let Some(Column::Texts { texts, .. }) = portion.rows.columns().first() else {
        return Err(Error::new(ErrorKind::Internal, "vectors are made of texts").into());
    };
    let body = embedding_question(&upstream.model, texts.range(portion.range.clone()));
    let path = upstream.path(Passage::Embeddings, false);
    let answer = upstream.whole(Question { path, body, stream: false, left }).await;
    let answer = answer.map_err(|error| Fault { blame: blame(&error), ..Fault::from(error) })?;
    Ok(vec![vectors(&answer, portion.range.len(), portion.spares)?])
}

/// What is refused may be one of the texts; what else goes wrong is the server's or the way's.
fn blame(error: &Error) -> Blame {
    match error.kind() {
        ErrorKind::Item => Blame::Rows,
        _ => Blame::Elsewhere,
    }
}
