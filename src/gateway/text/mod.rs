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
use std::time::Duration;

use http::Method;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::Relayed;
use super::health::{self, Asked};
use crate::batch::Shift;
use crate::client::{Client, Request, RequestFields, Route, Timeouts};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Carry, Carrying, Endpoint, Relays, Taken, Tally};

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

/// How a model of text, or of vectors of texts, is asked on its other end.
pub struct TextSettings {
    /// What its servers speak.
    pub protocol: TextProtocol,
    /// What stands before the paths of their API: nothing, or `/some/prefix`.
    pub prefix: String,
    /// A path that they answer where they are ready.
    pub ready_path: String,
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
    /// How often they are asked whether they are ready; none for only when something failed.
    pub health_interval: Option<Duration>,
    /// Texts whose vectors are refused together are asked for in halves.
    pub isolate: bool,
}

/// A model of text, or of vectors of texts, on other servers, loaded.
pub struct TextUpstream {
    settings: TextSettings,
    client: Arc<Client>,
    endpoint: Arc<Endpoint>,
    doubt: Arc<Notify>,
    tally: Arc<dyn Tally>,
}

impl TextUpstream {
    /// Takes a model's requests upstream from here on, until the shift is over.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for paths and fields that no request can have, [`ErrorKind::Closed`] where the client is.
    pub fn start(
        client: &Arc<Client>,
        (endpoint, shift): (Arc<Endpoint>, Arc<Shift>),
        settings: TextSettings,
        tally: &Arc<dyn Tally>,
        runtime: &Handle,
    ) -> Result<Relayed> {
        let interval = settings.health_interval;
        let doubt = Arc::new(Notify::new());
        let upstream = Arc::new(Self {
            settings,
            client: Arc::clone(client),
            endpoint: Arc::clone(&endpoint),
            doubt: Arc::clone(&doubt),
            tally: Arc::clone(tally),
        });
        // What no request can have is said now.
        upstream.ready()?;
        endpoint.set_well(true);
        let watch = runtime.spawn(health::watch(Arc::clone(&upstream), doubt, interval)).abort_handle();
        Ok(Relayed::new(Relays::start((endpoint, shift), upstream, runtime), watch))
    }

    /// Has the other end looked at where a failure says something of it.
    fn consider(&self, error: &Error) {
        if health::raises_doubt(error.kind()) {
            self.doubt.notify_one();
        }
    }

    fn ready(&self) -> Result<(Route, Request)> {
        let (route, target) = self.client.route(&self.settings.ready_path)?;
        let mut request = Request::new(Method::GET, target);
        request.fields = self.fields(&std::iter::empty())?;
        Ok((route, request))
    }

    /// The fields of a request: its own, and those of every one.
    fn fields<'a>(
        &'a self,
        own: &(impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone),
    ) -> Result<RequestFields> {
        let every = self.settings.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        RequestFields::new(own, every)
    }
}

impl Asked for TextUpstream {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A server that answers at all is taken for ready, unless it says that something is wrong with it.
    async fn ask(&self, limit: Duration) -> Result<()> {
        let (route, mut request) = self.ready()?;
        request.timeouts = Timeouts { total: Some(limit), ..self.settings.timeouts };
        let response = Client::send(route, request).await?;
        if response.status.is_server_error() {
            let message = format!("{} answered {}", response.endpoint, response.status.as_u16());
            return Err(Error::new(ErrorKind::ModelNotReady, message));
        }
        Ok(())
    }
}

impl Carry for TextUpstream {
    fn carry(self: Arc<Self>, taken: Taken) -> Carrying {
        if talk::is_conversation(&self.endpoint, &taken) {
            Box::pin(talk::talk(self, taken))
        } else {
            Box::pin(embedding::embed(self, taken))
        }
    }

    fn room(&self) -> usize {
        self.settings.concurrency
    }
}
