//! Columns of a batch as the library's tensors, without a copy, and its results as columns.

use std::fmt::Debug;
use std::ops::Range;

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, IntoTensorElementType, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef,
};
use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Column, DType, Elements, TensorSpec, Texts};

/// Does something for the type that stands for a data type.
macro_rules! for_dtype {
    ($dtype:expr, $do:ident($($argument:expr),*), $otherwise:expr) => {
        match $dtype {
            DType::Bool => $do::<bool>($($argument),*),
            DType::Int8 => $do::<i8>($($argument),*),
            DType::Int16 => $do::<i16>($($argument),*),
            DType::Int32 => $do::<i32>($($argument),*),
            DType::Int64 => $do::<i64>($($argument),*),
            DType::UInt8 => $do::<u8>($($argument),*),
            DType::UInt16 => $do::<u16>($($argument),*),
            DType::UInt32 => $do::<u32>($($argument),*),
            DType::UInt64 => $do::<u64>($($argument),*),
            DType::Float16 => $do::<f16>($($argument),*),
            DType::BFloat16 => $do::<bf16>($($argument),*),
            DType::Float32 => $do::<f32>($($argument),*),
            DType::Float64 => $do::<f64>($($argument),*),
            DType::Complex64 | DType::Complex128 => $otherwise,
        }
    };
}

/// The rows `range` of a column, for the library to look at: numbers where they are, texts copied.
///
/// # Errors
/// [`ErrorKind::Item`] for a text that the library cannot be given; [`ErrorKind::Internal`] where the column is not of
/// this input.
pub(super) fn input<'a>(
    spec: &TensorSpec,
    column: &'a Column,
    range: &Range<usize>,
) -> Result<SessionInputValue<'a>> {
    let shape =
        |row: &[usize]| -> Vec<usize> { std::iter::once(range.len()).chain(row.iter().copied()).collect() };
    match column {
        Column::Numbers { dtype, shape: row, row_bytes, memory } => {
            if spec.elements != Elements::Numbers(*dtype) {
                return Err(misfit(spec));
            }
            let rows = range.start * row_bytes..range.end * row_bytes;
            let bytes = memory.as_slice().get(rows).ok_or_else(|| misfit(spec))?;
            for_dtype!(dtype, numbers(spec, bytes, shape(row)), Err(misfit(spec)))
        }
        Column::Texts { shape: row, texts } => {
            let elements: usize = row.iter().product();
            strings(spec, texts, range.start * elements..range.end * elements, &shape(row))
        }
        Column::Objects(_) => Err(misfit(spec)),
    }
}

fn numbers<'a, T>(spec: &TensorSpec, bytes: &'a [u8], shape: Vec<usize>) -> Result<SessionInputValue<'a>>
where
    T: PrimitiveTensorElementType + Debug + Clone + TryFromBytes + Immutable + KnownLayout + 'static,
{
    let data = <[T]>::try_ref_from_bytes(bytes).map_err(|_| {
        // Batches are aligned, and rows are whole: what is left is a truth value that is neither 0 nor 1.
        Error::new(
            ErrorKind::Item,
            format!("input '{}' holds what is no {}", spec.name, spec.elements.name()),
        )
    })?;
    Ok(TensorRef::from_array_view((shape, data)).map_err(|error| unmade(spec, &error))?.into())
}

fn strings(
    spec: &TensorSpec,
    texts: &Texts,
    range: Range<usize>,
    shape: &[usize],
) -> Result<SessionInputValue<'static>> {
    let refused = || {
        let message = format!("input '{}' holds a text with a zero byte, or that is not utf-8", spec.name);
        Error::new(ErrorKind::Item, message)
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\0'));
    let texts = texts.range(range).map(text).collect::<Option<Vec<_>>>().ok_or_else(refused)?;
    let tensor =
        Tensor::from_string_array((shape, texts.as_slice())).map_err(|error| unmade(spec, &error))?;
    Ok(tensor.into())
}

fn misfit(spec: &TensorSpec) -> Error {
    Error::new(ErrorKind::Internal, format!("a batch has no column that is input '{}'", spec.name))
}

fn unmade(spec: &TensorSpec, error: &ort::Error) -> Error {
    Error::new(
        ErrorKind::Model,
        format!("input '{}' could not be given to the library: {}", spec.name, error.message()),
    )
}

/// Adds a result of `count` rows to `column`, which has the axes that this output has.
///
/// # Errors
/// [`ErrorKind::Output`] where it is not what the output is declared as.
pub(super) fn take(spec: &TensorSpec, value: &DynValue, count: usize, column: &mut Column) -> Result<()> {
    match (spec.elements, column) {
        (Elements::Numbers(dtype), Column::Numbers { memory, .. }) => {
            let bytes = for_dtype!(dtype, bytes_of(value), return Err(wrong(spec, value, count)));
            memory.extend(bytes.ok_or_else(|| wrong(spec, value, count))?);
        }
        (Elements::Text | Elements::Bytes, Column::Texts { texts, .. }) => {
            let (_, strings) = value.try_extract_strings().map_err(|_| wrong(spec, value, count))?;
            for text in &strings {
                texts.push(text.as_bytes());
            }
        }
        _ => return Err(wrong(spec, value, count)),
    }
    Ok(())
}

/// The axes of one row of a result that has `count` rows and is of this output's type.
///
/// # Errors
/// As [`take`].
pub(super) fn row_of(spec: &TensorSpec, value: &DynValue, count: usize) -> Result<Vec<usize>> {
    let shape = value.dtype().tensor_shape().ok_or_else(|| wrong(spec, value, count))?;
    let lengths =
        shape.iter().map(|length| usize::try_from(*length)).collect::<std::result::Result<Vec<_>, _>>();
    let lengths = lengths.map_err(|_| wrong(spec, value, count))?;
    let (batch, row) = lengths.split_first().ok_or_else(|| wrong(spec, value, count))?;
    let fits =
        *batch == count && spec.fits(row) && value.dtype().tensor_type() == Some(element_type(spec.elements));
    if fits { Ok(row.to_vec()) } else { Err(wrong(spec, value, count)) }
}

fn element_type(elements: Elements) -> TensorElementType {
    match elements {
        Elements::Numbers(dtype) => for_dtype!(dtype, type_of(), TensorElementType::Undefined),
        Elements::Text | Elements::Bytes => TensorElementType::String,
    }
}

fn type_of<T: IntoTensorElementType>() -> TensorElementType {
    T::into_tensor_element_type()
}

fn bytes_of<T: PrimitiveTensorElementType + IntoBytes + Immutable + 'static>(
    value: &DynValue,
) -> Option<&[u8]> {
    value.try_extract_tensor::<T>().ok().map(|(_, data)| data.as_bytes())
}

fn wrong(spec: &TensorSpec, value: &DynValue, count: usize) -> Error {
    let message = format!(
        "output '{}' is {}; the model declares {} of shape [{count}] and then {:?}",
        spec.name,
        value.dtype(),
        spec.elements.name(),
        spec.shown_axes()
    );
    Error::new(ErrorKind::Output, message)
}
