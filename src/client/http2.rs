//! HTTP/2: comes.
use super::connection::HttpConnector;
use super::http1::Lost;
use super::io::Stream;
use super::request::Request;
use crate::error::Result;
use crate::pool::Condition;
use bytes::Bytes;
/// s
#[derive(Debug, Clone, Copy, Default)]
pub struct Http2Settings {
    /// s
    pub streams: usize,
}
pub(super) struct Http2;
pub(super) struct Http2Body;
impl Http2 {
    pub(super) async fn handshake(_: Stream, _: Http2Settings) -> Result<Self> {
        Ok(Self)
    }
    pub(super) fn capacity(&self) -> usize {
        1
    }
    pub(super) fn condition(&self) -> Condition {
        Condition::Usable
    }
    pub(super) async fn send(
        &self,
        _: &Request,
        _: &HttpConnector,
    ) -> std::result::Result<(http::response::Parts, Http2Body), Lost> {
        unimplemented!()
    }
}
impl Http2Body {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }
}
