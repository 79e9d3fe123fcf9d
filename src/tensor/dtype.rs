//! The element types that a batch can hold, by the names that NumPy and the Open Inference Protocol give them.

use half::{bf16, f16};
use smallvec::SmallVec;

/// The type of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the type that its name says")]
pub enum DType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    BFloat16,
    Float32,
    Float64,
    Complex64,
    Complex128,
}

impl DType {
    /// Every type.
    pub const ALL: [DType; 15] = [
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::UInt8,
        Self::UInt16,
        Self::UInt32,
        Self::UInt64,
        Self::Float16,
        Self::BFloat16,
        Self::Float32,
        Self::Float64,
        Self::Complex64,
        Self::Complex128,
    ];

    /// Bytes that one element takes.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 | Self::Float16 | Self::BFloat16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 | Self::Complex64 => 8,
            Self::Complex128 => 16,
        }
    }

    /// True for numbers with a fraction, which have a value that is no number; complex ones left out.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::BFloat16 | Self::Float32 | Self::Float64)
    }

    /// The name that NumPy gives it; it knows `bfloat16` from the package `ml_dtypes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Complex64 => "complex64",
            Self::Complex128 => "complex128",
        }
    }

    /// The type that NumPy calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The bytes of the nearest number that this type can hold, in the machine's byte order.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "casts that saturate are what it is for"
    )]
    pub fn bytes_of(self, value: f64) -> SmallVec<[u8; 16]> {
        let whole = value.round();
        match self {
            Self::Bool => SmallVec::from_slice(&[u8::from(value != 0.0)]),
            Self::Int8 => SmallVec::from_slice(&(whole as i8).to_ne_bytes()),
            Self::Int16 => SmallVec::from_slice(&(whole as i16).to_ne_bytes()),
            Self::Int32 => SmallVec::from_slice(&(whole as i32).to_ne_bytes()),
            Self::Int64 => SmallVec::from_slice(&(whole as i64).to_ne_bytes()),
            Self::UInt8 => SmallVec::from_slice(&[whole as u8]),
            Self::UInt16 => SmallVec::from_slice(&(whole as u16).to_ne_bytes()),
            Self::UInt32 => SmallVec::from_slice(&(whole as u32).to_ne_bytes()),
            Self::UInt64 => SmallVec::from_slice(&(whole as u64).to_ne_bytes()),
            Self::Float16 => SmallVec::from_slice(&f16::from_f64(value).to_ne_bytes()),
            Self::BFloat16 => SmallVec::from_slice(&bf16::from_f64(value).to_ne_bytes()),
            Self::Float32 => SmallVec::from_slice(&(value as f32).to_ne_bytes()),
            Self::Float64 => SmallVec::from_slice(&value.to_ne_bytes()),
            Self::Complex64 => {
                let (real, imaginary) = ((value as f32).to_ne_bytes(), 0_f32.to_ne_bytes());
                real.into_iter().chain(imaginary).collect()
            }
            Self::Complex128 => value.to_ne_bytes().into_iter().chain(0_f64.to_ne_bytes()).collect(),
        }
    }

    /// The name in the Open Inference Protocol, version 2 (table "Tensor Data Types"); it has none for complex numbers.
    pub const fn oip_name(self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "BOOL",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::UInt8 => "UINT8",
            Self::UInt16 => "UINT16",
            Self::UInt32 => "UINT32",
            Self::UInt64 => "UINT64",
            Self::Float16 => "FP16",
            Self::BFloat16 => "BF16",
            Self::Float32 => "FP32",
            Self::Float64 => "FP64",
            Self::Complex64 | Self::Complex128 => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_type() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(DType::from_name("float128"), None);
    }
}
