//! Answers in text: whole, or the events of a stream.

use std::borrow::Cow;

use serde_json::json;

/// What a text is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/v1/chat/completions`: a message.
    Chat,
    /// `/v1/completions`: a text.
    Completion,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompts, as far as the model says; 0 where it does not.
    pub prompt_tokens: u64,
    /// What the model gave, piece by piece.
    pub completion_tokens: u64,
}

/// Writes the parts of one answer as JSON.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    /// What every event of the stream begins with, up to the number of the choice.
    before: Vec<u8>,
    /// What it ends with, after the choice.
    after: &'static [u8],
    /// The choices of which something was said.
    begun: Vec<bool>,
}

impl Form {
    /// The beginning of the name of an answer.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl-",
            Self::Completion => "cmpl-",
        }
    }

    fn object(self, whole: bool) -> &'static str {
        match (self, whole) {
            (Self::Chat, true) => "chat.completion",
            (Self::Chat, false) => "chat.completion.chunk",
            (Self::Completion, _) => "text_completion",
        }
    }
}

impl Writer {
    /// An answer of that name, made at that time (in seconds since 1970), with so many choices; `usage` says that a stream
    /// ends with what it took.
    pub fn new(form: Form, (id, created): (&str, u64), model: &str, choices: usize, usage: bool) -> Self {
        let (id, model) = (json!(id), json!(model));
        let object = form.object(false);
        let before = format!(
            r#"{{"id":{id},"object":"{object}","created":{created},"model":{model},"choices":[{{"index":"#
        );
        let after = if usage { b"}],\"usage\":null}".as_slice() } else { b"}]}" };
        Self { form, before: before.into_bytes(), after, begun: vec![false; choices] }
    }

    /// An event: more of a choice's text.
    pub fn text(&mut self, choice: usize, text: &[u8], out: &mut Vec<u8>) {
        let first = self.begins(choice);
        self.open(choice, out);
        out.extend_from_slice(match (self.form, first) {
            (Form::Chat, true) => b",\"delta\":{\"role\":\"assistant\",\"content\":",
            (Form::Chat, false) => b",\"delta\":{\"content\":",
            (Form::Completion, _) => b",\"text\":",
        });
        put_text(out, text);
        if self.form == Form::Chat {
            out.push(b'}');
        }
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null");
        out.extend_from_slice(self.after);
    }

    /// An event: the end of a choice, and why.
    pub fn finish(&mut self, choice: usize, reason: &str, out: &mut Vec<u8>) {
        let first = self.begins(choice);
        self.open(choice, out);
        out.extend_from_slice(match (self.form, first) {
            (Form::Chat, true) => b",\"delta\":{\"role\":\"assistant\",\"content\":\"\"}",
            (Form::Chat, false) => b",\"delta\":{}",
            (Form::Completion, _) => b",\"text\":\"\"",
        });
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        put_text(out, reason.as_bytes());
        out.extend_from_slice(self.after);
    }

    /// The last event of a stream whose sender wants to know what it took.
    pub fn usage(&self, usage: Usage, out: &mut Vec<u8>) {
        let choices = b"{\"index\":";
        out.extend_from_slice(self.before.strip_suffix(choices).unwrap_or(&self.before));
        out.extend_from_slice(b"],\"usage\":");
        out.extend_from_slice(usage.shown().as_bytes());
        out.push(b'}');
    }

    fn begins(&mut self, choice: usize) -> bool {
        self.begun.get_mut(choice).is_some_and(|begun| !std::mem::replace(begun, true))
    }

    fn open(&self, choice: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(itoa::Buffer::new().format(choice).as_bytes());
    }
}

/// The body of a whole answer: the text of each choice, and why it ended.
pub fn whole(
    form: Form,
    (id, created): (&str, u64),
    model: &str,
    choices: &[(Vec<u8>, Cow<'_, str>)],
    usage: Usage,
) -> Vec<u8> {
    let (id, model, object) = (json!(id), json!(model), form.object(true));
    let mut out = Vec::with_capacity(300 + choices.iter().map(|(text, _)| text.len() + 120).sum::<usize>());
    let head = format!(r#"{{"id":{id},"object":"{object}","created":{created},"model":{model},"choices":["#);
    out.extend_from_slice(head.as_bytes());
    for (index, (text, reason)) in choices.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"index\":" } else { b"{\"index\":" });
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        out.extend_from_slice(match form {
            Form::Chat => b",\"message\":{\"role\":\"assistant\",\"content\":",
            Form::Completion => b",\"text\":",
        });
        put_text(&mut out, text);
        if form == Form::Chat {
            out.extend_from_slice(b",\"refusal\":null}");
        }
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        put_text(&mut out, reason.as_bytes());
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"usage\":");
    out.extend_from_slice(usage.shown().as_bytes());
    out.push(b'}');
    out
}

impl Usage {
    fn shown(self) -> String {
        let Self { prompt_tokens, completion_tokens } = self;
        let total = prompt_tokens.saturating_add(completion_tokens);
        format!(
            r#"{{"prompt_tokens":{prompt_tokens},"completion_tokens":{completion_tokens},"total_tokens":{total}}}"#
        )
    }
}

/// Writes a text as JSON; what is no UTF-8 in it becomes U+FFFD.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let written = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(text));
    debug_assert!(written.is_ok(), "a text always has a form in json, and memory takes all of it");
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn events_of_a_chat_are_what_openai_sends() {
        let mut writer = Writer::new(Form::Chat, ("chatcmpl-1", 7), "m\"", 2, false);
        let first = event(|out| writer.text(1, "hé\n".as_bytes(), out));
        let expected = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m\"",
            "choices": [{"index": 1, "delta": {"role": "assistant", "content": "hé\n"}, "logprobs": null,
            "finish_reason": null}]});
        assert_eq!(first, expected);
        let second = event(|out| writer.text(1, b"x", out));
        assert_eq!(second["choices"][0]["delta"], json!({"content": "x"}));
        let last = event(|out| writer.finish(1, "length", out));
        assert_eq!(
            (&last["choices"][0]["delta"], &last["choices"][0]["finish_reason"]),
            (&json!({}), &json!("length"))
        );
        let silent = event(|out| writer.finish(0, "stop", out));
        assert_eq!(silent["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    }

    #[test]
    fn usage_comes_last_where_it_is_wanted() {
        let mut writer = Writer::new(Form::Completion, ("cmpl-1", 7), "m", 1, true);
        let text = event(|out| writer.text(0, b"x", out));
        assert_eq!((&text["choices"][0]["text"], &text["usage"]), (&json!("x"), &Value::Null));
        let usage = event(|out| writer.usage(Usage { prompt_tokens: 2, completion_tokens: 3 }, out));
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"], json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}));
        assert_eq!(usage["object"], "text_completion");
    }

    #[test]
    fn a_whole_answer_has_all_choices() {
        let choices = [(b"a".to_vec(), "stop".into()), (vec![0xff], "length".into())];
        let body = whole(Form::Chat, ("chatcmpl-1", 7), "m", &choices, Usage::default());
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["object"], "chat.completion");
        let expected = json!({"index": 1, "message": {"role": "assistant", "content": "\u{fffd}", "refusal": null},
            "logprobs": null, "finish_reason": "length"});
        assert_eq!(answer["choices"][1], expected);
        let body = whole(Form::Completion, ("cmpl-1", 7), "m", &choices, Usage::default());
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&answer["object"], &answer["choices"][0]["text"]),
            (&json!("text_completion"), &json!("a"))
        );
    }
}
