//! A graph that is ready to run.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::builder::{
    AutoDevicePolicy, BuilderResult, GraphOptimizationLevel, LoadCanceler, SessionBuilder,
};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, SessionOutputs};
use ort::{Error as OrtError, ErrorCode};

use super::graph::{Graph, Signature};
use super::library::Library;
use super::providers;
use super::settings::{Optimization, SessionSettings};
use super::tensors;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Column, Spares, TensorSpec};

/// Why a graph did not run.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What there is to say of it.
    pub error: Error,
    /// Memory ran out: fewer rows might do.
    pub out_of_memory: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, out_of_memory: false }
    }
}

/// What stops a load.
#[derive(Debug, Clone)]
pub struct Canceler(LoadCanceler);

impl Canceler {
    /// Has the load end as soon as the library looks; one that has ended is none the wiser.
    pub fn cancel(&self) {
        // Where the library cannot be told, the load ends by itself.
        let _ = self.0.cancel();
    }
}

/// A graph that is about to be opened.
pub struct Opening {
    graph: Arc<Graph>,
    builder: SessionBuilder,
    row_by_row: bool,
}

impl Opening {
    /// Prepares to open `graph`, which is run row by row where that is said.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for settings that this library cannot follow; [`ErrorKind::LoadFailed`] where a file of the
    /// graph's weights cannot be read.
    pub fn new(
        library: &Library,
        graph: &Arc<Graph>,
        settings: &SessionSettings,
        row_by_row: bool,
    ) -> Result<Self> {
        settings.check()?;
        let asked = providers::asked(&settings.providers, settings.arena)?;
        let configured = configured(&library.environment, settings)
            .and_then(|builder| builder.with_execution_providers(asked).map_err(OrtError::from));
        let refused = |error: &OrtError| {
            let message = format!("the onnxruntime library refuses these settings: {}", error.message());
            Error::new(ErrorKind::Config, message)
        };
        let mut builder = configured.map_err(|error| refused(&error))?;
        for (name, bytes) in graph.read_external()? {
            let given = builder.with_external_initializer_file_in_memory(name, bytes);
            builder = given.map_err(|error| refused(&error.into()))?;
        }
        Ok(Self { graph: Arc::clone(graph), builder, row_by_row })
    }

    /// What stops [`open`](Self::open), from another thread.
    pub fn canceler(&self) -> Canceler {
        Canceler(self.builder.canceler())
    }

    /// Has the library build what runs the graph.
    ///
    /// # Errors
    /// [`ErrorKind::UnsafeFormat`] where the graph is none; [`ErrorKind::LoadFailed`] where the library cannot run it: an
    /// operator or an opset that it does not know, weights that are cut off.
    pub fn open(&mut self) -> Result<Session> {
        let (graph, bytes) = (self.graph.signature(), &self.graph.bytes);
        let inner = self.builder.commit_from_memory(bytes).map_err(|error| unopened(graph, &error))?;
        let outputs =
            graph.outputs.iter().fold(OutputSelector::no_default(), |all, one| all.with(one.name.as_str()));
        let options = RunOptions::new().map_err(|error| unopened(graph, &error))?.with_outputs(outputs);
        Ok(Session { inner, options, graph: Arc::clone(graph), row_by_row: self.row_by_row })
    }
}

#[allow(clippy::result_large_err, reason = "a builder comes back with its error")]
fn configured(
    environment: &Environment,
    settings: &SessionSettings,
) -> std::result::Result<SessionBuilder, OrtError> {
    let level = match settings.optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    };
    // Memory planned for one shape is of no use to the next batch, which is of another.
    let build = |builder: SessionBuilder| -> BuilderResult {
        builder
            .with_intra_threads(settings.threads)?
            .with_inter_threads(settings.inter_threads)?
            .with_parallel_execution(settings.inter_threads > 1)?
            .with_intra_op_spinning(settings.spin)?
            .with_inter_op_spinning(settings.spin)?
            .with_optimization_level(level)?
            .with_memory_pattern(false)?
            .with_auto_device(AutoDevicePolicy::PreferCPU)
    };
    Ok(build(ort::session::Session::builder(environment)?)?)
}

