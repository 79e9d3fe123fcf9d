//! What goes into a graph and what comes out, as its file declares it and as whoever opens it wants it.

use super::proto::{Graph, Kind, Length, TensorType, ValueInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{DType, Elements, TensorSpec};

/// One input or output, as whoever opens a graph wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name in the graph.
    pub name: String,
    /// The type of its elements, by NumPy's name, `string` or `bytes`; as the graph says where none is given.
    pub elements: Option<String>,
    /// The axes of one row, -1 for any length; as the graph says where none are given.
    pub axes: Option<Vec<i64>>,
}

/// What whoever opens a graph wants of its inputs and outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// All inputs, in an order of their own, where the graph does not say enough of them.
    pub inputs: Option<Vec<Declared>>,
    /// The outputs that are wanted; the others are not computed.
    pub outputs: Option<Vec<Declared>>,
    /// The graph takes one row at a time, and is run once for each row of a batch.
    pub row_by_row: bool,
}

impl Interface {
    /// The inputs and outputs of `graph`, the batch axis left out.
    pub(super) fn of(&self, graph: &Graph) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>)> {
        // Before IR version 4, weights were listed among the inputs, too.
        let is_weight = |name: &str| graph.initializer.iter().any(|weight| weight.name == name);
        let inputs: Vec<_> = graph.input.iter().filter(|input| !is_weight(&input.name)).collect();
        let outputs: Vec<_> = graph.output.iter().collect();
        if inputs.is_empty() || outputs.is_empty() {
            return Err(refused("the graph has no inputs or no outputs"));
        }
        let chosen = chosen("input", &inputs, self.inputs.as_deref())?;
        if let Some(missing) =
            inputs.iter().find(|input| chosen.iter().all(|(one, _)| one.name != input.name))
        {
            return Err(refused(format!("input '{}' of the graph is not declared", missing.name)));
        }
        let inputs = chosen.into_iter().map(|(input, wanted)| self.input(input, wanted));
        let inputs = inputs.collect::<Result<_>>()?;
        let outputs = self::chosen("output", &outputs, self.outputs.as_deref())?;
        let outputs = outputs.into_iter().map(|(output, wanted)| self.output(output, wanted));
        Ok((inputs, outputs.collect::<Result<_>>()?))
    }

    fn input(&self, input: &ValueInfo, wanted: Option<&Declared>) -> Result<TensorSpec> {
        let what = format!("input '{}'", input.name);
        let tensor = tensor(&what, input)?;
        let (batch, axes) = axes(&what, tensor)?;
        self.check_batch(&what, batch)?;
        let known = spec(&input.name, &what, tensor, &axes)?;
        let Some(wanted) = wanted else { return Ok(known) };
        let spec = override_with(&known, wanted)?;
        let narrower = spec.axes.len() == known.axes.len()
            && known.axes.iter().zip(&spec.axes).all(|(graph, own)| graph.is_none() || graph == own);
        if spec.elements.oip_name() != known.elements.oip_name() || !narrower {
            return Err(refused(format!(
                "{what} is declared as {} of {:?}, the graph takes {} of {:?}",
                spec.elements.name(),
                spec.shown_axes(),
                known.elements.name(),
                known.shown_axes()
            )));
        }
        Ok(spec)
    }

    /// Of outputs a graph often says less than is true, so what is declared is believed until it is seen.
    fn output(&self, output: &ValueInfo, wanted: Option<&Declared>) -> Result<TensorSpec> {
        let what = format!("output '{}'", output.name);
        let tensor = tensor(&what, output)?;
        if let Some(Declared { axes: Some(axes), elements, .. }) = wanted {
            let elements = elements.as_deref().map_or_else(|| elements_of(&what, tensor), Ok)?;
            return TensorSpec::new(&output.name, elements, axes);
        }
        let (batch, axes) = axes(&what, tensor)?;
        self.check_batch(&what, batch)?;
        let known = spec(&output.name, &what, tensor, &axes)?;
        wanted.map_or(Ok(known.clone()), |wanted| override_with(&known, wanted))
    }

    fn check_batch(&self, what: &str, batch: Option<i64>) -> Result<()> {
        match batch {
            None => Ok(()),
            Some(1) if self.row_by_row => Ok(()),
            Some(1) => Err(refused(format!(
                "{what} has a fixed batch of 1: export the graph with a dynamic first axis, or set row_by_row=True to \
                 run it once for each row"
            ))),
            Some(length) => Err(refused(format!(
                "{what} has a fixed first axis of {length}, which cannot be the batch: export the graph with a dynamic \
                 first axis"
            ))),
        }
    }
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, why)
}

