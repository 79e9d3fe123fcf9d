//! Tensor data in typed fields, `InferTensorContents`: to columns and from them.

use std::ops::Range;

use super::super::binary;
use crate::tensor::{Column, DType, Elements};
use crate::wire::grpc::proto::inference::InferTensorContents;

/// The fields of the contents, each with the number of elements in it.
fn fields(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// The field that elements of this type stand in, or none where they are sent raw only.
fn field_of(elements: Elements) -> Option<&'static str> {
    Some(match elements {
        Elements::Text | Elements::Bytes => "bytes_contents",
        Elements::Numbers(dtype) => match dtype {
            DType::Bool => "bool_contents",
            DType::Int8 | DType::Int16 | DType::Int32 => "int_contents",
            DType::Int64 => "int64_contents",
            DType::UInt8 | DType::UInt16 | DType::UInt32 => "uint_contents",
            DType::UInt64 => "uint64_contents",
            DType::Float32 => "fp32_contents",
            DType::Float64 => "fp64_contents",
            _ => return None,
        },
    })
}

/// The first field that holds anything.
pub(super) fn first_field(contents: &InferTensorContents) -> Option<&'static str> {
    fields(contents).into_iter().find(|(_, count)| *count > 0).map(|(name, _)| name)
}

/// True where rows of these elements can be sent in typed fields.
pub(super) fn has_field(elements: Elements) -> bool {
    field_of(elements).is_some()
}

/// Reads the data of a tensor of `axes`, batch axis first, into `column`.
///
/// # Errors
/// Why it does not fit, in words.
pub(super) fn read(
    column: &mut Column,
    elements: Elements,
    axes: &[usize],
    contents: Option<&InferTensorContents>,
) -> Result<(), String> {
    let expected = axes.iter().product::<usize>();
    let datatype = elements.oip_name().unwrap_or_default();
    let Some(field) = field_of(elements) else {
        return Err(format!("{datatype} has no typed contents: send it in raw_input_contents"));
    };
    let Some(contents) = contents else {
        if expected == 0 {
            return Ok(());
        }
        return Err(format!("it has no data: neither {field} nor raw_input_contents is given"));
    };
    for (name, count) in fields(contents) {
        if name == field && count != expected {
            return Err(format!("{field} has {count} elements, and shape {axes:?} has {expected}"));
        }
        if name != field && count > 0 {
            return Err(format!("{name} is given, and {datatype} stands in {field}"));
        }
    }
    match column {
        Column::Numbers { dtype, memory, .. } => {
            let memory = memory.grow(expected.saturating_mul(dtype.size()));
            write(*dtype, memory, contents).ok_or_else(|| format!("{field} holds what is no {datatype}"))
        }
        Column::Texts { texts, .. } => {
            for (at, text) in contents.bytes_contents.iter().enumerate() {
                if elements == Elements::Text && std::str::from_utf8(text).is_err() {
                    return Err(format!("element {at} is no utf-8, and the model wants strings"));
                }
                texts.push(text);
            }
            Ok(())
        }
        Column::Objects(_) => Err("objects have no form in a message".to_owned()),
    }
}

/// Writes the numbers to memory; none where one does not fit its type.
fn write(dtype: DType, memory: &mut [u8], from: &InferTensorContents) -> Option<()> {
    match dtype {
        DType::Bool => put(memory, &from.bool_contents, |value| Some([u8::from(*value)])),
        DType::Int8 => {
            put(memory, &from.int_contents, |value| Some(i8::try_from(*value).ok()?.to_ne_bytes()))
        }
        DType::Int16 => {
            put(memory, &from.int_contents, |value| Some(i16::try_from(*value).ok()?.to_ne_bytes()))
        }
        DType::Int32 => put(memory, &from.int_contents, |value| Some(value.to_ne_bytes())),
        DType::Int64 => put(memory, &from.int64_contents, |value| Some(value.to_ne_bytes())),
        DType::UInt8 => {
            put(memory, &from.uint_contents, |value| Some(u8::try_from(*value).ok()?.to_ne_bytes()))
        }
        DType::UInt16 => {
            put(memory, &from.uint_contents, |value| Some(u16::try_from(*value).ok()?.to_ne_bytes()))
        }
        DType::UInt32 => put(memory, &from.uint_contents, |value| Some(value.to_ne_bytes())),
        DType::UInt64 => put(memory, &from.uint64_contents, |value| Some(value.to_ne_bytes())),
        DType::Float32 => put(memory, &from.fp32_contents, |value| Some(value.to_ne_bytes())),
        DType::Float64 => put(memory, &from.fp64_contents, |value| Some(value.to_ne_bytes())),
        _ => None,
    }
}

