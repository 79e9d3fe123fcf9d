//! Vectors of texts.

use std::sync::Arc;
use std::time::Instant;

use super::Call;
use crate::error::Result;
use crate::flow::offload;
use crate::pipeline::Task;
use crate::serve::access::Note;
use crate::serve::infer;
use crate::serve::routes::{self, Reply};
use crate::wire::oip::{self, InferRequest};
use crate::wire::openai::{EmbeddingRequest, column, embeddings};

/// Answers a request for embeddings: its texts share batches with those of others.
pub(super) async fn answer(call: Call<'_>, note: &mut Note) -> Result<Reply> {
    let Call { service, terms, body, in_flight, say_timing, .. } = call;
    let asked = offload::run(body.len(), move || EmbeddingRequest::parse(&body)).await?;
    let model = super::model_for(service, &asked.model, Task::Embed, "embeddings", note)?;
    let length = model.spec.outputs.first().and_then(|output| output.axes.first().copied().flatten());
    asked.check(length).inspect_err(|_| model.count_invalid())?;
    let EmbeddingRequest { model: name, texts, encoding, .. } = asked;
    let (specs, rows) = column(texts.iter().map(String::as_bytes), model.spares());
    let request = InferRequest::of_rows(specs, rows, texts.len());
    drop(texts);
    let (_, admitted, answer) = infer::queue(&model, request, terms, note)?;
    let answered = answer.await?;
    let (batch, load, rows) = (Arc::clone(&answered.batch), answered.load, answered.rows);
    let body = offload::run(oip::size_of(&rows), move || embeddings(&name, &rows, encoding)).await?;
    let mut reply = routes::json(body);
    infer::tell_timing(&mut reply, (admitted, load), batch, Instant::now(), say_timing, note);
    drop(in_flight);
    Ok(reply)
}