/// The wanted ones, in the order in which they are wanted; all, where nothing else is said.
fn chosen<'a, 'b>(
    what: &str,
    all: &[&'a ValueInfo],
    wanted: Option<&'b [Declared]>,
) -> Result<Vec<(&'a ValueInfo, Option<&'b Declared>)>> {
    let Some(wanted) = wanted else { return Ok(all.iter().map(|one| (*one, None)).collect()) };
    let mut chosen: Vec<(&ValueInfo, _)> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let known = all.iter().find(|known| known.name == one.name).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|known| known.name.as_str()).collect();
            refused(format!("the graph has no {what} '{}', only {names:?}", one.name))
        })?;
        if chosen.iter().any(|(before, _)| before.name == one.name) {
            return Err(refused(format!("{what} '{}' is declared twice", one.name)));
        }
        chosen.push((known, Some(one)));
    }
    if chosen.is_empty() {
        return Err(refused(format!("no {what} is left of the graph's")));
    }
    Ok(chosen)
}

fn tensor<'a>(what: &str, info: &'a ValueInfo) -> Result<&'a TensorType> {
    let kind = match info.r#type.as_ref().and_then(|known| known.value.as_ref()) {
        Some(Kind::Tensor(tensor)) => return Ok(tensor),
        None => return Err(refused(format!("{what} has no type"))),
        Some(Kind::Sequence(_)) => "a sequence",
        Some(Kind::Map(_)) => "a map",
        Some(Kind::Opaque(_)) => "opaque",
        Some(Kind::SparseTensor(_)) => "a sparse tensor",
        Some(Kind::Optional(_)) => "optional",
    };
    let hint = if matches!(kind, "a sequence" | "a map") && what.starts_with("output") {
        "; leave it out of outputs, or convert scikit-learn's classifiers with options={'zipmap': False}"
    } else {
        ""
    };
    Err(refused(format!("{what} is {kind}, and only tensors can be served{hint}")))
}

/// The first axis, where its length is fixed, and the others.
fn axes(what: &str, tensor: &TensorType) -> Result<(Option<i64>, Vec<i64>)> {
    let hint = if what.starts_with("output") { ": declare its axes in outputs" } else { "" };
    let shape = tensor
        .shape
        .as_ref()
        .ok_or_else(|| refused(format!("the graph does not say how many axes {what} has{hint}")))?;
    let length = |dimension: &super::proto::Dimension| match dimension.value {
        // Some exporters write an open axis as -1.
        Some(Length::Known(length)) if length >= 0 => length,
        _ => -1,
    };
    let mut lengths = shape.dim.iter().map(length);
    let batch = lengths.next().ok_or_else(|| {
        refused(format!("{what} has no axes, so it has none for the batch: its first axis must be the batch"))
    })?;
    Ok((Some(batch).filter(|length| *length >= 0), lengths.collect()))
}

fn spec(name: &str, what: &str, tensor: &TensorType, axes: &[i64]) -> Result<TensorSpec> {
    TensorSpec::new(name, elements_of(what, tensor)?, axes)
}

fn override_with(known: &TensorSpec, wanted: &Declared) -> Result<TensorSpec> {
    let axes = wanted.axes.clone().unwrap_or_else(|| known.shown_axes());
    TensorSpec::new(&known.name, wanted.elements.as_deref().unwrap_or(known.elements.name()), &axes)
}

/// `TensorProto.DataType` of the ONNX specification.
fn elements_of(what: &str, tensor: &TensorType) -> Result<&'static str> {
    let dtype = match tensor.elem_type {
        1 => DType::Float32,
        2 => DType::UInt8,
        3 => DType::Int8,
        4 => DType::UInt16,
        5 => DType::Int16,
        6 => DType::Int32,
        7 => DType::Int64,
        8 => return Ok(Elements::Text.name()),
        9 => DType::Bool,
        10 => DType::Float16,
        11 => DType::Float64,
        12 => DType::UInt32,
        13 => DType::UInt64,
        16 => DType::BFloat16,
        other => {
            let name = match other {
                14 => "complex64",
                15 => "complex128",
                17..=20 | 24 => "an 8-bit float",
                21 | 22 => "a 4-bit integer",
                23 => "a 4-bit float",
                _ => "of an unknown type",
            };
            return Err(refused(format!("{what} is {name}, which cannot be served (type {other})")));
        }
    };
    Ok(dtype.name())
}
