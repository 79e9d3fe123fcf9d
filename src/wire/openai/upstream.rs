//! The other side of the protocol: a text model's question as other servers are asked it, and what they answer with.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ask::MAX_TOKENS;
use super::passed::Passage;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Column, DType, Shape, Spares};

/// A question as [`Ask`](super::Ask) writes it.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(default, borrow)]
    prompt: Option<Cow<'a, str>>,
    #[serde(default)]
    messages: Option<Vec<Value>>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    user: Option<String>,
}

impl Document<'_> {
    /// The terms that differ from what is usual.
    fn terms(&self) -> Map<String, Value> {
        let mut terms = Map::new();
        let mut put = |name: &str, value: Value| drop(terms.insert(name.to_owned(), value));
        if let Some(tokens) = self.max_tokens.filter(|tokens| *tokens != MAX_TOKENS) {
            put("max_tokens", json!(tokens));
        }
        for (name, value) in [("temperature", self.temperature), ("top_p", self.top_p)] {
            if let Some(value) = value.filter(|value| (value - 1.0).abs() > f64::EPSILON) {
                put(name, json!(value));
            }
        }
        if !self.stop.is_empty() {
            put("stop", json!(self.stop));
        }
        if let Some(seed) = self.seed {
            put("seed", json!(seed));
        }
        if let Some(user) = &self.user {
            put("user", json!(user));
        }
        if !self.metadata.is_empty() {
            put("metadata", json!(self.metadata));
        }
        terms
    }

    /// The text that is to be gone on with: of a conversation, its lines.
    fn text(&self) -> Cow<'_, str> {
        match (&self.prompt, &self.messages) {
            (Some(prompt), _) => Cow::Borrowed(prompt),
            (None, Some(messages)) => {
                let line = |message: &Value| {
                    let part = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
                    format!("{}: {}", part("role"), part("content"))
                };
                Cow::Owned(messages.iter().map(line).collect::<Vec<_>>().join("\n"))
            }
            (None, None) => Cow::Borrowed(""),
        }
    }
}

fn read(document: &[u8]) -> Result<Document<'_>> {
    if document.trim_ascii_start().first() != Some(&b'{') {
        // A list would be taken for the fields in their order.
        return Err(Error::new(
            ErrorKind::Item,
            "this is no question for a text model: it is no JSON object",
        ));
    }
    serde_json::from_slice(document).map_err(|error| {
        Error::with_source(ErrorKind::Item, format!("this is no question for a text model: {error}"), error)
    })
}

/// A question for a server of OpenAI's API that calls the model so, whose answer comes as it is made.
///
/// # Errors
/// [`ErrorKind::Item`] where it is no question.
pub fn question(document: &[u8], model: &str) -> Result<(Passage, Vec<u8>)> {
    let document = read(document)?;
    let mut body = document.terms();
    body.insert("model".to_owned(), json!(model));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    let passage = if let Some(messages) = document.messages {
        body.insert("messages".to_owned(), Value::Array(messages));
        Passage::Chat
    } else {
        body.insert("prompt".to_owned(), json!(document.prompt.unwrap_or_default()));
        Passage::Completion
    };
    Ok((passage, Value::Object(body).to_string().into_bytes()))
}

/// The same for a server that speaks the Open Inference Protocol's extension for text.
///
/// # Errors
/// [`ErrorKind::Item`] where it is no question.
pub fn text_input(document: &[u8]) -> Result<Vec<u8>> {
    let document = read(document)?;
    let mut parameters = document.terms();
    parameters.insert("stream".to_owned(), json!(true));
    Ok(json!({ "text_input": document.text(), "parameters": parameters }).to_string().into_bytes())
}

/// What one event of an answer in text says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// More of the text; none where the event says nothing of it.
    pub text: Option<String>,
    /// Why it ends.
    pub reason: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(default, borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default, borrow)]
    text_output: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<EventUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct EventUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

