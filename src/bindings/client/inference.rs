//! Inference and what belongs to it, over whichever protocol an endpoint speaks: arguments in, futures and answers out.

use bytes::Bytes;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList};
use smallvec::SmallVec;

use super::courier::Manner as Sending;
use super::native::{Headers, NativeClient, in_a_thread, named};
use super::settings::Times;
use crate::bindings::convert::arrays;
use crate::bindings::errors::{raised, to_python};
use crate::client::GrpcCall;
use crate::error::ErrorKind;
use crate::tensor::{DType, Elements};
use crate::wire::grpc::{PREFIX, prefix_of};
use crate::wire::oip::{
    AnswerTensor, AskedTensor, InferAnswer, ModelName, Parameter, Question, RequestMessage,
};

/// The path of the call that infers.
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The path of the call that infers as long as the stream lasts.
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// A tensor of a request.
#[derive(FromPyObject)]
pub(crate) enum Input<'py> {
    /// A C-contiguous array of numbers in the machine's byte order.
    #[pyo3(transparent)]
    Numbers((PyBackedStr, Bound<'py, PyUntypedArray>)),
    /// Texts as the wire has them: their shape, and each with its length before it.
    #[pyo3(transparent)]
    Texts((PyBackedStr, Vec<usize>, PyBackedBytes)),
}

/// What is asked of a model: its name, its version, the id of the request, inputs, and the names of the outputs that are
/// wanted, none for all.
pub(super) type Asked<'py> =
    (PyBackedStr, Option<PyBackedStr>, Option<PyBackedStr>, Vec<Input<'py>>, Vec<String>);

/// A request as HTTP has it: method, path, headers, body.
pub(super) type OverHttp = (String, String, Option<Headers>, PyBackedBytes);

/// How a request is sent: metadata of gRPC, time-outs, options.
pub(super) type Manner = (Option<Headers>, Option<Times>, u8);

/// What the Open Inference Protocol adds to a client; `penstock.AsyncClient` and `penstock.Client` document it.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeInference {
    client: Py<NativeClient>,
}

#[pymethods]
impl NativeInference {
    #[new]
    fn new(client: Py<NativeClient>) -> Self {
        Self { client }
    }

    /// A future of the running loop for the answer to an inference; with `http`, endpoints of HTTP can give it, too.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn infer<'py>(
        &self,
        py: Python<'py>,
        asked: Asked<'py>,
        http: Option<OverHttp>,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message = request_message(py, &asked)?;
        let call = GrpcCall { path: MODEL_INFER.into(), message };
        self.submit(py, call, http, manner, Sending::Whole)
    }

    /// As `infer`, blocking, with the lock given back; Ctrl-C gives the request up.
    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn infer_blocking<'py>(
        &self,
        py: Python<'py>,
        asked: Asked<'py>,
        http: Option<OverHttp>,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message = request_message(py, &asked)?;
        let call = GrpcCall { path: MODEL_INFER.into(), message };
        self.submit_blocking(py, call, http, manner, Sending::Whole)
    }

    /// A future for the answer to a question; with `http`, endpoints of HTTP can give it, too.
    fn ask<'py>(
        &self,
        py: Python<'py>,
        question: &NativeQuestion,
        http: Option<OverHttp>,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.submit(py, question.call(), http, manner, Sending::Whole)
    }

    /// As `ask`, blocking.
    fn ask_blocking<'py>(
        &self,
        py: Python<'py>,
        question: &NativeQuestion,
        http: Option<OverHttp>,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.submit_blocking(py, question.call(), http, manner, Sending::Whole)
    }

    /// A future for the answer to any call of gRPC that takes one message and gives one.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn unary<'py>(
        &self,
        py: Python<'py>,
        path: String,
        message: PyBackedBytes,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = GrpcCall { path: path.into(), message: framed(&message) };
        self.submit(py, call, None, manner, Sending::Whole)
    }

    /// As `unary`, blocking.
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands over what it has converted")]
    fn unary_blocking<'py>(
        &self,
        py: Python<'py>,
        path: String,
        message: PyBackedBytes,
        manner: Manner,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = GrpcCall { path: path.into(), message: framed(&message) };
        self.submit_blocking(py, call, None, manner, Sending::Whole)
    }

    /// A future for a stream of inferences. `place` says where the caller is.
    #[pyo3(signature = (manner, place=None))]
    fn stream<'py>(
        &self,
        py: Python<'py>,
        manner: Manner,
        place: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.submit(py, stream_call(), None, manner, Sending::Duplex(named(place)))
    }

    /// As `stream`, blocking until it is open.
    #[pyo3(signature = (manner, place=None))]
    fn stream_blocking<'py>(
        &self,
        py: Python<'py>,
        manner: Manner,
        place: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.submit_blocking(py, stream_call(), None, manner, Sending::Duplex(named(place)))
    }
}

fn stream_call() -> GrpcCall {
    GrpcCall { path: MODEL_STREAM_INFER.into(), message: Bytes::new() }
}

impl NativeInference {
    fn submit<'py>(
        &self,
        py: Python<'py>,
        call: GrpcCall,
        http: Option<OverHttp>,
        manner: Manner,
        how: Sending,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.client.get();
        let courier = client.courier(py)?;
        let asked = client.call(py, &courier, call, http, manner)?;
        client.on_the_loop(py, &courier, asked, how)
    }

    fn submit_blocking<'py>(
        &self,
        py: Python<'py>,
        call: GrpcCall,
        http: Option<OverHttp>,
        manner: Manner,
        how: Sending,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.client.get();
        let courier = client.courier(py)?;
        let asked = client.call(py, &courier, call, http, manner)?;
        in_a_thread(py, &courier, asked, how)
    }
}

