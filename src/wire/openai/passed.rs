//! Requests that are passed on to a server of the same protocol: nothing of them is read but whom they are for, and nothing
//! is changed but the model's name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::RawValue;

use super::fault::{INVALID, MISSING, refused};
use crate::error::{Error, ErrorKind, Result};

/// What a request that is passed on is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
    /// `/v1/embeddings`.
    Embeddings,
    /// The Open Inference Protocol's extension for text.
    Generate,
}

/// A request that is passed on.
#[derive(Debug)]
pub struct Passed {
    /// The model's name, as the sender gives it.
    pub model: String,
    /// True where the answer is to come as it is made.
    pub stream: bool,
    /// Where in the body the name stands, its quotes included.
    place: Range<usize>,
    body: Bytes,
}

/// The same in the row of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedRow<'a> {
    /// What it is for.
    pub passage: Passage,
    /// True where the answer is to come as it is made.
    pub stream: bool,
    before: &'a [u8],
    after: &'a [u8],
    /// The body names a model, between the two.
    names_model: bool,
}

impl Passage {
    const ALL: [Self; 4] = [Self::Chat, Self::Completion, Self::Embeddings, Self::Generate];

    fn mark(self) -> &'static [u8] {
        match self {
            Self::Chat => b"chat",
            Self::Completion => b"completion",
            Self::Embeddings => b"embeddings",
            Self::Generate => b"generate",
        }
    }
}

impl Passed {
    /// Looks whom the body of a request of OpenAI's API is for.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it is no object, names no model, or says `model` or `stream` twice.
    pub fn read(body: &Bytes) -> Result<Self> {
        let mut found = Found { model: None, stream: None, refusal: None };
        let mut read = serde_json::Deserializer::from_slice(body);
        let outcome = read.deserialize_map(&mut found).and_then(|()| read.end());
        if let Err(error) = outcome {
            let broken = || Error::new(ErrorKind::Item, format!("the body is no request: {error}"));
            return Err(found.refusal.unwrap_or_else(broken));
        }
        let expected = "the name of a model";
        let raw = found
            .model
            .ok_or_else(|| refused("model", MISSING, format!("is missing: it must be {expected}")))?;
        let model = serde_json::from_str(raw)
            .map_err(|_| refused("model", INVALID, format!("must be {expected}")))?;
        let stream = found.stream.map_or(Ok(None), serde_json::from_str::<Option<bool>>);
        let stream = stream.map_err(|_| refused("stream", INVALID, "must be true or false"))?;
        let start = raw.as_ptr().addr() - body.as_ptr().addr();
        Ok(Self {
            model,
            stream: stream.unwrap_or(false),
            place: start..start + raw.len(),
            body: body.clone(),
        })
    }

    /// A request of the extension for text, whose path names the model.
    pub fn generate(model: &str, body: Bytes, stream: bool) -> Self {
        Self { model: model.to_owned(), stream, place: 0..0, body }
    }

    /// The request as the row of a queue.
    pub fn row(&self, passage: Passage) -> Vec<u8> {
        let Range { start, end } = self.place;
        let stream = u8::from(self.stream);
        let head = format!(" {stream} {start} {end}\n");
        [passage.mark(), head.as_bytes(), &self.body].concat()
    }
}

impl<'a> PassedRow<'a> {
    /// Reads what [`Passed::row`] wrote.
    pub fn read(row: &'a [u8]) -> Option<Self> {
        let (head, rest) = row.split_at_checked(memchr::memchr(b'\n', row)?)?;
        let body = rest.get(1..)?;
        let mut words = head.split(|byte| *byte == b' ');
        let mark = words.next()?;
        let passage = Passage::ALL.into_iter().find(|passage| passage.mark() == mark)?;
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<usize>().ok();
        let (stream, start, end) = (number()? == 1, number()?, number()?);
        let (before, after) = (body.get(..start)?, body.get(end..)?);
        Some(Self { passage, stream, before, after, names_model: end > start })
    }

    /// The body, for a server that calls the model so.
    pub fn body(&self, model: &str) -> Vec<u8> {
        if !self.names_model {
            return self.after.to_vec();
        }
        [self.before, json!(model).to_string().as_bytes(), self.after].concat()
    }
}

/// A key of an object.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Found<'a> {
    model: Option<&'a str>,
    stream: Option<&'a str>,
    /// Why the object is refused, in better words than a parser's.
    refusal: Option<Error>,
}

impl<'a> Visitor<'a> for &mut Found<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let place = match &*name {
                "model" => &mut self.model,
                "stream" => &mut self.stream,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if place.replace(map.next_value::<&RawValue>()?.get()).is_some() {
                self.refusal = Some(refused(&name, INVALID, "is given twice"));
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(body: &str, name: &str) -> String {
        let passed = Passed::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let row = passed.row(Passage::Chat);
        let row = PassedRow::read(&row).unwrap();
        assert_eq!((row.passage, row.stream), (Passage::Chat, passed.stream));
        String::from_utf8(row.body(name)).unwrap()
    }

    #[test]
    fn nothing_is_changed_but_the_name() {
        let body = "{ \"tools\" : [{\"model\": 1}],\n\"mod\\u0065l\": \"a\", \"n\": 1.50 ,\"stream\":true}";
        assert_eq!(passed(body, "b\"c"), body.replace("\"a\"", "\"b\\\"c\""));
        assert_eq!(passed(body, "a"), body);
    }

    #[test]
    fn whom_it_is_for_is_known_once() {
        for (body, words) in [
            ("{}", "model is missing"),
            ("{\"model\": 3}", "model must be the name of a model"),
            ("{\"model\": null}", "model must be the name of a model"),
            ("{\"model\": \"a\", \"model\": \"b\"}", "model is given twice"),
            ("{\"model\": \"a\", \"stream\": 1}", "stream must be true or false"),
            ("{\"model\": \"a\", \"stream\": true, \"stream\": false}", "stream is given twice"),
            ("[]", "the body is no request"),
            ("{\"model\": \"a\"} {}", "the body is no request"),
            ("{\"model\": \"a\", \"x\": }", "the body is no request"),
        ] {
            let error = Passed::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert!(error.message().starts_with(words), "{body}: {error}");
        }
        let quiet = Bytes::from_static(b"{\"stream\": null, \"model\": \"a\"}");
        assert!(!Passed::read(&quiet).unwrap().stream);
    }

    #[test]
    fn a_request_for_text_is_named_by_its_path() {
        let body = Bytes::from_static(b"{\"text_input\": \"a\"}");
        let row = Passed::generate("m", body.clone(), true).row(Passage::Generate);
        let row = PassedRow::read(&row).unwrap();
        assert!(row.stream && row.body("other") == body);
        for broken in
            [&b"chat"[..], b"chat 1 2\n{}", b"chat 1 0 9\n{}", b"what 1 0 0\n{}", b"{\"prompt\":1}\n"]
        {
            assert_eq!(PassedRow::read(broken), None);
        }
    }
}
