//! One element at a time: what each type takes, and what it refuses.

use half::{bf16, f16};

use super::{DTYPES, bytes, in_memory, scalars, texts};
use crate::error::ErrorKind;

fn accepted(elements: &str, data: &[&str]) -> Vec<u8> {
    let list = format!("[{}]", data.join(","));
    let request = scalars(elements, data.len(), &list).unwrap();
    bytes(&request.rows.columns()[0]).to_vec()
}

fn refused(elements: &str, value: &str) -> String {
    let error = scalars(elements, 1, &format!("[{value}]")).expect_err(&format!("{value} as {elements}"));
    assert_eq!(error.kind(), ErrorKind::Item);
    let message = error.message();
    assert!(message.contains("input 'x'"), "{message}");
    message.to_owned()
}

macro_rules! limits_of_integers {
    ($($name:ident: $kind:ty;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($kind).replacen('i', "int", 1).replacen("uint", "uint", 1);
            let name = if name.starts_with('u') { stringify!($kind).replacen('u', "uint", 1) } else { name };
            let (least, most) = (<$kind>::MIN, <$kind>::MAX);
            let taken = accepted(&name, &[&least.to_string(), "0", "1", &most.to_string()]);
            assert_eq!(taken, in_memory!([least, 0, 1, most]));
            let beyond = [i128::from(least) - 1, i128::from(most) + 1];
            for value in beyond {
                assert!(refused(&name, &value.to_string()).contains(&name));
            }
            for value in ["1.5", "1.0", "1e2", "1e400", "true", "null", "\"1\"", "{}"] {
                refused(&name, value);
            }
        }
    )*};
}

limits_of_integers! {
    int8_takes_its_range_and_nothing_beyond: i8;
    int16_takes_its_range_and_nothing_beyond: i16;
    int32_takes_its_range_and_nothing_beyond: i32;
    int64_takes_its_range_and_nothing_beyond: i64;
    uint8_takes_its_range_and_nothing_beyond: u8;
    uint16_takes_its_range_and_nothing_beyond: u16;
    uint32_takes_its_range_and_nothing_beyond: u32;
    uint64_takes_its_range_and_nothing_beyond: u64;
}

#[test]
fn a_refused_number_is_shown_with_its_type() {
    assert!(refused("uint8", "-1").contains("-1 is no uint8"));
    assert!(refused("int8", "128").contains("128 is no int8"));
    assert!(refused("int32", "1.5").contains("1.5 is no int32"));
    assert!(refused("float32", "true").contains("true is no float32"));
    assert!(refused("bool", "1").contains("1 is no bool"));
    assert!(refused("float32", "\"1\"").contains("a string is no float32"));
}

#[test]
fn a_whole_float_for_an_integer_is_shown_as_the_float_that_it_is() {
    assert!(refused("int32", "1.0").contains("1.0 is no int32"));
}

#[test]
fn bools_are_true_and_false_alone() {
    assert_eq!(accepted("bool", &["true", "false", "true"]), [1, 0, 1]);
    for value in ["1", "0", "1.0", "\"true\"", "null"] {
        refused("bool", value);
    }
}

#[test]
fn floats_take_decimals_and_integers() {
    let values = ["1.5", "-0.0", "3", "-7", "1e3", "0.1"];
    assert_eq!(accepted("float64", &values), in_memory!([1.5_f64, -0.0, 3.0, -7.0, 1e3, 0.1]));
    assert_eq!(accepted("float32", &values), in_memory!([1.5_f32, -0.0, 3.0, -7.0, 1e3, 0.1]));
    let halves = [1.5, -0.0, 3.0, -7.0, 1e3, 0.1].map(f16::from_f64);
    assert_eq!(accepted("float16", &values), in_memory!(halves));
    for elements in ["float16", "float32", "float64"] {
        for value in ["true", "null", "\"1\"", "{}", "NaN", "Infinity", "-Infinity", "1e400"] {
            let list = format!("[{value}]");
            assert!(scalars(elements, 1, &list).is_err(), "{value} as {elements}");
        }
    }
}

#[test]
fn floats_keep_their_limits() {
    let limits = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, f64::EPSILON];
    let texts = limits.map(|value| serde_json::to_string(&value).unwrap());
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(accepted("float64", &texts), in_memory!(limits));
    let limits = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, f32::EPSILON];
    let texts = limits.map(|value| serde_json::to_string(&value).unwrap());
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(accepted("float32", &texts), in_memory!(limits));
    let limits = [f16::MAX, f16::MIN, f16::MIN_POSITIVE, f16::MIN_POSITIVE_SUBNORMAL];
    let texts = limits.map(|value| value.to_f64().to_string());
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(accepted("float16", &texts), in_memory!(limits));
}

