//! ONNX graphs as what computes a served model.

use std::sync::Arc;

use super::computed::Compute;
use super::endpoint::ModelSpec;
use super::rounds::{Fault, Portion};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::onnx::{self, Sessions};
use crate::tensor::{Column, TensorSpec};

/// Sessions of a graph that compute the answers of a model.
#[derive(Clone)]
pub struct GraphComputer {
    sessions: Arc<Sessions>,
    /// For each input of the graph, which of the model's it is.
    inputs: Vec<usize>,
    /// For each output of the model, which of the graph's it is.
    outputs: Vec<usize>,
}

impl GraphComputer {
    /// Has `sessions` compute the answers of the model that `spec` declares.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the model's inputs or outputs are not those of the graph.
    pub fn new(sessions: Arc<Sessions>, spec: &ModelSpec) -> Result<Self> {
        let graph = sessions.graph();
        if graph.inputs().len() != spec.inputs.len() {
            let (graph, model) = (graph.inputs().len(), spec.inputs.len());
            return Err(refused(spec, &format!("it declares {model} inputs, and its graph has {graph}")));
        }
        let inputs = graph.inputs().iter().map(|input| place(spec, "input", &spec.inputs, input));
        let outputs = spec.outputs.iter().map(|output| place(spec, "output", graph.outputs(), output));
        let (inputs, outputs) = (inputs.collect::<Result<_>>()?, outputs.collect::<Result<_>>()?);
        Ok(Self { sessions, inputs, outputs })
    }

    /// One for each session, so that each has a thread.
    pub fn each(&self) -> Vec<Box<dyn Compute>> {
        (0..self.sessions.count()).map(|_| Box::new(self.clone()) as _).collect()
    }
}

/// Where `wanted` is among `others`, which say the same of it.
fn place(spec: &ModelSpec, what: &str, others: &[TensorSpec], wanted: &TensorSpec) -> Result<usize> {
    let at = others.iter().position(|other| other.name == wanted.name);
    let at = at.ok_or_else(|| refused(spec, &format!("{what} '{}' is only one side's", wanted.name)))?;
    let same =
        others.get(at).is_some_and(|other| other.elements == wanted.elements && other.axes == wanted.axes);
    if same {
        return Ok(at);
    }
    Err(refused(spec, &format!("{what} '{}' has another type or other axes in its graph", wanted.name)))
}

fn refused(spec: &ModelSpec, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("model '{}' does not fit its graph: {why}", spec.name))
}

impl From<onnx::Fault> for Fault {
    fn from(onnx::Fault { error, out_of_memory }: onnx::Fault) -> Self {
        Self { out_of_memory, ..Self::from(error) }
    }
}

impl Compute for GraphComputer {
    fn run(&mut self, portion: &Portion<'_>) -> std::result::Result<Vec<Column>, Fault> {
        let columns = portion.rows.columns();
        let inputs: Vec<&Column> = self.inputs.iter().filter_map(|at| columns.get(*at)).collect();
        let computed = self.sessions.run(&inputs, portion.range.clone(), portion.spares)?;
        let mut computed: Vec<_> = computed.into_iter().map(Some).collect();
        Ok(self.outputs.iter().filter_map(|at| computed.get_mut(*at)?.take()).collect())
    }
}
