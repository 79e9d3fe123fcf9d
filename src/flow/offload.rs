//! Long work, off the thread that all connections share.

/// Bytes from which work on them takes so long (a tenth of a millisecond and more) that others would notice.
const LONG: usize = 128 << 10;

/// Does `work` on that many bytes: here where that is short, on a thread for it where that is long.
///
/// # Cancellation
/// Work that has begun is carried to its end, for nobody.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes < LONG {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The task is never cancelled while somebody waits for it, so it panicked: the one that waits goes on with it.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
