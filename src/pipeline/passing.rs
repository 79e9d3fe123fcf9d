//! What models take as it came, who are servers elsewhere of the same protocol.

/// What of a model's requests is passed on as it is, and not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Requests of OpenAI's API. Where they are for vectors and ask for nothing but them, they are read all the same, and
    /// share requests to the server.
    OpenAi,
    /// Requests of OpenAI's API, all of them.
    EveryOpenAi,
    /// Requests of the Open Inference Protocol's extension for text.
    Generate,
}

impl Passing {
    /// That of the name: `openai`, `every-openai` or `generate`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "openai" => Some(Self::OpenAi),
            "every-openai" => Some(Self::EveryOpenAi),
            "generate" => Some(Self::Generate),
            _ => None,
        }
    }
}