/// Reads the data of an event of either protocol.
///
/// # Errors
/// [`ErrorKind::Remote`] where it says that the answer failed, [`ErrorKind::ProtocolError`] where it is of neither.
pub fn chunk(data: &str) -> Result<Chunk> {
    let event: Event<'_> = serde_json::from_str(data).map_err(|error| {
        let shown: String = data.chars().take(80).collect();
        Error::with_source(ErrorKind::ProtocolError, format!("an event is none of a text: {shown}"), error)
    })?;
    if let Some(error) = event.error.filter(|error| !error.is_null()) {
        let words = error.get("message").unwrap_or(&error).as_str().map(str::to_owned);
        return Err(Error::new(ErrorKind::Remote, words.unwrap_or_else(|| error.to_string())));
    }
    let choice = event.choices.and_then(|choices| choices.into_iter().next());
    let (text, reason) = if let Some(Choice { text, delta, finish_reason }) = choice {
        (text.or_else(|| delta.and_then(|delta| delta.content)), finish_reason)
    } else {
        (event.text_output, None)
    };
    Ok(Chunk {
        text: text.filter(|text| !text.is_empty()).map(Cow::into_owned),
        reason,
        prompt_tokens: event.usage.and_then(|usage| usage.prompt_tokens),
    })
}

/// What a body says that tells of a failure, for a person: by either protocol, or its beginning.
pub fn failure_words(body: &[u8]) -> String {
    const SHOWN: usize = 300;
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let words = said.as_ref().and_then(|said| {
        let error = said.get("error").or_else(|| said.get("detail")).unwrap_or(said);
        error.get("message").unwrap_or(error).as_str()
    });
    let text = words.map_or_else(|| String::from_utf8_lossy(body), Cow::Borrowed);
    text.trim().chars().filter(|letter| !letter.is_control()).take(SHOWN).collect()
}

/// The body of a request for vectors of texts.
pub fn embedding_question<'a>(model: &str, texts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let texts: Vec<_> = texts.map(String::from_utf8_lossy).collect();
    json!({ "model": model, "input": texts, "encoding_format": "base64" }).to_string().into_bytes()
}

#[derive(Deserialize)]
struct Vectors<'a> {
    #[serde(borrow)]
    data: Vec<Vector<'a>>,
    /// What is strange there is no reason to lose the vectors.
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct VectorUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

impl Vectors<'_> {
    /// Tokens of all texts together; 0 where the server says nothing of them.
    fn tokens(&self) -> u64 {
        let usage = self.usage.and_then(|usage| serde_json::from_str::<VectorUsage>(usage.get()).ok());
        usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)).unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct Vector<'a> {
    #[serde(default)]
    index: Option<usize>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

/// What of so many tokens each text has that came to them with others: by its length, as only their sum is known. The shares
/// add up to that sum.
pub fn shares(tokens: u64, texts: impl Iterator<Item = usize> + Clone) -> Vec<u64> {
    // A text without a letter is worth something, too: servers add tokens of their own to each.
    let weights = texts.map(|length| length as u128 + 1);
    let whole: u128 = weights.clone().sum();
    let (mut before, mut told) = (0, 0);
    weights
        .map(|weight| {
            before += weight;
            let until = u64::try_from(u128::from(tokens) * before / whole).unwrap_or(tokens);
            until - std::mem::replace(&mut told, until)
        })
        .collect()
}

