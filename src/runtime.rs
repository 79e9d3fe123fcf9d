//! The one tokio runtime of the process: a single named thread, started on first use, stopped on request.
//!
//! One thread is a choice, not a default: beside its load on two cores, a current-thread runtime beat two workers by a
//! third (`docs/architecture.md`), and more processes scale further than more threads.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// Locked for a moment only, and never across a wait: a fork between lock and unlock would leave it locked in the child.
static CURRENT: Mutex<Option<Arc<Running>>> = Mutex::new(None);

struct Running {
    handle: Handle,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the runtime, which is started if it does not run.
///
/// # Errors
/// [`ErrorKind::Internal`] where the operating system gives no thread or no event queue.
pub fn handle() -> Result<Handle> {
    let mut current = CURRENT.lock();
    if let Some(running) = current.as_ref() {
        return Ok(running.handle.clone());
    }
    let running = start()?;
    let handle = running.handle.clone();
    *current = Some(Arc::new(running));
    Ok(handle)
}

/// Runs a task on the runtime; its result is dropped.
///
/// # Errors
/// As [`handle`].
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    drop(handle()?.spawn(task));
    Ok(())
}

/// Stops the runtime and waits at most `limit` for its thread; answers whether it ended. A later use starts a new one.
pub fn shutdown(limit: Duration) -> bool {
    let Some(running) = CURRENT.lock().take() else {
        return true;
    };
    if let Some(stop) = running.stop.lock().take() {
        // The receiver is gone only when the thread has ended already.
        let _ = stop.send(());
    }
    let Some(thread) = running.thread.lock().take() else {
        return true;
    };
    let end = Instant::now() + limit;
    while !thread.is_finished() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.is_finished() && thread.join().is_ok()
}

/// Forgets the runtime in a forked child, where its thread does not exist. It is leaked: to drop it would wait for the
/// thread for ever.
pub fn forget_after_fork() {
    std::mem::forget(CURRENT.lock().take());
}

fn start() -> Result<Running> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("penstock-blocking")
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Internal, "no runtime could be made", error))?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("penstock-io".to_owned())
        .spawn(move || {
            // Either way, a stop or a dropped sender, the thread must end.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })
        .map_err(|error| Error::with_source(ErrorKind::Internal, "no thread could be made", error))?;
    Ok(Running { handle, stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_on_use_stops_on_request_and_starts_again() {
        for _ in 0..2 {
            let (sender, receiver) = std::sync::mpsc::channel();
            spawn(async move {
                let name = std::thread::current().name().map(str::to_owned);
                sender.send(name).unwrap();
            })
            .unwrap();
            let name = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(name.as_deref(), Some("penstock-io"));
            assert!(shutdown(Duration::from_secs(10)));
        }
        assert!(shutdown(Duration::ZERO), "nothing to stop is stopped");
    }
}