fn put<T, const SIZE: usize>(
    memory: &mut [u8],
    values: &[T],
    bytes: impl Fn(&T) -> Option<[u8; SIZE]>,
) -> Option<()> {
    for (place, value) in memory.chunks_exact_mut(SIZE).zip(values) {
        place.copy_from_slice(&bytes(value)?);
    }
    Some(())
}

/// Adds rows of a column to the field that their elements stand in. Those that have none are left out.
pub(super) fn add(contents: &mut InferTensorContents, column: &Column, rows: Range<usize>) {
    match column {
        Column::Numbers { dtype, row_bytes, memory, .. } => {
            let bytes =
                memory.as_slice().get(rows.start * row_bytes..rows.end * row_bytes).unwrap_or_default();
            add_numbers(contents, *dtype, bytes);
        }
        Column::Texts { shape, texts } => {
            let texts = texts.range(binary::elements_of(shape, rows));
            contents.bytes_contents.extend(texts.map(bytes::Bytes::copy_from_slice));
        }
        Column::Objects(_) => {}
    }
}

fn add_numbers(to: &mut InferTensorContents, dtype: DType, bytes: &[u8]) {
    match dtype {
        DType::Bool => to.bool_contents.extend(bytes.iter().map(|byte| *byte != 0)),
        DType::Int8 => to.int_contents.extend(each(bytes).map(i8::from_ne_bytes).map(i32::from)),
        DType::Int16 => to.int_contents.extend(each(bytes).map(i16::from_ne_bytes).map(i32::from)),
        DType::Int32 => to.int_contents.extend(each(bytes).map(i32::from_ne_bytes)),
        DType::Int64 => to.int64_contents.extend(each(bytes).map(i64::from_ne_bytes)),
        DType::UInt8 => to.uint_contents.extend(bytes.iter().copied().map(u32::from)),
        DType::UInt16 => to.uint_contents.extend(each(bytes).map(u16::from_ne_bytes).map(u32::from)),
        DType::UInt32 => to.uint_contents.extend(each(bytes).map(u32::from_ne_bytes)),
        DType::UInt64 => to.uint64_contents.extend(each(bytes).map(u64::from_ne_bytes)),
        DType::Float32 => to.fp32_contents.extend(each(bytes).map(f32::from_ne_bytes)),
        DType::Float64 => to.fp64_contents.extend(each(bytes).map(f64::from_ne_bytes)),
        _ => {}
    }
}

fn each<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.chunks_exact(SIZE).filter_map(|element| element.try_into().ok())
}

/// The contents of a tensor of this data type as raw data: little-endian, texts with their length before them.
///
/// # Errors
/// Why it cannot be that, in words.
pub(super) fn to_raw(elements: Elements, contents: &InferTensorContents) -> Result<Vec<u8>, String> {
    let Some(field) = field_of(elements) else {
        return Err("its datatype has no typed contents".to_owned());
    };
    for (name, count) in fields(contents) {
        if name != field && count > 0 {
            return Err(format!("{name} is given, and its datatype stands in {field}"));
        }
    }
    let Elements::Numbers(dtype) = elements else {
        return Ok(raw_texts(&contents.bytes_contents));
    };
    let count = fields(contents).into_iter().find(|(name, _)| *name == field).map_or(0, |(_, count)| count);
    let mut raw = vec![0; count * dtype.size()];
    write(dtype, &mut raw, contents).ok_or_else(|| format!("{field} holds what is not of its datatype"))?;
    binary::swap(dtype, &mut raw);
    Ok(raw)
}

fn raw_texts(texts: &[bytes::Bytes]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(texts.iter().map(|text| binary::PREFIX + text.len()).sum());
    for text in texts {
        binary::put_text(&mut raw, text);
    }
    raw
}
