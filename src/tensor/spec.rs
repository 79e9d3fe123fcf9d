//! What a model's inputs and outputs are: names, element types and the axes of one row.

use super::{ColumnSpec, DType, Shape};
use crate::error::{Error, ErrorKind, Result};

/// The type of a tensor's elements, as a model declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elements {
    /// Numbers of a fixed size.
    Numbers(DType),
    /// UTF-8 text.
    Text,
    /// Bytes of any kind.
    Bytes,
}

impl Elements {
    /// The type of that name: NumPy's names, `string` or `bytes`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "string" => Some(Self::Text),
            "bytes" => Some(Self::Bytes),
            _ => DType::from_name(name).map(Self::Numbers),
        }
    }

    /// NumPy's name, `string` or `bytes`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numbers(dtype) => dtype.name(),
            Self::Text => "string",
            Self::Bytes => "bytes",
        }
    }

    /// The name in the Open Inference Protocol, version 2.
    pub fn oip_name(self) -> Option<&'static str> {
        match self {
            Self::Numbers(dtype) => dtype.oip_name(),
            Self::Text | Self::Bytes => Some("BYTES"),
        }
    }
}

/// One input or output of a model; the batch axis is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name on the wire and in the model's signature.
    pub name: String,
    /// Type of its elements.
    pub elements: Elements,
    /// Axes of one row; `None` is an axis of any length.
    pub axes: Vec<Option<usize>>,
}

impl TensorSpec {
    /// A declared tensor.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an unknown type, one that the protocol has no name for, or an axis that is negative and
    /// not -1.
    pub fn new(name: &str, elements: &str, axes: &[i64]) -> Result<Self> {
        let refused = |why: String| Error::new(ErrorKind::Config, format!("tensor '{name}': {why}"));
        let known = Elements::from_name(elements)
            .filter(|elements| elements.oip_name().is_some())
            .ok_or_else(|| refused(format!("'{elements}' is no data type that can be served")))?;
        let axes = axes.iter().map(|axis| match usize::try_from(*axis) {
            Ok(length) => Ok(Some(length)),
            Err(_) if *axis == -1 => Ok(None),
            Err(_) => Err(refused(format!("an axis must be a length or -1 for any, not {axis}"))),
        });
        Ok(Self { name: name.to_owned(), elements: known, axes: axes.collect::<Result<_>>()? })
    }

    /// True where a row of these axes is one of this tensor's.
    pub fn fits(&self, row: &[usize]) -> bool {
        self.axes.len() == row.len()
            && self.axes.iter().zip(row).all(|(axis, length)| axis.is_none_or(|axis| axis == *length))
    }

    /// The axes of a row as people write them; -1 is any length.
    pub fn shown_axes(&self) -> Vec<i64> {
        let shown = |axis: &Option<usize>| axis.map_or(-1, |axis| i64::try_from(axis).unwrap_or(i64::MAX));
        self.axes.iter().map(shown).collect()
    }

    /// The column that rows of these axes make.
    pub fn column(&self, row: &[usize]) -> ColumnSpec {
        let shape = Shape::from_slice(row);
        match self.elements {
            Elements::Numbers(dtype) => ColumnSpec::Numbers { dtype, shape },
            Elements::Text | Elements::Bytes => ColumnSpec::Texts { shape },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_checked_and_shown() {
        let spec = TensorSpec::new("x", "float32", &[3, -1]).unwrap();
        assert!(spec.fits(&[3, 7]) && !spec.fits(&[4, 7]) && !spec.fits(&[3]));
        assert_eq!(spec.shown_axes(), [3, -1]);
        assert_eq!(spec.elements.oip_name(), Some("FP32"));
        for (elements, axes, words) in
            [("float31", vec![1], "float31"), ("complex64", vec![], "complex64"), ("int8", vec![-2], "-2")]
        {
            let error = TensorSpec::new("x", elements, &axes).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}
