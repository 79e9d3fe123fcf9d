//! The stock bridge, `pyo3-async-runtimes`, on Penstock's own runtime: for calls that are not hot.
//!
//! Its own runtime lives in a cell that can be neither stopped nor replaced after a fork, so it is given ours.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic;
use tokio::task::{self, JoinHandle};

use crate::runtime;

tokio::task_local! {
    static LOCALS: TaskLocals;
}

/// Penstock's runtime, as the stock bridge wants to see it.
pub(crate) struct Stock;

/// A task of the stock bridge; a runtime that cannot be started ends it at once.
pub(crate) struct Task(Option<JoinHandle<()>>);

/// The task panicked, was cancelled, or could not be started.
#[derive(Debug)]
pub(crate) struct TaskFailed(Option<task::JoinError>);

impl generic::JoinError for TaskFailed {
    fn is_panic(&self) -> bool {
        self.0.as_ref().is_some_and(task::JoinError::is_panic)
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        match self.0 {
            Some(error) => error.into_panic(),
            None => Box::new("the task never ran"),
        }
    }
}

impl Future for Task {
    type Output = Result<(), TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.as_mut() {
            Some(handle) => Pin::new(handle).poll(context).map_err(|error| TaskFailed(Some(error))),
            None => Poll::Ready(Err(TaskFailed(None))),
        }
    }
}

impl generic::Runtime for Stock {
    type JoinError = TaskFailed;
    type JoinHandle = Task;

    fn spawn<F: Future<Output = ()> + Send + 'static>(task: F) -> Task {
        Task(runtime::handle().ok().map(|handle| handle.spawn(task)))
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(work: F) -> Task {
        Task(runtime::handle().ok().map(|handle| handle.spawn_blocking(work)))
    }
}

impl generic::ContextExt for Stock {
    fn scope<F, R>(locals: TaskLocals, task: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, task))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(Clone::clone).ok()
    }
}

/// An awaitable for `work`, which runs on the runtime's thread and must not block it.
pub(crate) fn awaitable(
    py: Python<'_>,
    work: impl Future<Output = ()> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    generic::future_into_py::<Stock, _, ()>(py, async move {
        work.await;
        Ok(())
    })
}

/// An awaitable for `work`, which blocks a thread of its own until it has a value.
pub(crate) fn blocking<'py, T>(
    py: Python<'py>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    generic::future_into_py::<Stock, _, T>(py, async move {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = <Stock as generic::Runtime>::spawn_blocking(move || {
            // The awaiting side may have been cancelled: then nobody wants the value.
            let _ = sender.send(work());
        });
        drop(task);
        receiver.await.map_err(|_| {
            pyo3::exceptions::PyRuntimeError::new_err("penstock's runtime was shut down while it worked")
        })
    })
}
