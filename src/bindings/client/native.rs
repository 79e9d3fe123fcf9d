//! The thin class: arguments in, futures and answers out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyList};

use super::courier::{Courier, Errand, Manner as Sending, Waits};
use super::inference::{Manner, OverHttp};
use super::many::{Gathered, NativeMany};
use super::settings::{Settings, Times, timeouts};
use super::upload::{NativePending, NativeUpload};
use crate::bindings::bridge::lifecycle::generation;
use crate::bindings::bridge::port::Port;
use crate::bindings::bridge::stock;
use crate::bindings::errors::{raised, to_python};
use crate::bindings::waiter::{Parked, SIGNAL_CHECK};
use crate::client::{
    Client, ClientSettings, GrpcCall, Request, RequestFields, Route, StreamMemory, StreamSettings, Timeouts,
};
use crate::error::{ErrorKind, Result as CoreResult};
use crate::pool::Place;
use crate::runtime;

/// May be sent again although its method says otherwise.
const IDEMPOTENT: u8 = 1;
/// Is never sent again.
const NO_RETRIES: u8 = 2;
/// The content coding of its answer stays.
const RAW: u8 = 4;
/// The time-outs of its body are those of other clients: of bytes, and the first came with the head.
const BY_BYTES: u8 = 8;

/// May be sent again where a connection that had served before broke without a word.
const AGAIN_IF_SILENT: u8 = 16;

pub(super) type Headers = Vec<(PyBackedBytes, PyBackedBytes)>;

/// A request as Python hands it over: method, URL, headers, body, time-outs, options.
type Asked = (String, String, Option<Headers>, Option<Sent>, Option<Times>, u8);

/// A body as Python hands it over.
#[derive(FromPyObject)]
pub(super) enum Sent {
    /// Whole.
    Whole(PyBackedBytes),
    /// Made while it is sent.
    Pieces(Py<NativeUpload>),
}

/// The native half of `penstock.AsyncClient` and `penstock.Client`, which document it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeClient {
    urls: Vec<String>,
    settings: ClientSettings,
    defaults: Vec<(Vec<u8>, Vec<u8>)>,
    /// The fields of a request that names none.
    fields: RequestFields,
    timeouts: Timeouts,
    streams: StreamSettings,
    decode: bool,
    max_response: usize,
    /// With the generation that it belongs to: a forked child makes its own.
    courier: Mutex<Option<(u64, Arc<Courier>)>>,
    recent: Mutex<Option<Py<Port>>>,
    closed: AtomicBool,
}

#[pymethods]
impl NativeClient {
    #[new]
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn new(py: Python<'_>, urls: Vec<String>, settings: Settings) -> PyResult<Self> {
        let made = || -> CoreResult<Self> {
            let client = settings.client()?;
            let defaults = settings.headers.clone();
            Ok(Self {
                fields: fields::<Vec<u8>>(&[], &defaults)?,
                timeouts: timeouts(settings.timeout)?,
                streams: settings.streams(),
                decode: settings.decompress,
                max_response: settings.max_response.unwrap_or(usize::MAX),
                courier: Mutex::new(None),
                recent: Mutex::new(None),
                closed: AtomicBool::new(false),
                settings: client,
                urls,
                defaults,
            })
        };
        let client = made().map_err(|error| to_python(py, &error))?;
        // What is wrong with the settings is said here, not at the first request.
        client.courier(py)?;
        Ok(client)
    }

