//! The steps of a model of tensors, each as it is made.

use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderValue;

use super::Call;
use super::frames::Framing;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Endpoint, Finish, ModelSpec, Piece};
use crate::serve::access::Note;
use crate::serve::infer::{self, Asked, Opened};
use crate::serve::routes::Reply;
use crate::serve::stream::{Frames, streamed};
use crate::wire::oip;

/// Answers an inference request of one row with what every step of the model says for it.
pub(super) async fn answer(call: Call<'_>, model: &Arc<Endpoint>, note: &mut Note) -> Result<Reply> {
    let Call { streams, headers, terms, body, in_flight, .. } = call;
    let request = infer::read(model, headers, body).await.inspect_err(|_| model.count_invalid())?;
    if request.count != 1 {
        model.count_invalid();
        let message = format!("{} rows in one request: a stream answers one", request.count);
        return Err(Error::new(ErrorKind::Item, message));
    }
    let Opened { terms, asked, specs, rows, .. } = infer::open(model, request, terms, note)?;
    let pieces = vec![model.stream(terms, specs, &rows)?];
    note.board(&pieces);
    // Lines of text carry no binary data.
    let asked = asked.in_json();
    let frames = StepFrames { spec: Arc::clone(&model.spec), asked, framing: Framing::of(headers) };
    streamed(streams, pieces, Box::new(frames), headers, (model, in_flight)).await
}

/// An inference response for each step.
struct StepFrames {
    spec: Arc<ModelSpec>,
    asked: Asked,
    framing: Framing,
}

impl Frames for StepFrames {
    fn content_type(&self) -> HeaderValue {
        self.framing.content_type()
    }

    fn piece(&mut self, _choice: usize, piece: &Piece, out: &mut Vec<u8>) -> ControlFlow<()> {
        if let Piece::Row(row) = piece {
            let response = self.asked.response(&self.spec, std::slice::from_ref(row));
            self.framing.write(&response.encode().body, out);
        }
        ControlFlow::Continue(())
    }

    fn end_choice(&mut self, _choice: usize, _end: &Finish, _out: &mut Vec<u8>) {}

    fn close(&mut self, _out: &mut Vec<u8>) {}

    fn failed(&mut self, error: &Error, out: &mut Vec<u8>) {
        self.framing.write(&oip::error_body(error.message()), out);
    }

    fn comment(&mut self, words: &str, out: &mut Vec<u8>) {
        self.framing.comment(words, out);
    }
}
