//! One number: from JSON, to JSON, and as it lies in memory.

use half::{bf16, f16};

/// A number of one of the protocol's data types.
pub(super) trait Number: Copy {
    /// Reads what JSON has for it; `None` where the type cannot hold it. Floats are rounded to the nearest, once.
    fn parse(token: &str) -> Option<Self>;
    /// The same for a number as numbers usually are; `None` where [`parse`](Self::parse) has to look at it.
    fn from_short(short: &Short) -> Option<Self>;
    /// Writes it as JSON; `null` for what JSON has no word for.
    fn show(self, out: &mut Vec<u8>);
    /// Reads it from memory of its size.
    fn load(place: &[u8]) -> Self;
    /// Writes it to memory of its size.
    fn store(self, place: &mut [u8]);
}

/// A number of at most [`MOST_DIGITS`] digits and without an exponent.
pub(super) struct Short {
    negative: bool,
    /// Its digits, as if there were no point.
    digits: i64,
    /// Digits after the point, where there is one.
    scale: Option<usize>,
    /// Bytes that it takes.
    pub(super) length: usize,
}

/// As many digits as always fit 63 bits.
const MOST_DIGITS: usize = 18;

/// The powers of ten that a double holds exactly, as far as they are needed here.
const POWERS: [f64; MOST_DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

impl Short {
    /// The number that well-formed `json` begins with; `None` where it is longer, has an exponent or is no number.
    pub(super) fn of(json: &[u8]) -> Option<Self> {
        let unsigned = json.strip_prefix(b"-").unwrap_or(json);
        let (mut digits, mut rest) = add_digits(0, unsigned);
        let mut count = unsigned.len() - rest.len();
        let mut scale = None;
        if let [b'.', fraction @ ..] = rest {
            (digits, rest) = add_digits(digits, fraction);
            let length = fraction.len() - rest.len();
            count += length;
            scale = Some(length);
        }
        let ends = matches!(rest, [b',' | b']' | b' ' | b'\t' | b'\n' | b'\r', ..]);
        let short =
            Self { negative: unsigned.len() < json.len(), digits, scale, length: json.len() - rest.len() };
        (ends && (1..=MOST_DIGITS).contains(&count)).then_some(short)
    }

    fn whole(&self) -> i64 {
        if self.negative { -self.digits } else { self.digits }
    }

    /// Right where the digits are few enough for a double: a division of two exact numbers is rounded once.
    #[allow(clippy::cast_precision_loss, reason = "digits that a double cannot hold are refused")]
    fn to_f64(&self) -> Option<f64> {
        const EXACT: i64 = 1 << f64::MANTISSA_DIGITS;
        (self.digits <= EXACT).then(|| self.about()).flatten()
    }

    /// Right where the double that is at most two units off lies away from the middle of two singles.
    #[allow(clippy::cast_possible_truncation, reason = "rounding to a single is what is wanted")]
    fn to_f32(&self) -> Option<f32> {
        const BELOW: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
        const MIDDLE: u64 = 1 << (BELOW - 1);
        const MARGIN: u64 = 8;
        let double = self.about()?;
        let below = double.to_bits() & ((1 << BELOW) - 1);
        (below.abs_diff(MIDDLE) > MARGIN).then_some(double as f32)
    }

    /// Two roundings: of the digits and of the division.
    #[allow(clippy::cast_precision_loss, reason = "who calls knows what is lost")]
    fn about(&self) -> Option<f64> {
        let value = self.digits as f64 / POWERS.get(self.scale.unwrap_or(0))?;
        Some(if self.negative { -value } else { value })
    }
}

/// Appends the digits that `json` begins with to those of `before`, and gives what follows them.
fn add_digits(before: i64, json: &[u8]) -> (i64, &[u8]) {
    let (mut digits, mut rest) = (before, json);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        digits = digits.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        rest = after;
    }
    (digits, rest)
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

            fn from_short(short: &Short) -> Option<Self> {
                if short.scale.is_some() { None } else { short.whole().try_into().ok() }
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
    ($($kind:ty, $from_short:path;)*) => {$(
        impl Number for $kind {
            fn parse(token: &str) -> Option<Self> {
                token.parse::<$kind>().ok().filter(|value| value.is_finite())
            }

            fn from_short(short: &Short) -> Option<Self> {
                $from_short(short)
            }

            fn show(self, out: &mut Vec<u8>) {
                if self.is_finite() {
                    out.extend_from_slice(zmij::Buffer::new().format_finite(self).as_bytes());
                } else {
                    out.extend_from_slice(b"null");
                }
            }

            in_memory!();
        }
    )*};
}

floats!(f32, Short::to_f32; f64, Short::to_f64;);

macro_rules! halves {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            fn parse(token: &str) -> Option<Self> {
                let value = <$kind>::from_f64(token.parse().ok()?);
                value.is_finite().then_some(value)
            }

            fn from_short(_: &Short) -> Option<Self> {
                None
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

    fn from_short(_: &Short) -> Option<Self> {
        None
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