fn unopened(graph: &Signature, error: &OrtError) -> Error {
    let shown = graph.path.display();
    let (kind, why) = match error.code() {
        ErrorCode::InvalidProtobuf | ErrorCode::NoModel => (ErrorKind::UnsafeFormat, "is no onnx model"),
        ErrorCode::ModelLoadCanceled => (ErrorKind::LoadFailed, "was not wanted any more"),
        _ => (ErrorKind::LoadFailed, "cannot be run by this onnxruntime library"),
    };
    Error::new(kind, format!("'{shown}' {why}: {}", error.message()))
}

/// A graph that is ready to run, by one thread at a time.
pub struct Session {
    inner: ort::session::Session,
    options: RunOptions<HasSelectedOutputs>,
    graph: Arc<Signature>,
    row_by_row: bool,
}

impl Session {
    /// Its inputs, the batch axis left out.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.graph.inputs
    }

    /// Its outputs, the batch axis left out.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.graph.outputs
    }

    /// Runs the rows `range` of `columns`, one for each input, and gives a column for each output. Numbers are read where
    /// they are.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where the library refuses what is in the rows; [`ErrorKind::Output`] where it gives what the
    /// graph does not declare; [`ErrorKind::Model`] for any other failure of the library.
    pub fn run(
        &mut self,
        columns: &[&Column],
        range: Range<usize>,
        spares: &Arc<Spares>,
    ) -> std::result::Result<Vec<Column>, Fault> {
        let mut results = Vec::new();
        if self.row_by_row {
            for row in range {
                self.run_once(columns, &(row..row + 1), spares, &mut results)?;
            }
        } else {
            self.run_once(columns, &range, spares, &mut results)?;
        }
        Ok(results)
    }

    fn run_once(
        &mut self,
        columns: &[&Column],
        range: &Range<usize>,
        spares: &Arc<Spares>,
        results: &mut Vec<Column>,
    ) -> std::result::Result<(), Fault> {
        let graph = &self.graph;
        let inputs = graph.inputs.iter().zip(columns).map(|(spec, column)| {
            Ok((Cow::Borrowed(spec.name.as_str()), tensors::input(spec, column, range)?))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let ran = self.inner.run_with_options(inputs, &self.options).map_err(|error| fault(&error))?;
        Ok(take(graph, &ran, range.len(), spares, results)?)
    }
}

/// Adds what a run gave to the results of the runs before.
fn take(
    graph: &Signature,
    ran: &SessionOutputs<'_>,
    count: usize,
    spares: &Arc<Spares>,
    results: &mut Vec<Column>,
) -> Result<()> {
    for (at, (spec, (_, value))) in graph.outputs.iter().zip(ran.iter()).enumerate() {
        let row = tensors::row_of(spec, &value, count)?;
        let own = spec.column(&row);
        if results.len() == at {
            results.push(Column::new(&own, spares));
        }
        let column = results.get_mut(at).filter(|column| column.spec() == own).ok_or_else(|| {
            let message = format!("output '{}' has rows of different shapes", spec.name);
            Error::new(ErrorKind::Output, message)
        })?;
        tensors::take(spec, &value, count, column)?;
    }
    Ok(())
}

fn fault(error: &OrtError) -> Fault {
    let text = error.message();
    let out_of_memory =
        ["Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "OUT_OF_MEMORY"]
            .iter()
            .any(|words| text.contains(words));
    let (kind, what) = match error.code() {
        ErrorCode::InvalidArgument if !out_of_memory => (ErrorKind::Item, "the graph refuses this input"),
        _ => (ErrorKind::Model, "the graph failed"),
    };
    Fault { error: Error::new(kind, format!("{what}: {text}")), out_of_memory }
}