/// The vectors of so many texts, one after another, from the body of an answer; and the tokens that its server has counted.
///
/// # Errors
/// [`ErrorKind::Output`] where there are not as many, or they are no vectors of one length.
pub fn vectors(body: &[u8], count: usize, spares: &std::sync::Arc<Spares>) -> Result<(Column, u64)> {
    let wrong = |why: String| Error::new(ErrorKind::Output, format!("the upstream answered {why}"));
    let answer: Vectors<'_> =
        serde_json::from_slice(body).map_err(|error| wrong(format!("no list of embeddings: {error}")))?;
    let mut rows: Vec<Option<&RawValue>> = vec![None; count];
    for (at, vector) in answer.data.iter().enumerate() {
        let place = rows.get_mut(vector.index.unwrap_or(at));
        *place.ok_or_else(|| wrong(format!("more than {count} embeddings")))? = Some(vector.embedding);
    }
    let (mut memory, mut length) = (spares.memory(), None);
    for (at, row) in rows.into_iter().enumerate() {
        let row = row.ok_or_else(|| wrong(format!("no embedding of text {at}")))?;
        let bytes = vector(row).ok_or_else(|| wrong(format!("an embedding of text {at} that is none")))?;
        if *length.get_or_insert(bytes.len()) != bytes.len() {
            return Err(wrong("embeddings of several lengths".to_owned()));
        }
        memory.extend(&bytes);
    }
    let row_bytes = length.unwrap_or(0);
    let shape = Shape::from_slice(&[row_bytes / DType::Float32.size()]);
    Ok((Column::Numbers { dtype: DType::Float32, shape, row_bytes, memory }, answer.tokens()))
}

