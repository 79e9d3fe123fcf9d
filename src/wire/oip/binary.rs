//! Tensor data as bytes: little-endian, row by row, texts with their length before them.

use std::ops::Range;

use crate::tensor::{Column, DType, Elements};

/// Bytes of the length that stands before each text.
pub(super) const PREFIX: usize = 4;

/// Reads the data of a tensor of `axes`, batch axis first, into `column`. `length_is` begins the sentence about a length
/// that does not fit: what the sender calls it, and "is".
///
/// # Errors
/// Why it does not fit, in words.
pub(super) fn read(
    column: &mut Column,
    elements: Elements,
    axes: &[usize],
    data: &[u8],
    length_is: &dyn Fn() -> String,
) -> Result<(), String> {
    let count = axes.iter().product::<usize>();
    match column {
        Column::Numbers { dtype, memory, .. } => {
            let (size, datatype) = (dtype.size(), dtype.oip_name().unwrap_or_default());
            if count.checked_mul(size) != Some(data.len()) {
                return Err(format!(
                    "{} {}, and shape {axes:?} of {datatype} takes {count} times {size} bytes",
                    length_is(),
                    data.len()
                ));
            }
            if *dtype == DType::Bool && data.iter().any(|byte| *byte > 1) {
                return Err("a byte of binary BOOL data is neither 0 nor 1".to_owned());
            }
            memory.extend(data);
            swap(*dtype, memory.as_mut_slice());
            Ok(())
        }
        Column::Texts { texts, .. } => {
            let mut rest = data;
            for at in 0..count {
                let (text, after) = text_of(rest).ok_or_else(|| {
                    format!("binary data ends within element {at} of the {count} of shape {axes:?}")
                })?;
                if elements == Elements::Text && std::str::from_utf8(text).is_err() {
                    return Err(format!("element {at} is no utf-8, and the model wants strings"));
                }
                texts.push(text);
                rest = after;
            }
            if rest.is_empty() {
                return Ok(());
            }
            Err(format!("{} bytes follow the {count} elements of shape {axes:?}", rest.len()))
        }
        Column::Objects(_) => Err("objects have no binary form".to_owned()),
    }
}

/// The text that `data` begins with, and what follows it.
pub(super) fn text_of(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = data.split_first_chunk::<PREFIX>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*prefix)).ok()?)
}

/// Bytes that rows of a column take.
pub(super) fn size(column: &Column, rows: Range<usize>) -> usize {
    match column {
        Column::Numbers { row_bytes, .. } => rows.len() * row_bytes,
        Column::Texts { shape, texts } => {
            texts.range(elements_of(shape, rows)).map(|text| PREFIX + text.len()).sum()
        }
        Column::Objects(_) => 0,
    }
}

/// Writes rows of a column. A text of 4 GiB or more has no binary form; its beginning is written.
pub(super) fn write(out: &mut Vec<u8>, column: &Column, rows: Range<usize>) {
    match column {
        Column::Numbers { dtype, row_bytes, memory, .. } => {
            let bytes = memory.as_slice().get(rows.start * row_bytes..rows.end * row_bytes);
            let (bytes, begin) = (bytes.unwrap_or_default(), out.len());
            if *dtype == DType::Bool {
                out.extend(bytes.iter().map(|byte| u8::from(*byte != 0)));
            } else {
                out.extend_from_slice(bytes);
                swap(*dtype, out.get_mut(begin..).unwrap_or_default());
            }
        }
        Column::Texts { shape, texts } => {
            for text in texts.range(elements_of(shape, rows)) {
                put_text(out, text);
            }
        }
        Column::Objects(_) => {}
    }
}

/// Writes a text and its length before it.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.get(..length as usize).unwrap_or(text));
}

pub(super) fn elements_of(shape: &[usize], rows: Range<usize>) -> Range<usize> {
    let count = shape.iter().product::<usize>();
    rows.start * count..rows.end * count
}

/// Between the machine's byte order and the wire's, where they differ.
pub(super) fn swap(dtype: DType, data: &mut [u8]) {
    if cfg!(target_endian = "big") {
        data.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
}
