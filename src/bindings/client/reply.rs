//! Answers as Python sees them: made in the thread that asked, from what the runtime sent over.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::duplex::{Flows, NativeInferStream};
use super::inference::answer_object;
use super::inflow::Inflow;
use super::stream::NativeStream;
use crate::bindings::bridge::port::Reply;
use crate::bindings::errors::to_python;
use crate::client::Response;
use crate::error::Result as CoreResult;
use crate::wire::oip::InferAnswer;

/// What comes of a request.
pub(crate) enum Answered {
    /// A whole answer.
    Whole(CoreResult<Box<Response>>),
    /// An answer whose body still comes.
    Begun(CoreResult<Box<(Response, Arc<Inflow>)>>),
    /// A stream that is open.
    Opened(CoreResult<Box<Flows>>),
    /// Many answers, in the order of their requests.
    Many(Vec<CoreResult<Box<Response>>>),
}

impl Answered {
    /// The object that the answer is, or the exception to raise.
    pub(crate) fn object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Whole(Ok(response)) => NativeResponse::new(py, *response).map(Bound::into_any),
            Self::Begun(Ok(begun)) => {
                let (response, inflow) = *begun;
                NativeStream::new(py, response, inflow).map(Bound::into_any)
            }
            Self::Opened(Ok(flows)) => NativeInferStream::new(py, *flows).map(Bound::into_any),
            Self::Many(answers) => {
                let list = PyList::empty(py);
                for answer in answers {
                    match answer {
                        Ok(response) => list.append(NativeResponse::new(py, *response)?)?,
                        Err(error) => list.append(to_python(py, &error).into_value(py))?,
                    }
                }
                Ok(list.into_any())
            }
            Self::Whole(Err(error)) | Self::Begun(Err(error)) | Self::Opened(Err(error)) => {
                Err(to_python(py, &error))
            }
        }
    }
}

impl Reply for Answered {
    fn into_python(self: Box<Self>, py: Python<'_>) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
        Ok(self.object(py).map_err(|error| error.into_value(py).into_bound(py).into_any()))
    }
}

/// An answer, without its Python face.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeResponse {
    response: Response,
    content: PyOnceLock<Py<PyBytes>>,
}

impl NativeResponse {
    pub(crate) fn new(py: Python<'_>, response: Response) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self { response, content: PyOnceLock::new() })
    }
}

#[pymethods]
impl NativeResponse {
    #[getter]
    fn status(&self) -> u16 {
        self.response.status.as_u16()
    }

    #[getter]
    fn http_version(&self) -> &'static str {
        if self.response.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }
    }

    #[getter]
    fn reason(&self) -> &str {
        let said = self.response.fields.reason();
        if said.is_empty() { self.response.status.canonical_reason().unwrap_or_default() } else { said }
    }

    #[getter]
    fn url(&self) -> String {
        format!("{}{}", self.response.endpoint, self.response.target.as_str())
    }

    #[getter]
    fn endpoint(&self) -> &str {
        &self.response.endpoint
    }

    #[getter]
    fn elapsed(&self) -> f64 {
        self.response.elapsed.as_secs_f64()
    }

    #[getter]
    fn first_byte(&self) -> f64 {
        self.response.first_byte.as_secs_f64()
    }

    #[getter]
    fn reused(&self) -> bool {
        self.response.reused
    }

    #[getter]
    fn attempts(&self) -> u32 {
        self.response.attempts
    }

    /// The body; the same object each time.
    #[getter]
    fn content(&self, py: Python<'_>) -> Py<PyBytes> {
        self.content.get_or_init(py, || PyBytes::new(py, &self.response.body).unbind()).clone_ref(py)
    }

    /// The name of the status that gRPC ended with; none over HTTP.
    #[getter]
    fn grpc_code(&self) -> Option<&'static str> {
        self.response.grpc.as_ref().map(|end| end.code.name())
    }

    /// What gRPC said of its end.
    #[getter]
    fn grpc_message(&self) -> Option<&str> {
        self.response.grpc.as_ref().map(|end| end.message.as_str())
    }

    /// The class of the error that the end of gRPC stands for, by the one table.
    #[getter]
    fn grpc_error(&self) -> Option<&'static str> {
        self.response.grpc.as_ref().map(|end| end.code.kind().meaning().class)
    }

    /// For how long the server asks to be left alone, in seconds.
    #[getter]
    fn retry_after(&self) -> Option<f64> {
        self.response.retry_after().map(|wait| wait.as_secs_f64())
    }

    /// What a model answered over gRPC: see `answer_object`.
    fn inferred<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let answer = InferAnswer::parse(self.response.body.clone()).map_err(|error| to_python(py, &error))?;
        answer_object(py, answer)
    }

    /// Names and values as they came, in their order.
    #[getter]
    fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (name, value) in self.response.fields.iter() {
            list.append(PyTuple::new(py, [PyBytes::new(py, name), PyBytes::new(py, value)])?)?;
        }
        Ok(list)
    }

    /// The first value of a header, whatever the case of its name.
    fn header(&self, name: &str) -> Option<String> {
        let value = self.response.fields.get(name)?;
        // As ISO 8859-1, which every byte is a letter of.
        Some(value.iter().map(|byte| char::from(*byte)).collect())
    }
}
