//! The parameters of `/v1/chat/completions`: <https://platform.openai.com/docs/api-reference/chat/create>.

use serde::Deserialize;
use serde_json::Value;

use super::ask::Message;
use super::fault::{INVALID, MISSING, UNSUPPORTED, refused};
use super::fields::{Fields, Table, Use, is_empty, is_false, is_zero, never};
use crate::error::Result;

/// The endpoint's parameters.
pub(super) const TABLE: &Table = &[
    ("model", Use::Read),
    ("messages", Use::Read),
    ("max_tokens", Use::Read),
    ("max_completion_tokens", Use::Read),
    ("temperature", Use::Read),
    ("top_p", Use::Read),
    ("n", Use::Read),
    ("stop", Use::Read),
    ("seed", Use::Read),
    ("stream", Use::Read),
    ("stream_options", Use::Read),
    ("user", Use::Read),
    ("metadata", Use::Read),
    ("prompt_cache_key", Use::Passed),
    ("safety_identifier", Use::Passed),
    ("audio", Use::Unless(never)),
    ("frequency_penalty", Use::Unless(is_zero)),
    ("function_call", Use::Unless(is_no_tool)),
    ("functions", Use::Unless(is_empty)),
    ("logit_bias", Use::Unless(is_empty)),
    ("logprobs", Use::Unless(is_false)),
    ("modalities", Use::Unless(|value| *value == Value::from(vec!["text"]))),
    ("moderation", Use::Unless(never)),
    ("parallel_tool_calls", Use::Unless(Value::is_boolean)),
    ("prediction", Use::Unless(never)),
    ("presence_penalty", Use::Unless(is_zero)),
    ("prompt_cache_options", Use::Unless(never)),
    ("prompt_cache_retention", Use::Unless(never)),
    ("reasoning_effort", Use::Unless(|value| value == "none")),
    ("response_format", Use::Unless(|value| value["type"] == "text")),
    ("service_tier", Use::Unless(|value| value == "auto" || value == "default")),
    ("store", Use::Unless(is_false)),
    ("tool_choice", Use::Unless(is_no_tool)),
    ("tools", Use::Unless(is_empty)),
    ("top_logprobs", Use::Unless(is_zero)),
    ("verbosity", Use::Unless(|value| value == "medium")),
    ("web_search_options", Use::Unless(never)),
];

/// The roles of a conversation without tools.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// Without tools, none is chosen.
fn is_no_tool(value: &Value) -> bool {
    value == "none" || value == "auto"
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    role: Value,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    name: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// The conversation of a request: at least one message.
pub(super) fn messages(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let expected = "a list of messages, at least one, each with role and content";
    let given: Vec<Given> = fields.must("messages", expected)?;
    if given.is_empty() {
        return Err(refused("messages", INVALID, format!("is empty: it must be {expected}")));
    }
    given.into_iter().enumerate().map(|(at, given)| message(at, given)).collect()
}

fn message(at: usize, given: Given) -> Result<Message> {
    let place = |part: &str| format!("messages[{at}].{part}");
    let role = given.role.as_str().unwrap_or_default();
    if !ROLES.contains(&role) {
        let why = match &given.role {
            Value::Null => format!("is missing: it must be one of {ROLES:?}"),
            other => format!("must be one of {ROLES:?}, not {other}"),
        };
        return Err(refused(&place("role"), INVALID, why));
    }
    let asks_for_more = |value: &Value| !value.is_null() && !is_empty(value);
    if let Some((name, _)) = given.others.iter().find(|(_, value)| asks_for_more(value)) {
        return Err(refused(
            &place(name),
            UNSUPPORTED,
            "is not supported: messages have role, content and name",
        ));
    }
    let content = match given.content {
        Value::String(text) => text,
        Value::Array(parts) => joined(at, &parts)?,
        Value::Null if role == "assistant" => String::new(),
        Value::Null => return Err(refused(&place("content"), MISSING, "is missing: it must be a text")),
        _ => return Err(refused(&place("content"), INVALID, "must be a text or a list of parts")),
    };
    Ok(Message { role: role.to_owned(), content, name: given.name })
}

/// The text of a message in parts.
fn joined(at: usize, parts: &[Value]) -> Result<String> {
    let mut content = String::new();
    for (number, part) in parts.iter().enumerate() {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(text)) => content.push_str(text),
            (kind, _) => {
                let kind = kind.unwrap_or("none").chars().take(40).collect::<String>();
                let why =
                    format!("of type '{kind}' is not supported: parts of type 'text', with a text, are");
                return Err(refused(&format!("messages[{at}].content[{number}]"), UNSUPPORTED, why));
            }
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: &Value) -> Result<Vec<Message>> {
        let body = json!({ "messages": messages }).to_string();
        self::messages(&Fields::parse(body.as_bytes(), TABLE).unwrap())
    }

    #[test]
    fn texts_in_parts_are_joined() {
        let read = read(&json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": null, "refusal": null},
            {"role": "user", "content": "c", "name": "one"},
        ]))
        .unwrap();
        let shown: Vec<_> = read.iter().map(|one| (one.role.as_str(), one.content.as_str())).collect();
        assert_eq!(shown, [("developer", "ab"), ("assistant", ""), ("user", "c")]);
        assert_eq!(read[2].name.as_deref(), Some("one"));
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        for (messages, words) in [
            (json!([]), "messages is empty"),
            (json!("hello"), "messages must be a list"),
            (json!([{"content": "x"}]), "messages[0].role is missing"),
            (json!([{"role": "tool", "content": "x"}]), "messages[0].role must be one of"),
            (json!([{"role": "user"}]), "messages[0].content is missing"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content must be a text"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
                "messages[0].content[0] of type 'image_url' is not supported",
            ),
            (
                json!([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]),
                "messages[0].tool_calls is not supported",
            ),
        ] {
            let error = read(&messages).unwrap_err();
            assert!(error.message().starts_with(words), "{error}");
        }
    }
}