    /// A future of the running loop for the answer.
    #[pyo3(signature = (method, url, headers, body, timeout, options))]
    #[allow(clippy::too_many_arguments, reason = "a dictionary would cost more than the request")]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
    ) -> PyResult<Bound<'py, PyAny>> {
        let courier = self.courier(py)?;
        let asked = self.request(py, &courier, method, url, headers, body, timeout, options)?;
        self.on_the_loop(py, &courier, asked, Sending::Whole)
    }

    /// As `submit`, for an answer whose body is read as it comes. `place` says where the caller is.
    #[pyo3(signature = (method, url, headers, body, timeout, options, place=None))]
    #[allow(clippy::too_many_arguments, reason = "as submit has them")]
    fn stream<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
        place: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let courier = self.courier(py)?;
        let asked = self.request(py, &courier, method, url, headers, body, timeout, options)?;
        self.on_the_loop(py, &courier, asked, streamed(place, options))
    }

    /// Blocks until the answer is there, with the lock given back; Ctrl-C gives the request up.
    #[pyo3(signature = (method, url, headers, body, timeout, options))]
    #[allow(clippy::too_many_arguments, reason = "a dictionary would cost more than the request")]
    fn submit_blocking<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
    ) -> PyResult<Bound<'py, PyAny>> {
        let courier = self.courier(py)?;
        let asked = self.request(py, &courier, method, url, headers, body, timeout, options)?;
        in_a_thread(py, &courier, asked, Sending::Whole)
    }

    /// As `submit_blocking`, for an answer whose body is read as it comes.
    #[pyo3(signature = (method, url, headers, body, timeout, options, place=None))]
    #[allow(clippy::too_many_arguments, reason = "as submit has them")]
    fn stream_blocking<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
        place: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let courier = self.courier(py)?;
        let asked = self.request(py, &courier, method, url, headers, body, timeout, options)?;
        in_a_thread(py, &courier, asked, streamed(place, options))
    }

    /// Sends a request and does not wait: whoever makes its body does so meanwhile. With `place`, its answer is read as it
    /// comes.
    #[pyo3(signature = (method, url, headers, body, timeout, options, place=None))]
    #[allow(clippy::too_many_arguments, reason = "as submit has them")]
    fn begin(
        &self,
        py: Python<'_>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
        place: Option<String>,
    ) -> PyResult<NativePending> {
        let courier = self.courier(py)?;
        let (route, request) = self.request(py, &courier, method, url, headers, body, timeout, options)?;
        let how = if place.is_some() { streamed(place, options) } else { Sending::Whole };
        Ok(NativePending::start(&courier, route, request, how))
    }

    /// Sends many requests in one crossing.
    fn submit_many(&self, py: Python<'_>, requests: Vec<Asked>, stop_on_error: bool) -> PyResult<NativeMany> {
        let courier = self.courier(py)?;
        let mut prepared = Vec::with_capacity(requests.len());
        for (method, url, headers, body, timeout, options) in requests {
            prepared.push(self.request(py, &courier, &method, &url, headers, body, timeout, options)?);
        }
        let gathered = Gathered::new(prepared, stop_on_error, Arc::clone(&courier));
        courier.put_many(Arc::clone(&gathered));
        courier.send();
        Ok(NativeMany { gathered, recent: Mutex::new(None) })
    }

    /// Gives up the request of that future of the running loop.
    fn cancel(&self, py: Python<'_>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let port = Port::current(py, &self.recent)?;
        let shared = &port.get().shared;
        if let Some(slot) = shared.slot_of(future) {
            let address = Waits::Future { port: Arc::clone(shared), slot }.address();
            // The slot is free when the request has said that it came to nothing: until then its number is its own.
            self.courier(py)?.cancel(address);
        }
        Ok(())
    }

    /// One dictionary for each endpoint.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        super::report::counters(py, &self.courier(py)?.client)
    }

    /// What all streams have come to.
    fn streams<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        super::report::streams(py, self.courier(py)?.streams.now())
    }

    /// Who waits, for what, and who holds what for long: one dictionary for each endpoint.
    fn explain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        super::report::explain(py, &self.courier(py)?.client)
    }

    /// What the pools count, as OpenMetrics.
    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        Ok(crate::client::metrics_text(&self.courier(py)?.client))
    }

    /// Refuses new requests and closes what is idle; requests that are out go on.
    fn begin_close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.closed.swap(true, Ordering::Relaxed) {
            let courier = self.courier(py)?;
            courier.client.close();
            courier.stop();
        }
        Ok(())
    }

    /// Gives up what is out, after `begin_close`: whoever waits for it gets `Closed`.
    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        self.courier(py)?.cancel_all();
        Ok(())
    }

    /// True once closing has begun.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Blocks until the last connection is closed, at most so many seconds; answers whether that came.
    fn wait_closed(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let end =
            Duration::try_from_secs_f64(seconds).ok().and_then(|limit| Instant::now().checked_add(limit));
        Ok(self.watch_closed(py)?.wait_for(py, end)?.is_some())
    }

    /// As `wait_closed`, awaitable.
    fn wait_closed_async<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_hours(8760));
        let parked = self.watch_closed(py)?;
        stock::blocking(py, move || {
            let end = Instant::now() + limit;
            loop {
                parked.wait(end.saturating_duration_since(Instant::now()).min(SIGNAL_CHECK));
                let closed = parked.take().is_some();
                if closed || Instant::now() >= end {
                    return closed;
                }
            }
        })
    }
}

/// What a gateway has of a client.
pub(crate) struct Lent {
    pub(crate) client: Arc<Client>,
    /// The header fields of its requests.
    pub(crate) defaults: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_response: usize,
    pub(crate) health_interval: Option<Duration>,
}

impl NativeClient {
    /// The core's client, for the runtime to use.
    pub(crate) fn lent(&self, py: Python<'_>) -> PyResult<Lent> {
        Ok(Lent {
            client: Arc::clone(&self.courier(py)?.client),
            defaults: self.defaults.clone(),
            timeouts: self.timeouts,
            max_response: self.max_response,
            health_interval: self.settings.pool.health_interval,
        })
    }

    /// This process's way to the runtime.
    pub(super) fn courier(&self, py: Python<'_>) -> PyResult<Arc<Courier>> {
        let now = generation();
        let mut courier = self.courier.lock();
        if let Some((born, courier)) = courier.as_ref()
            && *born == now
        {
            return Ok(Arc::clone(courier));
        }
        let started = runtime::handle()
            .and_then(|handle| Client::new(&self.urls, self.settings.clone(), handle))
            .and_then(|client| Courier::start(client, StreamMemory::new(self.streams)))
            .map_err(|error| to_python(py, &error))?;
        if self.closed() {
            started.client.close();
            started.stop();
        }
        // The parent's has no threads here, and to drop it would wait for them.
        std::mem::forget(courier.replace((now, Arc::clone(&started))));
        Ok(started)
    }

