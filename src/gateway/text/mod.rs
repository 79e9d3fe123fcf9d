//! Models of text, and of vectors of texts, on other servers: what comes to them goes there, and is answered as it comes.
//!
//! | file | its story |
//! |---|---|
//! | `talk` | a batch on its way: each request of it, until its end |
//! | `passing` | a request that is passed on as it came, and its answer |
//! | `asking` | a question for text, asked in the server's own words |
//! | `embedding` | texts of many requests in one |
//! | `exchange` | one request to the server, and what is read of its answer while it comes |
//! | `refusal` | answers that say that something is wrong |

mod asking;
mod embedding;
mod exchange;
mod passing;
mod refusal;
mod talk;

use std::sync::Arc;

use crate::client::{Client, Timeouts};
use crate::pipeline::{Carry, Carrying, Endpoint, Taken, Tally};

/// What a server of text speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextProtocol {
    /// OpenAI's API.
    OpenAi,
    /// The Open Inference Protocol's extension for text.
    Generate,
}

impl TextProtocol {
    /// That of the name: `openai` or `generate`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "openai" => Some(Self::OpenAi),
            "generate" => Some(Self::Generate),
            _ => None,
        }
    }
}

/// A model of text, or of vectors of texts, on other servers.
pub struct TextUpstream {
    /// What sends requests there.
    pub client: Arc<Client>,
    /// What they speak.
    pub protocol: TextProtocol,
    /// What stands before the paths of their API: nothing, or `/some/prefix`.
    pub prefix: String,
    /// What they call the model.
    pub model: String,
    /// The version that is asked for, where one is.
    pub version: Option<String>,
    /// Header fields of every request.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The time that a request may take.
    pub timeouts: Timeouts,
    /// Bytes of one event at most.
    pub max_event: usize,
    /// Bytes of an answer at most that comes as a whole.
    pub max_response: usize,
    /// Requests that may be under way at a time.
    pub concurrency: usize,
}

/// What carries the requests of a model to such servers.
pub struct TextRelay {
    upstream: Arc<TextUpstream>,
    endpoint: Arc<Endpoint>,
    /// Texts whose vectors are refused together are asked for in halves.
    isolate: bool,
    tally: Arc<dyn Tally>,
}

impl TextRelay {
    /// For the requests of that model.
    pub fn new(
        upstream: TextUpstream,
        endpoint: &Arc<Endpoint>,
        isolate: bool,
        tally: &Arc<dyn Tally>,
    ) -> Self {
        let (upstream, endpoint, tally) = (Arc::new(upstream), Arc::clone(endpoint), Arc::clone(tally));
        Self { upstream, endpoint, isolate, tally }
    }
}

impl Carry for TextRelay {
    fn carry(self: Arc<Self>, taken: Taken) -> Carrying {
        if talk::is_conversation(&self.endpoint, &taken) {
            return Box::pin(talk::talk(Arc::clone(&self.upstream), Arc::clone(&self.endpoint), taken));
        }
        let ends = (Arc::clone(&self.upstream), Arc::clone(&self.endpoint));
        Box::pin(embedding::embed(ends, taken, self.isolate, Arc::clone(&self.tally)))
    }

    fn room(&self) -> usize {
        self.upstream.concurrency
    }
}