/// A number that the sender can write and the type cannot hold must not become an infinity.
#[test]
fn a_float_beyond_its_type_is_refused_as_an_integer_is() {
    assert!(refused("float32", "1e39").contains("no float32"));
    assert!(refused("float32", "-3.5e38").contains("no float32"));
    assert!(refused("float16", "70000").contains("no float16"));
    assert!(refused("float16", "65520.0").contains("no float16"));
    assert_eq!(accepted("float16", &["65504", "65519"]), in_memory!([f16::MAX, f16::MAX]));
    assert_eq!(accepted("float32", &["3.4028235e38"]), in_memory!([f32::MAX]));
}

#[test]
fn integers_too_large_for_any_type_are_rounded_for_floats_and_refused_for_integers() {
    let huge = "123456789012345678901234567890";
    assert_eq!(accepted("float64", &[huge]), in_memory!([123_456_789_012_345_678_901_234_567_890_f64]));
    refused("uint64", huge);
    refused("int64", huge);
}

#[test]
fn minus_zero_is_zero_for_integers_and_itself_for_floats() {
    for dtype in DTYPES.into_iter().filter(|dtype| dtype.name().contains("int")) {
        assert_eq!(accepted(dtype.name(), &["-0", "0"]), vec![0; 2 * dtype.size()]);
    }
    assert_eq!(accepted("float32", &["-0"]), in_memory!([-0.0_f32]));
    assert_eq!(accepted("float64", &["-0"]), in_memory!([-0.0_f64]));
    assert_eq!(accepted("float16", &["-0"]), in_memory!([-f16::ZERO]));
}

#[test]
fn bfloat16_is_rounded_to_its_own_precision_and_refused_beyond_it() {
    let given = ["0.1", "1", "-3.38e38", "1e-40"];
    let expected = [0.1, 1.0, -3.38e38, 1e-40].map(bf16::from_f64);
    assert_eq!(accepted("bfloat16", &given), in_memory!(expected));
    for value in ["3.4e38", "1e39", "true", "\"1\"", "null"] {
        refused("bfloat16", value);
    }
}

#[test]
fn a_number_without_end_is_read_and_shown_in_part() {
    let digits = "1".repeat(100_000);
    assert_eq!(accepted("float64", &[&format!("0.{digits}")]), in_memory!([1.0_f64 / 9.0]));
    assert!(refused("int32", &digits).len() < 200);
    assert!(refused("float64", &digits).len() < 200);
}

#[test]
fn strings_keep_every_character() {
    let given = [
        "",
        "plain",
        "quote \" backslash \\ slash / tab \t newline \n nul \u{0}",
        "Zwölf Boxkämpfer",
        "日本語",
        "🦀 and \u{10FFFF}",
        "e\u{301} and \u{202e}",
    ];
    let list = serde_json::to_string(&given).unwrap();
    for elements in ["string", "bytes"] {
        let request = scalars(elements, given.len(), &list).unwrap();
        let found = texts(&request.rows.columns()[0]);
        assert!(found.into_iter().eq(given.iter().map(|text| text.as_bytes())));
    }
}

#[test]
fn escapes_of_strings_are_resolved_surrogate_pairs_included() {
    let request = scalars("string", 2, r#"["\u0041\/\b\ud83e\udd80", "\u00fc"]"#).unwrap();
    let found = texts(&request.rows.columns()[0]);
    assert_eq!(found, ["A/\u{8}🦀".as_bytes(), "ü".as_bytes()]);
}

#[test]
fn strings_that_are_no_text_are_refused() {
    for list in [r#"["\ud83e"]"#, r#"["\udd80 alone"]"#, r#"["\ud83e\u0041"]"#, r#"["\x41"]"#, "[\"a\nb\"]"] {
        assert!(scalars("string", 1, list).is_err(), "{list}");
    }
    for value in ["1", "1.5", "true", "null", "{}"] {
        refused("string", value);
    }
}

#[test]
fn every_type_is_known_by_its_name_and_size() {
    for dtype in DTYPES {
        let value = if dtype.name() == "bool" { "true" } else { "1" };
        assert_eq!(accepted(dtype.name(), &[value, value]).len(), 2 * dtype.size());
    }
}