/// A question of the protocol, besides inference.
#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct NativeQuestion(Question);

/// A value that goes with a request to load a model.
#[derive(FromPyObject)]
pub(crate) enum Value {
    #[pyo3(transparent)]
    Bool(bool),
    #[pyo3(transparent)]
    Integer(i64),
    #[pyo3(transparent)]
    Text(String),
}

#[pymethods]
impl NativeQuestion {
    /// `kind` is live, ready, server, `model_ready`, model, index, load or unload.
    #[new]
    #[pyo3(signature = (kind, name=None, version=None, *, ready=false, parameters=None))]
    fn new(
        py: Python<'_>,
        kind: &str,
        name: Option<String>,
        version: Option<String>,
        ready: bool,
        parameters: Option<Vec<(String, Value)>>,
    ) -> PyResult<Self> {
        let name = name.unwrap_or_default();
        let parameters = parameters.unwrap_or_default().into_iter().map(|(name, value)| (name, value.into()));
        Ok(Self(match kind {
            "live" => Question::Live,
            "ready" => Question::Ready,
            "server" => Question::Server,
            "model_ready" => Question::ModelReady(ModelName { name, version }),
            "model" => Question::Model(ModelName { name, version }),
            "index" => Question::Index(ready),
            "load" => Question::Load(name, parameters.collect()),
            "unload" => Question::Unload(name, parameters.collect()),
            _ => return Err(raised(py, ErrorKind::Internal, &format!("there is no question {kind:?}"))),
        }))
    }

    /// Method, path and body over HTTP.
    fn http<'py>(&self, py: Python<'py>) -> (String, String, Bound<'py, PyBytes>) {
        let (method, path, body) = self.0.http();
        (method.to_string(), path, PyBytes::new(py, &body))
    }

    /// The message of the call over gRPC.
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.message().slice(PREFIX..))
    }

    /// The answer of gRPC, as the JSON that HTTP has.
    fn answer(&self, py: Python<'_>, message: &[u8]) -> PyResult<String> {
        let answer = self.0.answer(message).map_err(|error| to_python(py, &error))?;
        Ok(answer.to_string())
    }
}

impl NativeQuestion {
    fn call(&self) -> GrpcCall {
        GrpcCall { path: self.0.grpc_path().into(), message: self.0.message() }
    }
}

impl From<Value> for Parameter {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Text(value) => Self::Text(value),
        }
    }
}

/// The message of an inference. What is copied out of an array is copied once, to where it is sent from.
pub(super) fn request_message(
    py: Python<'_>,
    (model, version, id, inputs, outputs): &Asked<'_>,
) -> PyResult<Bytes> {
    let mut tensors = SmallVec::<[AskedTensor<'_>; 4]>::new();
    for input in inputs {
        tensors.push(match input {
            Input::Numbers((name, array)) => {
                let dtype = arrays::dtype(array).filter(|_| array.is_c_contiguous());
                let datatype = dtype.and_then(DType::oip_name);
                let datatype = datatype.ok_or_else(|| {
                    let what = format!("input '{name}': the protocol has no datatype for {}", array.dtype());
                    raised(py, ErrorKind::Config, &what)
                })?;
                let size = array.len() * array.dtype().itemsize();
                AskedTensor { name, datatype, shape: array.shape(), size }
            }
            Input::Texts((name, shape, texts)) => {
                AskedTensor { name, datatype: "BYTES", shape, size: texts.len() }
            }
        });
    }
    let mut message = RequestMessage::new(model, version.as_deref(), id.as_deref(), &tensors, outputs);
    for input in inputs {
        match input {
            Input::Numbers((_, array)) => arrays::with_bytes(array, |bytes| message.put_data(bytes)),
            Input::Texts((_, _, texts)) => message.put_data(texts),
        }
    }
    Ok(message.finish())
}

/// A message that somebody else encoded, the prefix of gRPC before it.
pub(super) fn framed(message: &[u8]) -> Bytes {
    [&prefix_of(message.len()), message].concat().into()
}

/// What a model answered: its name, its version, the id, and its outputs: each a name and an array of numbers, or the
/// shape and the elements of a tensor of texts.
pub(super) fn answer_object(py: Python<'_>, answer: InferAnswer) -> PyResult<Bound<'_, PyAny>> {
    let outputs = PyList::empty(py);
    for tensor in &answer.tensors {
        outputs.append((&tensor.name, tensor_object(py, tensor)?))?;
    }
    (answer.model, answer.version, answer.id, outputs).into_bound_py_any(py)
}

fn tensor_object<'py>(py: Python<'py>, tensor: &AnswerTensor) -> PyResult<Bound<'py, PyAny>> {
    if let Elements::Numbers(dtype) = tensor.elements {
        return arrays::from_wire(py, dtype, &tensor.shape, &tensor.data);
    }
    let texts = tensor.texts().map_err(|error| to_python(py, &error))?;
    let texts = PyList::new(py, texts.into_iter().map(|text| PyBytes::new(py, text)))?;
    (tensor.shape.clone(), texts).into_bound_py_any(py)
}
