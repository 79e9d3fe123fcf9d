//! The request around the data: names, types, shapes, and what else may stand in it.

use super::super::WantedOutput;
use super::{body_of, bytes, in_memory, parse, refusal, spec};
use crate::tensor::{ColumnSpec, DType, TensorSpec};

fn one() -> [TensorSpec; 1] {
    [spec("x", "float32", &[2])]
}

fn two() -> [TensorSpec; 2] {
    [spec("a", "float32", &[]), spec("b", "int64", &[-1])]
}

const A: &str = r#"{"name":"a","shape":[2],"datatype":"FP32","data":[0.5,1]}"#;
const B: &str = r#"{"name":"b","shape":[2,3],"datatype":"INT64","data":[[1,2,3],[4,5,6]]}"#;

#[test]
fn a_request_becomes_columns_in_the_order_of_the_model() {
    for body in [format!(r#"{{"inputs":[{A},{B}]}}"#), format!(r#"{{"inputs":[{B},{A}]}}"#)] {
        let request = parse(&body, &two()).unwrap();
        assert_eq!((request.count, request.id, request.outputs), (2, None, None));
        let [first, second] = request.rows.columns() else { panic!("not two columns") };
        assert_eq!(bytes(first), in_memory!([0.5_f32, 1.0]));
        assert_eq!(bytes(second), in_memory!([1_i64, 2, 3, 4, 5, 6]));
        let numbers = |dtype, axes: &[usize]| ColumnSpec::Numbers { dtype, shape: axes.into() };
        let expected = [numbers(DType::Float32, &[]), numbers(DType::Int64, &[3])];
        assert_eq!(request.specs.as_slice(), expected);
    }
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_passed_over() {
    let body = r#" {
        "parameters": {"timeout": 5, "deep": [[{"a": null}]]},
        "inputs": [{"data": [1, 2], "parameters": {"note": 7}, "datatype": "FP32",
                    "extra": "\u0041", "shape": [1, 2], "name": "x"}],
        "id": "late", "trailing": false
    } "#;
    let request = parse(body, &one()).unwrap();
    assert_eq!(bytes(&request.rows.columns()[0]), in_memory!([1_f32, 2.0]));
    assert_eq!(request.id.as_deref(), Some("late"));
}

#[test]
fn names_and_ids_are_compared_after_their_escapes_are_resolved() {
    let body = body_of("float32", "[1,2]", "[1,2]").replacen("\"x\"", r#""\u0078""#, 1);
    let body = body.replacen('{', r#"{"id":"a\"\u00fc\ud83e\udd80","#, 1);
    assert_eq!(parse(&body, &one()).unwrap().id.as_deref(), Some("a\"ü🦀"));
}

#[test]
fn an_id_may_be_absent_null_or_empty_and_must_be_text() {
    let with = |id: &str| body_of("float32", "[1,2]", "[1,2]").replacen('{', &format!("{{\"id\":{id},"), 1);
    assert_eq!(parse(&with("null"), &one()).unwrap().id, None);
    assert_eq!(parse(&with("\"\""), &one()).unwrap().id.as_deref(), Some(""));
    refusal(&with("7"), &one());
}

#[test]
fn inputs_are_there_once_each_and_no_others() {
    let missing = refusal(&format!(r#"{{"inputs":[{A}]}}"#), &two());
    assert!(missing.contains("'b' is missing"), "{missing}");
    let twice = refusal(&format!(r#"{{"inputs":[{A},{B},{A}]}}"#), &two());
    assert!(twice.contains("'a' is given twice"), "{twice}");
    let unknown = B.replacen("\"b\"", "\"c\"", 1);
    let unknown = refusal(&format!(r#"{{"inputs":[{A},{B},{unknown}]}}"#), &two());
    assert!(unknown.contains("no input 'c'") && unknown.contains(r#"["a", "b"]"#), "{unknown}");
    assert!(refusal(r#"{"inputs":[]}"#, &two()).contains("'a' is missing"));
}

#[test]
fn a_data_type_other_than_the_declared_one_is_refused_even_where_it_would_fit() {
    for datatype in ["FP64", "FP16", "INT32", "fp32", "BYTES", "BF16", "", "float32"] {
        let body = body_of("float32", "[1,2]", "[1,2]").replacen("FP32", datatype, 1);
        let message = refusal(&body, &one());
        assert!(message.contains(datatype) && message.contains("FP32"), "{message}");
    }
}

#[test]
fn a_shape_other_than_the_declared_one_is_refused() {
    for shape in ["[2]", "[1,3]", "[1,1,2]", "[]", "[2,1]", "[1,2,1]"] {
        let message = refusal(&body_of("float32", shape, "[1,2]"), &one());
        assert!(message.contains("input 'x'") && message.contains("[2]"), "{message}");
    }
    for shape in ["[-1,2]", "[1.0,2]", "\"[1,2]\"", "null", "[\"1\",2]", "7", "[1e3,2]"] {
        refusal(&body_of("float32", shape, "[1,2]"), &one());
    }
}

#[test]
fn no_rows_are_no_request() {
    assert!(refusal(&body_of("float32", "[0,2]", "[]"), &one()).contains("no rows"));
}

#[test]
fn inputs_have_the_same_number_of_rows() {
    let shorter = A.replacen("[2]", "[1]", 1).replacen("[0.5,1]", "[0.5]", 1);
    let message = refusal(&format!(r#"{{"inputs":[{shorter},{B}]}}"#), &two());
    assert!(message.contains("different numbers of rows"), "{message}");
}

#[test]
fn shapes_beyond_all_memory_are_refused_before_any_is_taken() {
    let any = [spec("x", "float32", &[-1])];
    let wide = [spec("x", "float32", &[-1, -1])];
    for shape in [
        "[4294967297,1]",
        "[1,4294967297]",
        "[18446744073709551615,2]",
        "[9223372036854775808,2]",
        "[65536,65537]",
    ] {
        assert!(refusal(&body_of("float32", shape, "[1]"), &any).contains("elements"), "{shape}");
    }
    refusal(&body_of("float32", "[18446744073709551616,1]", "[1]"), &any);
    refusal(&body_of("float32", "[18446744073709551615,18446744073709551615,0]", "[]"), &wide);
    refusal(&body_of("float32", "[1,18446744073709551615,18446744073709551615]", "[1]"), &wide);
    // At the limit the shape passes, and the data does not fit it: what is allocated is what was sent.
    let message = refusal(&body_of("float32", "[4294967296,1]", "[1]"), &any);
    assert!(message.contains("1 values where"), "{message}");
}

/// Rows without elements cost no data: their number alone must not be believed.
#[test]
fn more_rows_than_the_body_could_hold_are_refused() {
    let any = [spec("x", "float32", &[-1])];
    for rows in ["18446744073709551615", "1099511627776", "4294967297"] {
        refusal(&body_of("float32", &format!("[{rows},0]"), "[]"), &any);
    }
}

#[test]
fn wanted_outputs_are_named_and_known() {
    let with = |outputs: &str| {
        body_of("float32", "[1,2]", "[1,2]").replacen('{', &format!("{{\"outputs\":{outputs},"), 1)
    };
    let wanted = |outputs: &str| parse(&with(outputs), &one()).unwrap().outputs;
    let indices = |indices: &[usize]| {
        Some(indices.iter().map(|index| WantedOutput { index: *index, binary: false }).collect())
    };
    assert_eq!((wanted("null"), wanted("[]")), (None, None));
    assert_eq!(wanted(r#"[{"name":"z"}]"#), indices(&[1]));
    let both = r#"[{"name":"z","parameters":{"binary_data":false}},{"name":"\u0079"}]"#;
    assert_eq!(wanted(both), indices(&[1, 0]));
    let message = refusal(&with(r#"[{"name":"w"}]"#), &one());
    assert!(message.contains("no output 'w'") && message.contains(r#"["y", "z"]"#), "{message}");
    for outputs in ["7", "[7]", "[{}]", r#"[{"name":1}]"#, r#"[["z"]]"#, r#"[{"name":"z"},{"name":"z"}]"#] {
        refusal(&with(outputs), &one());
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let whole = body_of("float32", "[1,2]", "[1,2]");
    for body in ["", " ", "null", "7", "{}", "[]", "{\"inputs\":7}", "{\"inputs\":[7]}", "{\"inputs\":[{}]}"]
    {
        refusal(body, &one());
    }
    for length in 0..whole.len() {
        refusal(&whole[..length], &one());
    }
    refusal(&format!("{whole}x"), &one());
    refusal(&format!("{whole}{whole}"), &one());
    refusal(&whole.replacen('{', r#"{"inputs":[],"#, 1), &one());
    refusal(&whole.replacen("\"name\"", "\"shape\"", 1), &one());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let whole = body_of("string", "[1]", "[\"ab\"]").into_bytes();
    let at = whole.windows(2).position(|two| two == b"ab").unwrap();
    for wrong in [[0xff, 0xfe], [0xc3, b'b'], [0xed, 0xa0]] {
        let mut body = whole.clone();
        body[at..at + 2].copy_from_slice(&wrong);
        let inputs = [spec("x", "string", &[])];
        let parsed = super::InferRequest::parse(&body, None, &inputs, &[], &super::spares());
        assert!(parsed.is_err(), "{wrong:x?}");
    }
    refusal("\u{feff}{\"inputs\":[]}", &one());
}

#[test]
fn memory_of_refused_requests_goes_back() {
    let spares = super::spares();
    for _ in 0..3 {
        let body = body_of("float32", "[2,2]", "[1,2,3]");
        super::InferRequest::parse(body.as_bytes(), None, &one(), &[], &spares).unwrap_err();
    }
    assert_eq!(std::sync::Arc::strong_count(&spares), 1);
}
