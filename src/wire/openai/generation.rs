//! A request for text: what is asked of the model, and what the answer must look like.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::answer::Form;
use super::ask::{Ask, Message, Terms, stops_of};
use super::fault::{INVALID, UNSUPPORTED, refused};
use super::fields::Fields;
use super::stop::Stops;
use super::{chat, completion};
use crate::error::Result;

/// Choices of one request at most.
const MOST_CHOICES: usize = 128;
/// Bytes that the questions of all choices of one request may have together, where there are several.
const MOST_BYTES: usize = 16 << 20;

/// A request for text.
#[derive(Debug)]
pub struct Generation {
    /// The model's name.
    pub model: String,
    /// What the sender calls the request, where the protocol has a place for it.
    pub id: Option<String>,
    /// What the model gets for each choice: a document.
    pub documents: Vec<Bytes>,
    /// Choices of each prompt; they lie side by side.
    pub each: usize,
    /// Tokens of a choice at most.
    pub max_tokens: u64,
    /// Texts that end a choice.
    pub stops: Arc<Stops>,
    /// True where the answer is to come as it is made.
    pub stream: bool,
    /// True where a stream is to say at its end what it took.
    pub include_usage: bool,
}

/// What is to be answered.
pub(super) enum Subject {
    Prompts(Vec<String>),
    Messages(Vec<Message>),
}

impl Generation {
    /// Reads the body of a request whose answer has that form.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the parameter and what it may be: one that is unknown,
    /// one that asks for what is not served, and a value that cannot be.
    pub fn parse(body: &[u8], form: Form) -> Result<Self> {
        let table = if form == Form::Chat { chat::TABLE } else { completion::TABLE };
        let fields = Fields::parse(body, table)?;
        let model: String = fields.must("model", "the name of a model")?;
        let subject = match form {
            Form::Chat => Subject::Messages(chat::messages(&fields)?),
            Form::Completion => Subject::Prompts(completion::prompts(&fields)?),
        };
        let terms = Terms::read(&fields)?;
        let expected = "a whole number between 1 and 128";
        let each = fields.read_where("n", expected, |n: &usize| (1..=MOST_CHOICES).contains(n))?.unwrap_or(1);
        let stream = fields.read("stream", "true or false")?.unwrap_or(false);
        let include_usage = include_usage(&fields, stream)?;
        let documents = documents(&model, &subject, &terms, each, stream)?;
        let stops = stops_of(&terms);
        Ok(Self {
            model,
            id: None,
            documents,
            each,
            max_tokens: terms.max_tokens,
            stops,
            stream,
            include_usage,
        })
    }
}

/// A document for each choice: those of the first prompt, those of the second, and so on.
fn documents(model: &str, subject: &Subject, terms: &Terms, each: usize, stream: bool) -> Result<Vec<Bytes>> {
    let (prompts, messages) = match subject {
        Subject::Prompts(prompts) => (prompts.iter().map(|prompt| Some(prompt.as_str())).collect(), None),
        Subject::Messages(messages) => (vec![None], Some(messages.as_slice())),
    };
    let count = each.saturating_mul(prompts.len());
    if count > MOST_CHOICES {
        let why =
            format!("={each} choices of {} prompts exceed {MOST_CHOICES} in one request", prompts.len());
        return Err(refused("n", INVALID, why));
    }
    let mut documents = Vec::with_capacity(count);
    let mut bytes = 0;
    for prompt in prompts {
        let mut first = None;
        for number in 0..each {
            let document = match &first {
                // Without a seed they differ by chance alone.
                Some(same) if terms.seed.is_none() => Bytes::clone(same),
                _ => {
                    let terms = terms.of_choice(number);
                    Bytes::from(Ask { model, prompt, messages, terms, stream }.document())
                }
            };
            bytes += document.len();
            if count > 1 && bytes > MOST_BYTES {
                let why = format!("={each}: the questions of all choices exceed {MOST_BYTES} bytes together");
                return Err(refused("n", INVALID, why));
            }
            first.get_or_insert_with(|| document.clone());
            documents.push(document);
        }
    }
    Ok(documents)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    #[serde(default)]
    include_obfuscation: Option<bool>,
}

fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool> {
    let expected = "an object with include_usage, true or false";
    let options: Option<StreamOptions> = fields.read("stream_options", expected)?;
    let Some(options) = options else { return Ok(false) };
    if !stream {
        return Err(refused("stream_options", INVALID, "is for a stream: it needs stream=true"));
    }
    if options.include_obfuscation == Some(true) {
        let name = "stream_options.include_obfuscation";
        return Err(refused(name, UNSUPPORTED, "=true is not supported"));
    }
    Ok(options.include_usage.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Fault;
    use super::*;

    fn parsed(form: Form, body: &Value) -> Result<Generation> {
        Generation::parse(body.to_string().as_bytes(), form)
    }

    fn document(generation: &Generation, at: usize) -> Value {
        serde_json::from_slice(&generation.documents[at]).unwrap()
    }

    /// The parameter that is blamed, and the words.
    fn blamed(form: Form, body: &Value) -> (String, String) {
        let error = parsed(form, body).unwrap_err();
        let fault = std::error::Error::source(&error).unwrap().downcast_ref::<Fault>().unwrap();
        (fault.parameter.clone(), error.to_string())
    }

    #[test]
    fn the_model_gets_what_was_asked_and_what_is_usual() {
        let chat =
            parsed(Form::Chat, &json!({"model": "m", "messages": [{"role": "user", "content": "hé"}]}))
                .unwrap();
        assert_eq!((chat.stream, chat.include_usage, chat.max_tokens), (false, false, 2048));
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "hé"}], "max_tokens": 2048,
            "temperature": 1.0, "top_p": 1.0, "stop": [], "seed": null, "metadata": {}, "user": null, "stream": false});
        assert_eq!(document(&chat, 0), expected);
        let all = json!({"model": "m", "prompt": "once", "max_tokens": 5, "temperature": 0, "top_p": 0.5,
            "stop": "\n", "seed": -3, "metadata": {"a": "b"}, "user": "u", "stream": true,
            "stream_options": {"include_usage": true}, "logit_bias": {}, "best_of": 1, "echo": false,
            "presence_penalty": 0.0, "suffix": null});
        let completion = parsed(Form::Completion, &all).unwrap();
        assert!(completion.stream && completion.include_usage);
        let expected = json!({"model": "m", "prompt": "once", "max_tokens": 5, "temperature": 0.0, "top_p": 0.5,
            "stop": ["\n"], "seed": -3, "metadata": {"a": "b"}, "user": "u", "stream": true});
        assert_eq!(document(&completion, 0), expected);
    }

    #[test]
    fn every_choice_has_a_document_and_a_seed_of_its_own() {
        let body = json!({"model": "m", "prompt": ["a", "b"], "n": 2, "seed": 7});
        let asked = parsed(Form::Completion, &body).unwrap();
        let each: Vec<_> = (0..4).map(|at| document(&asked, at)).collect();
        let seen: Vec<_> =
            each.iter().map(|one| (one["prompt"].as_str().unwrap(), one["seed"].as_i64())).collect();
        assert_eq!(seen, [("a", Some(7)), ("a", Some(8)), ("b", Some(7)), ("b", Some(8))]);
        let many = json!({"model": "m", "prompt": ["a", "b"], "n": 65});
        assert_eq!(blamed(Form::Completion, &many).0, "n");
        let large = json!({"model": "m", "prompt": "x".repeat(1 << 20), "n": 20});
        assert!(blamed(Form::Completion, &large).1.contains("16777216 bytes"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let with = |name: &str, value: Value| {
            let mut body =
                json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true});
            body[name] = value;
            body
        };
        for (name, value, words) in [
            ("temperature", json!(2.1), "must be a number between 0 and 2, not 2.1"),
            ("temperature", json!("hot"), "must be a number"),
            ("top_p", json!(-0.1), "between 0 and 1"),
            ("max_tokens", json!(0), "at least 1"),
            ("max_completion_tokens", json!(1.5), "at least 1"),
            ("n", json!(0), "between 1 and 128"),
            ("stop", json!(["a", "b", "c", "d", "e"]), "up to 4"),
            ("stop", json!([""]), "none of them empty"),
            ("seed", json!("x"), "a whole number"),
            ("metadata", json!({"a": 1}), "up to 16"),
            ("stream", json!("yes"), "true or false"),
            ("stream_options", json!({"colour": 1}), "include_usage"),
            ("logprobs", json!(true), "is not supported"),
            ("tools", json!([{"type": "function"}]), "is not supported"),
            ("response_format", json!({"type": "json_object"}), "is not supported"),
            ("frequency_penalty", json!(0.5), "is not supported"),
            ("temprature", json!(1), "is no parameter"),
            ("model", json!(null), "is missing"),
            ("messages", json!(null), "is missing"),
        ] {
            let (parameter, message) = blamed(Form::Chat, &with(name, value));
            assert_eq!(parameter, name);
            assert!(message.contains(words), "{message}");
        }
        let body = json!({"model": "m", "prompt": "x", "stream_options": {"include_usage": true}});
        assert_eq!(blamed(Form::Completion, &body).0, "stream_options");
        let two = json!({"model": "m", "messages": [], "max_tokens": 1, "max_completion_tokens": 2});
        assert_eq!(blamed(Form::Chat, &two).0, "messages");
    }
}
