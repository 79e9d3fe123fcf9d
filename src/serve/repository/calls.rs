//! The calls of the repository, from the request to its answer, over either protocol.

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::access::NoAccess;
use super::{Repository, RepositoryAccess};
use crate::error::{Error, ErrorKind, Result};
use crate::serve::deadline::{Deadline, within};
use crate::serve::door::Door;
use crate::serve::routes::{self, Reply};
use crate::serve::words::Words;
use crate::wire::grpc::proto::inference::{
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
};
use crate::wire::grpc::{Status, framed};
use crate::wire::oip;

/// What is asked of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Wanted<'a> {
    Index,
    Load { name: &'a str },
    Unload { name: &'a str },
}

impl Wanted<'_> {
    fn changes(self) -> bool {
        self != Self::Index
    }
}

impl Door {
    /// The repository, as far as calls may use it: to change it, or to look at it.
    fn repository(&self, change: bool) -> std::result::Result<&Repository, NoAccess> {
        let repository = self.service.repository().ok_or(NoAccess::Off)?;
        match self.settings.repository {
            RepositoryAccess::Off => Err(NoAccess::Off),
            RepositoryAccess::ReadOnly if change => Err(NoAccess::ReadOnly),
            _ => Ok(repository),
        }
    }

    /// True where calls may use the repository.
    pub(in crate::serve) fn has_repository(&self) -> bool {
        self.repository(false).is_ok()
    }

    /// Answers a request whose body is here.
    ///
    /// # Errors
    /// What the repository refuses, or a load failed with; that its time has passed.
    pub(in crate::serve) async fn repository_reply(
        &self,
        wanted: Wanted<'_>,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Reply> {
        let repository = match self.repository(wanted.changes()) {
            Ok(repository) => repository,
            Err(refused) => return Ok(Words::Oip.refusal(refused.status(), refused.message())),
        };
        let deadline = Deadline::of_head(&parts.headers)?;
        let answered = within(deadline, self.repository_answer(repository, wanted, body)).await;
        match answered {
            // What contradicts the state of the server is not the server's fault.
            Err(error) if error.kind() == ErrorKind::Config => {
                Ok(Words::Oip.refusal(StatusCode::CONFLICT, error.message()))
            }
            answered => answered,
        }
    }

    async fn repository_answer(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
        body: Bytes,
    ) -> Result<Reply> {
        match wanted {
            Wanted::Index => {
                let ready = oip::index_request(&body)?;
                let entries = self.repository_listed(repository, ready).await;
                return Ok(routes::json(oip::index_body(&entries)));
            }
            Wanted::Load { name } => {
                oip::load_request(&body)?;
                self.poll(true).await;
                repository.load(&decoded_name(name)?).await?;
            }
            Wanted::Unload { name } => {
                let dependents = oip::unload_request(&body)?;
                repository.unload(&decoded_name(name)?, dependents).await?;
            }
        }
        Ok(routes::done())
    }

    /// The index, as it is after a look at what is new.
    async fn repository_listed(&self, repository: &Repository, ready: bool) -> Vec<oip::IndexEntry> {
        self.poll(false).await;
        let mut entries = repository.index(ready);
        if let Some(polls) = self.service.polls().filter(|_| !ready) {
            polls.complete(&mut entries);
        }
        entries
    }

    /// Has whoever looks for models that are new look for them, where there is somebody.
    async fn poll(&self, patient: bool) {
        if let Some(polls) = self.service.polls() {
            polls.ask(patient).await;
        }
    }

    /// Answers a call for the index.
    ///
    /// # Errors
    /// That there is none, or what the message asks for that is not there.
    pub(in crate::serve) async fn repository_index(
        &self,
        message: Bytes,
    ) -> std::result::Result<Bytes, Status> {
        let repository = self.repository(false)?;
        let ready = oip::index_request_message(&decoded(message)?)?;
        Ok(framed(&oip::index_message(self.repository_listed(repository, ready).await)))
    }

    /// Answers a call to load a model.
    ///
    /// # Errors
    /// What the repository refuses, or the load failed with.
    pub(in crate::serve) async fn repository_load(
        &self,
        message: Bytes,
    ) -> std::result::Result<Bytes, Status> {
        let repository = self.repository(true)?;
        let name = oip::load_request_message(decoded::<RepositoryModelLoadRequest>(message)?)?;
        self.poll(true).await;
        repository.load(&name).await?;
        Ok(framed(&RepositoryModelLoadResponse {}))
    }

    /// Answers a call to unload a model.
    ///
    /// # Errors
    /// What the repository refuses.
    pub(in crate::serve) async fn repository_unload(
        &self,
        message: Bytes,
    ) -> std::result::Result<Bytes, Status> {
        let repository = self.repository(true)?;
        let (name, dependents) =
            oip::unload_request_message(decoded::<RepositoryModelUnloadRequest>(message)?)?;
        repository.unload(&name, dependents).await?;
        Ok(framed(&RepositoryModelUnloadResponse {}))
    }
}

/// A name as a path carries it: clients escape what stands between name and version.
fn decoded_name(name: &str) -> Result<std::borrow::Cow<'_, str>> {
    percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| Error::new(ErrorKind::Item, "the name of the model is no text in utf-8"))
}

fn decoded<M: prost::Message + Default>(message: Bytes) -> std::result::Result<M, Status> {
    crate::serve::grpc::decoded(message)
}