/// The bytes of a vector, in the machine's order.
fn vector(raw: &RawValue) -> Option<Vec<u8>> {
    if raw.get().starts_with('"') {
        let text: Cow<'_, str> = serde_json::from_str(raw.get()).ok()?;
        let bytes = STANDARD.decode(text.as_bytes()).ok()?;
        let numbers = bytes.chunks_exact(DType::Float32.size());
        if !numbers.remainder().is_empty() {
            return None;
        }
        let number = |number: &[u8]| f32::from_le_bytes(number.try_into().unwrap_or_default()).to_ne_bytes();
        return Some(numbers.flat_map(number).collect());
    }
    let numbers: Vec<Option<f32>> = serde_json::from_str(raw.get()).ok()?;
    // What JSON has no word for is null.
    Some(numbers.into_iter().flat_map(|number| number.unwrap_or(f32::NAN).to_ne_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Form, Generation};
    use super::*;

    fn document(form: Form, body: &Value) -> Vec<u8> {
        Generation::parse(body.to_string().as_bytes(), form).unwrap().documents[0].to_vec()
    }

    #[test]
    fn a_question_is_asked_with_what_its_sender_said() {
        let plain = document(Form::Completion, &json!({"model": "m", "prompt": "hé"}));
        let (passage, body) = question(&plain, "up").unwrap();
        let expected =
            json!({"model": "up", "prompt": "hé", "stream": true, "stream_options": {"include_usage": true}});
        assert_eq!(
            (passage, serde_json::from_slice::<Value>(&body).unwrap()),
            (Passage::Completion, expected)
        );
        let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        let asked = json!({"model": "m", "messages": messages, "max_tokens": 5, "temperature": 0, "top_p": 0.5,
            "stop": "x", "seed": 3, "user": "u", "metadata": {"a": "b"}});
        let chat = document(Form::Chat, &asked);
        let (passage, body) = question(&chat, "up").unwrap();
        let expected = json!({"model": "up", "messages": messages, "max_tokens": 5, "temperature": 0.0, "top_p": 0.5,
            "stop": ["x"], "seed": 3, "user": "u", "metadata": {"a": "b"}, "stream": true,
            "stream_options": {"include_usage": true}});
        assert_eq!((passage, serde_json::from_slice::<Value>(&body).unwrap()), (Passage::Chat, expected));
        let body: Value = serde_json::from_slice(&text_input(&chat).unwrap()).unwrap();
        assert_eq!(body["text_input"], "user: a\nassistant: b");
        assert_eq!(
            (&body["parameters"]["max_tokens"], &body["parameters"]["stream"]),
            (&json!(5), &json!(true))
        );
        assert!(question(b"[]", "up").is_err());
    }

    #[test]
    fn events_of_both_protocols_are_read() {
        let said = |text: Option<&str>, reason: Option<&str>, prompt_tokens| Chunk {
            text: text.map(str::to_owned),
            reason: reason.map(str::to_owned),
            prompt_tokens,
        };
        for (data, expected) in [
            (
                r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"a\u00e9"}}]}"#,
                said(Some("aé"), None, None),
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#,
                said(None, Some("stop"), None),
            ),
            (r#"{"choices":[{"text":"b","finish_reason":null}]}"#, said(Some("b"), None, None)),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#,
                said(None, None, Some(7)),
            ),
            (r#"{"model_name":"m","text_output":"c"}"#, said(Some("c"), None, None)),
            (r#"{"choices":[{"delta":{"tool_calls":[{}]}}]}"#, said(None, None, None)),
        ] {
            assert_eq!(chunk(data).unwrap(), expected, "{data}");
        }
        let error = chunk(r#"{"error":{"message":"out of luck","code":3}}"#).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Remote, "out of luck"));
        assert_eq!(chunk(r#"{"error":"x"}"#).unwrap_err().message(), "x");
        assert_eq!(chunk("hello").unwrap_err().kind(), ErrorKind::ProtocolError);
    }

    #[test]
    fn what_went_wrong_is_told_in_one_line() {
        for (body, words) in [
            (r#"{"error":{"message":"no"}}"#, "no"),
            (r#"{"error":"no"}"#, "no"),
            (r#"{"message":"no"}"#, "no"),
            ("<html>\nbad gateway</html>", "<html>bad gateway</html>"),
        ] {
            assert_eq!(failure_words(body.as_bytes()), words);
        }
        assert_eq!(failure_words(&[b'x'; 5000]).len(), 300);
    }

    #[test]
    fn vectors_come_as_numbers_or_base64_in_any_order() {
        let spares = Spares::new(1 << 16);
        let read = |body: &Value, count| vectors(body.to_string().as_bytes(), count, &spares);
        let packed = STANDARD.encode([1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
        let mut body =
            json!({"data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [0.5, null]}]});
        for (usage, tokens) in [
            (json!({"prompt_tokens": 7, "total_tokens": 9}), 7),
            (json!({"total_tokens": 9}), 9),
            (json!({"prompt_tokens": null}), 0),
            (json!("strange"), 0),
            (Value::Null, 0),
        ] {
            body["usage"] = usage;
            assert_eq!(read(&body, 2).unwrap().1, tokens, "{body}");
        }
        let Column::Numbers { dtype, shape, row_bytes, memory } = read(&body, 2).unwrap().0 else { panic!() };
        assert_eq!((dtype, shape.as_slice(), row_bytes), (DType::Float32, &[2][..], 8));
        let numbers: Vec<_> =
            memory.as_slice().chunks(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!((numbers[0], numbers[2], numbers[3]), (0.5, 1.0, 2.0));
        assert!(numbers[1].is_nan());
        for (body, count) in [
            (json!({"data": [{"index": 0, "embedding": [1.0]}]}), 2),
            (json!({"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}), 1),
            (json!({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}), 2),
            (json!({"data": [{"embedding": "!"}]}), 1),
            (json!({"data": [{"embedding": "AAA="}]}), 1),
            (json!({"data": [{"embedding": {"a": 1}}]}), 1),
            (json!({"object": "list"}), 1),
        ] {
            assert_eq!(read(&body, count).unwrap_err().kind(), ErrorKind::Output, "{body}");
        }
    }

    #[test]
    fn tokens_are_shared_by_length_and_none_is_lost() {
        let shares = |tokens, lengths: &[usize]| super::shares(tokens, lengths.iter().copied());
        assert_eq!(shares(10, &[4, 4]), [5, 5]);
        assert_eq!(shares(0, &[4, 4]), [0, 0]);
        assert_eq!(shares(9, &[0, 0, 0]), [3, 3, 3]);
        assert_eq!(shares(7, &[10]), [7]);
        assert_eq!(shares(u64::MAX, &[1, 2]).iter().sum::<u64>(), u64::MAX);
        assert_eq!(shares(101, &[3, 50, 0, 7, 19]).iter().sum::<u64>(), 101);
        let many = shares(1_000, &[9, 89]);
        assert_eq!(many, [100, 900]);
        assert!(shares(5, &[]).is_empty());
    }
}
