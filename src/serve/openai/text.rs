//! Text of a model: as a whole, or as it comes.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use super::frames::{Framing, TextFrames, TritonFrames};
use super::{Call, seconds};
use crate::error::Result;
use crate::flow::offload;
use crate::pipeline::{Endpoint, Piece, Pieces, Task};
use crate::serve::access::Note;
use crate::serve::infer;
use crate::serve::routes::{self, Reply};
use crate::serve::stream::streamed;
use crate::serve::terms::HeadTerms;
use crate::wire::openai::{self, Choices, Form, Generation, Heard, TextOutput, Usage, Writer, column};

/// Answers a request of OpenAI's API.
pub(super) async fn answer(call: Call<'_>, form: Form, note: &mut Note) -> Result<Reply> {
    let Call { service, streams, headers, terms, body, in_flight, .. } = call;
    let asked = offload::run(body.len(), move || Generation::parse(&body, form)).await?;
    let model = super::model_for(service, &asked.model, Task::Generate, "text", note)?;
    let (choices, pieces) = begin(&model, &asked, terms, note)?;
    let id = format!("{}{:032x}", form.prefix(), fastrand::u128(..));
    let made = (id.as_str(), seconds(SystemTime::now()));
    if asked.stream {
        let writer = Writer::new(form, made, &asked.model, pieces.len(), asked.include_usage);
        let frames = TextFrames::new(writer, choices, asked.include_usage);
        return streamed(streams, pieces, Box::new(frames), headers, (&model, in_flight)).await;
    }
    let Gathered { texts, usage } = gathered(pieces, choices).await?;
    drop(in_flight);
    Ok(routes::json(openai::whole(form, made, &asked.model, &texts, usage)))
}

/// Answers a request of the generate extension.
pub(super) async fn generate(
    call: Call<'_>,
    model: &Arc<Endpoint>,
    stream: bool,
    note: &mut Note,
) -> Result<Reply> {
    let Call { streams, headers, terms, body, in_flight, .. } = call;
    let name = model.spec.name.clone();
    let asked = offload::run(body.len(), move || Generation::of_text_input(&name, &body, stream)).await;
    let asked = asked.inspect_err(|_| model.count_invalid())?;
    let (choices, pieces) = begin(model, &asked, terms, note)?;
    let output = TextOutput::new(&model.spec.name, &model.spec.version, asked.id.as_deref());
    if stream {
        let frames = TritonFrames::new(output, choices, Framing::of(headers));
        return streamed(streams, pieces, Box::new(frames), headers, (model, in_flight)).await;
    }
    let Gathered { texts, .. } = gathered(pieces, choices).await?;
    drop(in_flight);
    let mut body = Vec::new();
    output.write(texts.first().map_or(&[], |(text, _)| text), &mut body);
    Ok(routes::json(body))
}

/// Puts every choice of a request into the queue of its model, or none.
///
/// # Errors
/// What keeps one of them out.
fn begin(
    model: &Endpoint,
    asked: &Generation,
    head: HeadTerms,
    note: &mut Note,
) -> Result<(Choices, Vec<Pieces>)> {
    let (terms, _) = infer::terms_of(model, head, (None, None), asked.id.as_deref())?;
    note.rows = Some(asked.documents.len());
    note.id.clone_from(&terms.id);
    let stream = |document: &bytes::Bytes| {
        let (specs, rows) = column([document.as_ref()], model.spares());
        model.stream(terms.clone(), specs, &rows)
    };
    let pieces = asked.documents.iter().map(stream).collect::<Result<Vec<_>>>()?;
    note.board(&pieces);
    Ok((Choices::new(pieces.len(), asked.each, asked.max_tokens, &asked.stops), pieces))
}

/// The text of a choice, and why it ended.
type Told = (Vec<u8>, Cow<'static, str>);

/// The choices of an answer, and what all of them took.
struct Gathered {
    texts: Vec<Told>,
    usage: Usage,
}

/// Waits for all that a model says.
///
/// # Errors
/// What it fails with, for any of the choices: an answer that lacks some is none.
///
/// # Cancellation
/// Dropping the future stops the generation of every choice.
async fn gathered(pieces: Vec<Pieces>, mut choices: Choices) -> Result<Gathered> {
    let mut texts = vec![(Vec::new(), Cow::Borrowed("stop")); pieces.len()];
    let mut open: Vec<_> = pieces.into_iter().enumerate().collect();
    poll_fn(|context| {
        let mut at = 0;
        while let Some((choice, pieces)) = open.get_mut(at) {
            let Some(text) = texts.get_mut(*choice) else { break };
            match gather(pieces, *choice, &mut choices, text, context) {
                Poll::Pending => at += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => drop(open.swap_remove(at)),
            }
        }
        if open.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    Ok(Gathered { texts, usage: choices.usage() })
}

/// Takes what is there of a choice; ready once it has ended.
fn gather(
    pieces: &mut Pieces,
    choice: usize,
    choices: &mut Choices,
    (text, reason): &mut Told,
    context: &mut Context<'_>,
) -> Poll<Result<()>> {
    loop {
        let Some(piece) = ready!(pieces.poll_next(context)) else {
            let end = pieces.end()?;
            let why = choices.end(choice, end.reason.as_deref(), end.prompt_tokens, text);
            *reason = Cow::Owned(why.to_owned());
            return Poll::Ready(Ok(()));
        };
        let Piece::Text(piece) = piece else { continue };
        if let Heard::Ends(why) = choices.piece(choice, &piece, text) {
            *reason = Cow::Borrowed(why);
            choices.prompt(choice, pieces.prompt_tokens());
            pieces.enough();
            return Poll::Ready(Ok(()));
        }
    }
}
