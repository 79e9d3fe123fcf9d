//! `/v1/models`: <https://platform.openai.com/docs/api-reference/models>.

use serde_json::{Value, json};

/// A model that the protocol serves.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Since when it is served, in seconds since 1970.
    pub created: u64,
}

impl Listed<'_> {
    fn shown(self) -> Value {
        json!({ "id": self.name, "object": "model", "created": self.created, "owned_by": "penstock" })
    }
}

/// The body that tells of one model.
pub fn model_entry(model: Listed<'_>) -> Vec<u8> {
    model.shown().to_string().into_bytes()
}

/// The body that tells of all models.
pub fn model_list<'a>(models: impl Iterator<Item = Listed<'a>>) -> Vec<u8> {
    let data: Vec<_> = models.map(Listed::shown).collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_as_openai_lists_them() {
        let listed = Listed { name: "m", created: 7 };
        let one: Value = serde_json::from_slice(&model_entry(listed)).unwrap();
        assert_eq!(one, json!({"id": "m", "object": "model", "created": 7, "owned_by": "penstock"}));
        let all: Value = serde_json::from_slice(&model_list([listed].into_iter())).unwrap();
        assert_eq!(all, json!({"object": "list", "data": [one]}));
    }
}
