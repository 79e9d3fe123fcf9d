//! Requests from within the process: run on the I/O thread, waited for here.

use std::future::Future;
use std::sync::mpsc::RecvTimeoutError;

use pyo3::prelude::*;

use super::bridge::lock;
use super::errors::{raised, to_python};
use super::waiter::SIGNAL_CHECK;
use crate::error::ErrorKind;
use crate::metrics::LockCounts;
use crate::runtime;

/// Runs a future on the I/O thread and waits for its value without the interpreter lock; Ctrl-C ends the waiting, and
/// with it the future.
pub(crate) fn ask<T: Send + 'static>(
    py: Python<'_>,
    asked: impl Future<Output = T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = std::sync::mpsc::channel();
    let runtime = runtime::handle().map_err(|error| to_python(py, &error))?;
    let task = runtime.spawn(async move {
        // The receiver is gone where Ctrl-C ended the waiting.
        let _ = sender.send(asked.await);
    });
    loop {
        // Exclusive, because a receiver is for one thread at a time.
        let receiver = &mut receiver;
        match lock::without(py, &LockCounts::new(), move || receiver.recv_timeout(SIGNAL_CHECK)) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| task.abort())?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(raised(py, ErrorKind::Closed, "penstock was shut down while it worked on this"));
            }
        }
    }
}