    /// A request and where it goes.
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "as submit has them")]
    fn request(
        &self,
        py: Python<'_>,
        courier: &Arc<Courier>,
        method: &str,
        url: &str,
        headers: Option<Headers>,
        body: Option<Sent>,
        timeout: Option<Times>,
        options: u8,
    ) -> PyResult<(Route, Request)> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| raised(py, ErrorKind::Config, &format!("{method:?} is no method of HTTP")))?;
        let fields = match headers {
            None => Ok(self.fields.clone()),
            Some(headers) => fields(&headers, &self.defaults),
        };
        let python = |error| to_python(py, &error);
        let fields = fields.map_err(python)?;
        let timeouts = timeout.map_or(Ok(self.timeouts), timeouts).map_err(python)?;
        let (route, target) = courier.client.route(url).map_err(python)?;
        let idempotent = options & IDEMPOTENT != 0 || method.is_idempotent() || fields.has("idempotency-key");
        let request = Request {
            http: true,
            grpc: None,
            method,
            target,
            fields,
            body: match &body {
                Some(Sent::Whole(body)) => Bytes::copy_from_slice(body),
                _ => Bytes::new(),
            },
            pieces: match &body {
                Some(Sent::Pieces(upload)) => Some(upload.get().pieces(py, courier)?),
                _ => None,
            },
            timeouts,
            idempotent,
            again_if_silent: options & AGAIN_IF_SILENT != 0,
            retries: options & NO_RETRIES == 0,
            decode: self.decode && options & RAW == 0,
            max_response: self.max_response,
        };
        Ok((route, request))
    }

    /// A call of gRPC, with a form for HTTP or without, and where it goes: to the client's own endpoints.
    pub(super) fn call(
        &self,
        py: Python<'_>,
        courier: &Arc<Courier>,
        call: GrpcCall,
        http: Option<OverHttp>,
        (metadata, timeout, options): Manner,
    ) -> PyResult<(Route, Request)> {
        let (method, url, headers, body) = match http {
            Some((method, url, headers, body)) => {
                (method, url, headers.or(metadata), Some(Sent::Whole(body)))
            }
            None => ("POST".to_owned(), call.path.to_string(), metadata, None),
        };
        let is_http = body.is_some();
        let asked = self.request(py, courier, &method, &url, headers, body, timeout, options)?;
        let (route, request) = asked;
        Ok((route, Request { http: is_http, grpc: Some(call), ..request }))
    }

    pub(super) fn on_the_loop<'py>(
        &self,
        py: Python<'py>,
        courier: &Arc<Courier>,
        (route, request): (Route, Request),
        how: Sending,
    ) -> PyResult<Bound<'py, PyAny>> {
        let port = Port::current(py, &self.recent)?;
        let (future, slot) = port.get().new_future(py)?;
        let recipient = courier.recipient(Waits::Future { port: Arc::clone(&port.get().shared), slot });
        courier.put(Errand { route, request, manner: how, recipient });
        port.get().touch(py, courier)?;
        Ok(future)
    }

    fn watch_closed(&self, py: Python<'_>) -> PyResult<Arc<Parked<()>>> {
        let client = Arc::clone(&self.courier(py)?.client);
        let parked = Arc::new(Parked::default());
        let told = Arc::clone(&parked);
        let watched = runtime::spawn(async move {
            client.closed().await;
            told.answer(());
        });
        watched.map_err(|error| to_python(py, &error))?;
        Ok(parked)
    }
}

impl Drop for NativeClient {
    fn drop(&mut self) {
        if let Some((born, courier)) = self.courier.lock().take() {
            if born == generation() {
                courier.client.close();
                courier.stop();
            } else {
                std::mem::forget(courier);
            }
        }
    }
}

pub(super) fn in_a_thread<'py>(
    py: Python<'py>,
    courier: &Arc<Courier>,
    (route, request): (Route, Request),
    how: Sending,
) -> PyResult<Bound<'py, PyAny>> {
    let parked = Arc::new(Parked::default());
    let waits = Waits::Thread(Arc::clone(&parked));
    let address = waits.address();
    courier.put(Errand { route, request, manner: how, recipient: courier.recipient(waits) });
    courier.send();
    let answered = parked.wait_for(py, None).inspect_err(|_| courier.cancel(address))?;
    let nothing = || raised(py, ErrorKind::Internal, "a wait without an end has ended");
    answered.ok_or_else(nothing)?.object(py)
}

fn fields<T: AsRef<[u8]>>(named: &[(T, T)], defaults: &[(Vec<u8>, Vec<u8>)]) -> CoreResult<RequestFields> {
    let named = named.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let defaults = defaults.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    RequestFields::new(&named, defaults)
}

fn streamed(place: Option<String>, options: u8) -> Sending {
    Sending::Streamed { place: named(place), by_bytes: options & BY_BYTES != 0 }
}

pub(super) fn named(place: Option<String>) -> Place {
    place.map_or(Place::Unknown, |place| Place::from(Arc::<str>::from(place)))
}
