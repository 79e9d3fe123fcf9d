//! What is counted and noted of a call, once it has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::request::Parts;

use crate::serve::access::{Answered, Note};
use crate::serve::connection::OpenStream;
use crate::serve::door::Door;
use crate::wire::grpc::Code;

/// A call with a stream of answers. It is counted and noted when this is dropped: as cancelled, where it did not end.
pub(super) struct Account {
    door: Arc<Door>,
    request: Parts,
    peer: SocketAddr,
    note: Note,
    began: Instant,
    code: Code,
    bytes: u64,
    /// Bytes that have come.
    heard: Arc<AtomicU64>,
    /// The connection has a request open for as long.
    _open: OpenStream,
}

impl Account {
    pub(super) fn open(
        door: Arc<Door>,
        request: Parts,
        peer: SocketAddr,
        note: Note,
        open: OpenStream,
    ) -> Self {
        Self {
            door,
            request,
            peer,
            note,
            began: Instant::now(),
            code: Code::Cancelled,
            bytes: 0,
            heard: Arc::default(),
            _open: open,
        }
    }

    /// What is asked is counted there.
    pub(super) fn hears(&mut self, bytes: Arc<AtomicU64>) {
        self.heard = bytes;
    }

    /// Bytes of the answer are on their way.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The call has ended so.
    pub(super) fn end(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.door.metrics.called(self.code.name());
        let mut note = std::mem::take(&mut self.note);
        note.bytes = self.heard.load(Ordering::Relaxed);
        self.door.metrics.moved_by_call(note.bytes, self.bytes);
        if let Some(log) = self.door.reporter(&note) {
            let answered = Answered::called(self.code, self.bytes);
            let mut record = note.record(&self.request, Some(self.peer), &answered, self.began);
            record.logged = self.door.access_log.is_some();
            log.access(record);
        }
    }
}
