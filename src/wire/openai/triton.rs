//! The generate extension of Triton's protocol, as far as it is about text:
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md>.

use serde_json::json;

use super::answer::put_text;
use super::ask::{Ask, Terms, stops_of};
use super::fields::{Fields, Table, Use};
use super::generation::Generation;
use crate::error::Result;

const TABLE: &Table = &[
    ("text_input", Use::Read),
    ("parameters", Use::Read),
    ("id", Use::Read),
    ("model_name", Use::Passed),
    ("model_version", Use::Passed),
    ("max_tokens", Use::Read),
    ("temperature", Use::Read),
    ("top_p", Use::Read),
    ("stop", Use::Read),
    ("seed", Use::Read),
    ("user", Use::Read),
    ("metadata", Use::Read),
    ("stream", Use::Passed),
];

const PARAMETERS: &Table = &[
    ("max_tokens", Use::Read),
    ("temperature", Use::Read),
    ("top_p", Use::Read),
    ("stop", Use::Read),
    ("seed", Use::Read),
    ("user", Use::Read),
    ("metadata", Use::Read),
    ("stream", Use::Passed),
];

impl Generation {
    /// Reads a request for one text of that model: `{"text_input": "...", "parameters": {"max_tokens": 5}}`, its
    /// parameters in an object of their own or beside the text.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the parameter and what it may be.
    pub fn of_text_input(model: &str, body: &[u8], stream: bool) -> Result<Self> {
        let mut fields = Fields::parse(body, TABLE)?;
        fields.open("parameters", PARAMETERS)?;
        let prompt: String = fields.must("text_input", "a text")?;
        let terms = Terms::read(&fields)?;
        let (max_tokens, stops) = (terms.max_tokens, stops_of(&terms));
        let terms = std::borrow::Cow::Owned(terms);
        let document = Ask { model, prompt: Some(&prompt), messages: None, terms, stream }.document();
        Ok(Self {
            model: model.to_owned(),
            id: fields.read("id", "a text")?,
            documents: vec![document.into()],
            each: 1,
            max_tokens,
            stops,
            stream,
            include_usage: false,
        })
    }
}

/// What an answer in text begins with, up to the text.
#[derive(Debug)]
pub struct TextOutput(Vec<u8>);

impl TextOutput {
    /// Of that model.
    pub fn new(model: &str, version: &str, id: Option<&str>) -> Self {
        let id = id.map(|id| format!(r#""id":{},"#, json!(id))).unwrap_or_default();
        let (model, version) = (json!(model), json!(version));
        Self(format!(r#"{{{id}"model_name":{model},"model_version":{version},"text_output":"#).into_bytes())
    }

    /// Writes the answer, or a part of it.
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
        put_text(out, text);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn parameters_stand_in_an_object_or_beside_the_text() {
        let read = |body: Value| Generation::of_text_input("m", body.to_string().as_bytes(), true);
        for body in [
            json!({"text_input": "a", "id": "1", "parameters": {"max_tokens": 3, "stop": "x", "stream": false}}),
            json!({"text_input": "a", "id": "1", "max_tokens": 3, "stop": ["x"]}),
        ] {
            let asked = read(body).unwrap();
            assert_eq!((asked.max_tokens, asked.id.as_deref(), asked.documents.len()), (3, Some("1"), 1));
            let document: Value = serde_json::from_slice(&asked.documents[0]).unwrap();
            assert_eq!((&document["prompt"], &document["stop"]), (&json!("a"), &json!(["x"])));
        }
        for (body, words) in [
            (json!({}), "text_input is missing"),
            (json!({"text_input": ["a"]}), "text_input must be a text"),
            (json!({"text_input": "a", "parameters": {"colour": 1}}), "colour is no parameter"),
            (json!({"text_input": "a", "parameters": {"top_p": 2}}), "top_p must be"),
            (json!({"text_input": "a", "top_p": 1, "parameters": {"top_p": 1}}), "top_p is given twice"),
            (json!({"text_input": "a", "parameters": 3}), "the body is no request"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.message().starts_with(words), "{error}");
        }
    }

    #[test]
    fn an_answer_names_its_model() {
        let mut out = Vec::new();
        TextOutput::new("m", "1", Some("x")).write("hé".as_bytes(), &mut out);
        let answer: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer, json!({"id": "x", "model_name": "m", "model_version": "1", "text_output": "hé"}));
    }
}
