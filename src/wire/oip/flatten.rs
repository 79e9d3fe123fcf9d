//! Tensor data in JSON, nested or flat, straight into the bytes of a column.

use std::fmt;

use half::f16;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::tensor::{Column, DType};

/// Reads a JSON value into `column`, in row-major order, and counts.
pub(super) struct Flatten<'a> {
    pub(super) column: &'a mut Column,
    /// The tensor's axes, batch axis first.
    pub(super) axes: &'a [usize],
    /// How deep in nested lists this value stands.
    pub(super) depth: usize,
}

/// What a value turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Element,
    List,
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.column {
            Column::Numbers { dtype, .. } => write!(f, "{} values", dtype.name()),
            _ => f.write_str("strings"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let Self { column, axes, depth } = self;
        let (mut elements, mut lists) = (0_usize, 0_usize);
        loop {
            let next = Flatten { column: &mut *column, axes, depth: depth + 1 };
            match list.next_element_seed(next)? {
                None => break,
                Some(Found::Element) => elements += 1,
                Some(Found::List) => lists += 1,
            }
        }
        let flat = depth == 0 && lists == 0;
        let expected = if flat { axes.iter().product() } else { axes.get(depth).copied().unwrap_or(0) };
        let leaf = depth + 1 >= axes.len();
        if (lists > 0 && (elements > 0 || leaf)) || (!flat && lists == 0 && !leaf && elements > 0) {
            return Err(A::Error::custom(format!("the nesting of the data does not fit shape {axes:?}")));
        }
        if elements + lists != expected {
            return Err(A::Error::custom(format!(
                "{} values where shape {axes:?} has {expected}",
                elements + lists
            )));
        }
        Ok(Found::List)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Found, E> {
        match self.column {
            Column::Numbers { dtype: DType::Bool, memory, .. } => memory.extend(&[u8::from(value)]),
            other => return Err(mismatch(other, &value)),
        }
        Ok(Found::Element)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Found, E> {
        put_integer(self.column, i128::from(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Found, E> {
        put_integer(self.column, i128::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Found, E> {
        let put = match self.column {
            Column::Numbers { dtype, memory, .. } => put_float(*dtype, memory, value),
            _ => false,
        };
        if put { Ok(Found::Element) } else { Err(mismatch(self.column, &format_args!("{value:?}"))) }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Found, E> {
        match self.column {
            Column::Texts { texts, .. } => texts.push(value.as_bytes()),
            other => return Err(mismatch(other, &format_args!("a string"))),
        }
        Ok(Found::Element)
    }
}

fn mismatch<E: serde::de::Error>(column: &Column, value: &dyn fmt::Display) -> E {
    let wanted = match column {
        Column::Numbers { dtype, .. } => dtype.name(),
        _ => "string",
    };
    E::custom(format!("{value} is no {wanted}"))
}

#[allow(clippy::cast_possible_truncation, reason = "the declared type is what the sender asked for")]
fn put_float(dtype: DType, memory: &mut crate::tensor::Memory, value: f64) -> bool {
    match dtype {
        DType::Float16 if f16::from_f64(value).is_finite() => {
            memory.extend(&f16::from_f64(value).to_ne_bytes());
        }
        DType::Float32 if (value as f32).is_finite() => memory.extend(&(value as f32).to_ne_bytes()),
        DType::Float64 => memory.extend(&value.to_ne_bytes()),
        _ => return false,
    }
    true
}

#[allow(clippy::cast_precision_loss, reason = "an integer sent for a float is rounded as any decimal is")]
fn put_integer<E: serde::de::Error>(column: &mut Column, value: i128) -> Result<Found, E> {
    fn fit<T: TryFrom<i128>>(value: i128) -> Option<T> {
        T::try_from(value).ok()
    }
    let Column::Numbers { dtype, memory, .. } = column else {
        return Err(mismatch(column, &value));
    };
    let done = match dtype {
        DType::Int8 => fit::<i8>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::Int16 => fit::<i16>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::Int32 => fit::<i32>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::Int64 => fit::<i64>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::UInt8 => fit::<u8>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::UInt16 => fit::<u16>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::UInt32 => fit::<u32>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        DType::UInt64 => fit::<u64>(value).map(|v| memory.extend(&v.to_ne_bytes())),
        _ => put_float(*dtype, memory, value as f64).then_some(()),
    };
    match done {
        Some(()) => Ok(Found::Element),
        None => Err(E::custom(format!("{value} is no {}", dtype.name()))),
    }
}
