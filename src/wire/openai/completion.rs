//! The parameters of `/v1/completions`: <https://platform.openai.com/docs/api-reference/completions/create>.

use serde_json::Value;

use super::fault::{INVALID, MISSING, UNSUPPORTED, refused};
use super::fields::{Fields, Table, Use, is_empty, is_false, is_one, is_zero, never};
use crate::error::Result;

/// The endpoint's parameters.
pub(super) const TABLE: &Table = &[
    ("model", Use::Read),
    ("prompt", Use::Read),
    ("max_tokens", Use::Read),
    ("temperature", Use::Read),
    ("top_p", Use::Read),
    ("n", Use::Read),
    ("stop", Use::Read),
    ("seed", Use::Read),
    ("stream", Use::Read),
    ("stream_options", Use::Read),
    ("user", Use::Read),
    ("metadata", Use::Read),
    ("best_of", Use::Unless(is_one)),
    ("echo", Use::Unless(is_false)),
    ("frequency_penalty", Use::Unless(is_zero)),
    ("logit_bias", Use::Unless(is_empty)),
    ("logprobs", Use::Unless(never)),
    ("presence_penalty", Use::Unless(is_zero)),
    ("suffix", Use::Unless(is_empty)),
];

/// The texts that are to be gone on with: at least one.
pub(super) fn prompts(fields: &Fields<'_>) -> Result<Vec<String>> {
    let prompts = texts(fields, "prompt")?;
    if prompts.is_empty() {
        return Err(refused("prompt", INVALID, "is an empty list: it must hold a text"));
    }
    Ok(prompts)
}

/// The texts of a parameter that is a text or a list of texts, and may hold tokens elsewhere.
pub(super) fn texts(fields: &Fields<'_>, name: &str) -> Result<Vec<String>> {
    let expected = "a text or a list of texts";
    let wrong = || refused(name, INVALID, format!("must be {expected}"));
    let parsed = fields.written(name).map(serde_json::from_str::<Value>);
    match parsed {
        None => Err(refused(name, MISSING, format!("is missing: it must be {expected}"))),
        Some(Ok(Value::String(text))) => Ok(vec![text]),
        Some(Ok(Value::Array(items))) => {
            let text = |item: Value| match item {
                Value::String(text) => Ok(text),
                Value::Number(_) | Value::Array(_) => {
                    let why = "as tokens is not supported: give texts, for no tokens are known here";
                    Err(refused(name, UNSUPPORTED, why))
                }
                _ => Err(wrong()),
            };
            items.into_iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prompts_are_texts() {
        let read = |prompt: Value| {
            let body = json!({ "prompt": prompt }).to_string();
            prompts(&Fields::parse(body.as_bytes(), TABLE).unwrap())
        };
        assert_eq!(read(json!("once")).unwrap(), ["once"]);
        assert_eq!(read(json!(["a", ""])).unwrap(), ["a", ""]);
        for (prompt, words) in [
            (json!(null), "prompt is missing"),
            (json!([]), "prompt is an empty list"),
            (json!([1, 2]), "prompt as tokens is not supported"),
            (json!([[1]]), "prompt as tokens is not supported"),
            (json!({"text": "x"}), "prompt must be a text"),
        ] {
            let error = read(prompt).unwrap_err();
            assert!(error.message().starts_with(words), "{error}");
        }
    }
}
