//! Requests that are passed on to a server elsewhere, and its answers, as they come.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use smallvec::smallvec;

use super::frames::Framing;
use super::{Call, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::offload;
use crate::pipeline::{Endpoint, Finish, Passing, Piece, Pieces};
use crate::serve::access::Note;
use crate::serve::routes::{self, Reply};
use crate::serve::stream::{Frames, streamed};
use crate::serve::words::Words;
use crate::serve::{Found, infer};
use crate::tensor::{Column, ColumnSpec, Rows, Specs};
use crate::wire::openai::{EmbeddingRequest, Form, Passage, Passed};

/// A request for a model that takes it as it came.
pub(super) struct Open {
    model: Found,
    passage: Passage,
    request: Passed,
}

/// Looks whether a request is for a model that takes it as it came; `None` where it is to be read, or refused, as any.
pub(super) async fn open(call: &Call<'_>, wanted: Wanted<'_>) -> Option<Open> {
    let passage = match wanted {
        Wanted::Embeddings => Passage::Embeddings,
        Wanted::Text(Form::Chat) => Passage::Chat,
        Wanted::Text(Form::Completion) => Passage::Completion,
        Wanted::Generate { name, version, stream } => {
            let model = call.service.model(name, version).ok()?;
            // A client that wants lines gets them from here.
            let is_passed = model.passing() == Some(Passing::Generate)
                && !(stream && Framing::of(call.headers) == Framing::Lines);
            let request = Passed::generate(name, call.body.clone(), stream);
            return is_passed.then_some(Open { model, passage: Passage::Generate, request });
        }
    };
    let body = call.body.clone();
    let request = offload::run(body.len(), move || Passed::read(&body)).await.ok()?;
    let model = call.service.model(&request.model, None).ok()?;
    // What the model is for is known to its server alone, which refuses what it is not for.
    let is_passed = match model.passing() {
        Some(Passing::EveryOpenAi) => true,
        // Vectors and nothing else: such texts share requests.
        Some(Passing::OpenAi) => passage != Passage::Embeddings || !is_plain(&call.body).await,
        _ => false,
    };
    is_passed.then_some(Open { model, passage, request })
}

async fn is_plain(body: &Bytes) -> bool {
    let body = body.clone();
    let asked = offload::run(body.len(), move || EmbeddingRequest::parse(&body)).await;
    asked.is_ok_and(|asked| asked.check(None).is_ok())
}

impl Open {
    /// Passes the request on, in its turn, and answers with what comes.
    pub(super) async fn answer(self, call: Call<'_>, note: &mut Note) -> Result<Reply> {
        let Self { model, passage, request } = self;
        let Call { streams, headers, terms, in_flight, .. } = call;
        note.model = Some(Arc::clone(&model));
        note.rows = Some(1);
        let (terms, _) = infer::terms_of(&model, terms, (None, None), None)?;
        note.id.clone_from(&terms.id);
        let (specs, rows) = row(&request.row(passage), &model);
        let pieces = model.stream(terms, specs, &rows)?;
        note.board(std::slice::from_ref(&pieces));
        if request.stream {
            let words = if passage == Passage::Generate { Words::Oip } else { Words::OpenAi };
            return streamed(
                streams,
                vec![pieces],
                Box::new(PassedFrames(words)),
                headers,
                (&model, in_flight),
            )
            .await;
        }
        drop(rows);
        let whole = whole(pieces).await?;
        drop(in_flight);
        Ok(routes::json(whole.into()))
    }
}

/// A text that is no question, but a request: it has an axis.
fn row(text: &[u8], model: &Endpoint) -> (Specs, Rows) {
    let specs: Specs = smallvec![ColumnSpec::Texts { shape: smallvec![1] }];
    let mut rows = Rows::new(&specs, model.spares());
    if let Some(Column::Texts { texts, .. }) = rows.columns_mut().first_mut() {
        texts.push(text);
    }
    (specs, rows)
}

/// All that is said.
async fn whole(mut pieces: Pieces) -> Result<Bytes> {
    let mut whole: Option<Bytes> = None;
    while let Some(piece) = pieces.next().await {
        let Piece::Passed(bytes) = piece else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a request that was passed on was answered by a model",
            ));
        };
        whole = Some(match whole {
            None => bytes,
            Some(before) => {
                let mut both = BytesMut::from(before);
                both.extend_from_slice(&bytes);
                both.freeze()
            }
        });
    }
    pieces.end()?;
    Ok(whole.unwrap_or_default())
}

/// Events of another server, as they come.
struct PassedFrames(Words);

impl Frames for PassedFrames {
    fn content_type(&self) -> HeaderValue {
        Framing::Events.content_type()
    }

    fn piece(&mut self, _choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()> {
        if let Piece::Passed(event) = piece {
            out.extend_from_slice(event);
        }
        ControlFlow::Continue(())
    }

    fn end_choice(&mut self, _choice: usize, _end: &Finish, _out: &mut Vec<u8>) {}

    fn close(&mut self, _out: &mut Vec<u8>) {}

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        Framing::Events.write(&self.0.said(error), out);
    }

    fn comment(&mut self, words: &str, out: &mut Vec<u8>) {
        Framing::Events.comment(words, out);
    }
}
