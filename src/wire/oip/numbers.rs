//! One number: from JSON, to JSON, and as it lies in memory.

use half::{bf16, f16};

/// A number of one of the protocol's data types.
pub(super) trait Number: Copy {
    /// Reads what JSON has for it; `None` where the type cannot hold it. Floats are rounded to the nearest, once.
    fn parse(token: &str) -> Option<Self>;
    /// Writes it as JSON; `null` for what JSON has no word for.
    fn show(self, out: &mut Vec<u8>);
    /// Reads it from memory of its size.
    fn load(place: &[u8]) -> Self;
    /// Writes it to memory of its size.
    fn store(self, place: &mut [u8]);
}

macro_rules! in_memory {
    () => {
        fn load(place: &[u8]) -> Self {
            place.try_into().map_or(Self::default(), Self::from_ne_bytes)
        }

        fn store(self, place: &mut [u8]) {
            place.copy_from_slice(&self.to_ne_bytes());
        }
    };
}

macro_rules! integers {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            fn parse(token: &str) -> Option<Self> {
                // Unsigned types know no sign.
                if token == "-0" { Some(0) } else { token.parse().ok() }
            }

            fn show(self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(self).as_bytes());
            }

            in_memory!();
        }
    )*};
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! floats {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            fn parse(token: &str) -> Option<Self> {
                token.parse::<$kind>().ok().filter(|value| value.is_finite())
            }

            fn show(self, out: &mut Vec<u8>) {
                if self.is_finite() {
                    out.extend_from_slice(ryu::Buffer::new().format_finite(self).as_bytes());
                } else {
                    out.extend_from_slice(b"null");
                }
            }

            in_memory!();
        }
    )*};
}

floats!(f32 f64);

macro_rules! halves {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            fn parse(token: &str) -> Option<Self> {
                let value = <$kind>::from_f64(token.parse().ok()?);
                value.is_finite().then_some(value)
            }

            fn show(self, out: &mut Vec<u8>) {
                f32::from(self).show(out);
            }

            in_memory!();
        }
    )*};
}

halves!(f16 bf16);

impl Number for bool {
    fn parse(token: &str) -> Option<Self> {
        token.parse().ok()
    }

    fn show(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self { b"true" } else { b"false" });
    }

    fn load(place: &[u8]) -> Self {
        place != [0]
    }

    fn store(self, place: &mut [u8]) {
        place.fill(u8::from(self));
    }
}

/// Evaluates `$body` with `$kind` standing for the type of `$dtype`; `$none` for types that the protocol has no name for.
macro_rules! with_number {
    ($dtype:expr, $kind:ident => $body:expr, $none:expr) => {
        with_number!(@match $dtype, $kind, $body, $none;
            Bool bool, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8, UInt16 u16, UInt32 u32, UInt64 u64,
            Float16 half::f16, BFloat16 half::bf16, Float32 f32, Float64 f64)
    };
    (@match $dtype:expr, $kind:ident, $body:expr, $none:expr; $($variant:ident $type:ty),*) => {
        match $dtype {
            $(crate::tensor::DType::$variant => {
                type $kind = $type;
                $body
            })*
            crate::tensor::DType::Complex64 | crate::tensor::DType::Complex128 => $none,
        }
    };
}
pub(super) use with_number;
