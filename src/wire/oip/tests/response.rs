//! Responses: valid JSON, whatever the numbers and the names.

use std::sync::Arc;

use half::{bf16, f16};
use serde_json::{Value, json};

use super::super::{
    AnswerRow, InferResponse, WantedOutput, error_body, model_metadata, model_ready, server_metadata,
};
use super::{DTYPES, in_memory, spares, spec};
use crate::error::ErrorKind;
use crate::tensor::{Column, ColumnSpec, DType, TensorSpec};

fn numbers(dtype: DType, axes: &[usize], bytes: &[u8]) -> Column {
    let spec = ColumnSpec::Numbers { dtype, shape: axes.into() };
    let mut column = Column::new(&spec, &spares());
    if let Column::Numbers { memory, .. } = &mut column {
        memory.extend(bytes);
    }
    column
}

fn strings(axes: &[usize], values: &[&[u8]]) -> Column {
    let mut column = Column::new(&ColumnSpec::Texts { shape: axes.into() }, &spares());
    if let Column::Texts { texts, .. } = &mut column {
        for value in values {
            texts.push(value);
        }
    }
    column
}

fn respond(outputs: &[TensorSpec], wanted: Option<&[WantedOutput]>, rows: &[AnswerRow]) -> Value {
    let response = InferResponse {
        model: "mödel \"1\"",
        version: "2",
        id: Some("a\n🦀"),
        outputs,
        wanted,
        binary: false,
        rows,
    };
    serde_json::from_slice(&response.encode().body).unwrap()
}

/// The response for all rows of one batch with one output.
fn output(elements: &str, column: Column, count: usize) -> Value {
    let axes = match &column {
        Column::Numbers { shape, .. } | Column::Texts { shape, .. } => shape.len(),
        Column::Objects(_) => 0,
    };
    let columns = Arc::new(vec![column]);
    let rows: Vec<_> = (0..count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let mut response = respond(&[spec("y", elements, &vec![-1; axes])], None, &rows);
    response["outputs"][0].take()
}

#[test]
fn a_response_names_its_model_and_echoes_the_id() {
    let column = numbers(DType::Int8, &[], &[7]);
    let rows = [AnswerRow::new(Arc::new(vec![column]), 0)];
    let outputs = [spec("y\"", "int8", &[])];
    let expected = json!({
        "model_name": "mödel \"1\"", "model_version": "2", "id": "a\n🦀",
        "outputs": [{"name": "y\"", "datatype": "INT8", "shape": [1], "data": [7]}],
    });
    assert_eq!(respond(&outputs, None, &rows), expected);
    let without = InferResponse {
        model: "m",
        version: "1",
        id: None,
        outputs: &outputs,
        wanted: None,
        binary: false,
        rows: &rows,
    };
    let without: Value = serde_json::from_slice(&without.encode().body).unwrap();
    assert_eq!(without.get("id"), None);
}

#[test]
fn every_type_is_written_as_what_it_is() {
    macro_rules! written {
        ($dtype:ident, $values:expr) => {{
            let (values, bytes) = ($values, in_memory!($values));
            let found = output(DType::$dtype.name(), numbers(DType::$dtype, &[], &bytes), values.len());
            assert_eq!(found["datatype"], DType::$dtype.oip_name().unwrap());
            assert_eq!(found["data"], json!(values));
        }};
    }
    written!(Int8, [i8::MIN, 0, i8::MAX]);
    written!(Int16, [i16::MIN, 0, i16::MAX]);
    written!(Int32, [i32::MIN, 0, i32::MAX]);
    written!(Int64, [i64::MIN, 0, i64::MAX]);
    written!(UInt8, [0, u8::MAX]);
    written!(UInt16, [0, u16::MAX]);
    written!(UInt32, [0, u32::MAX]);
    written!(UInt64, [0, u64::MAX]);
    written!(Float64, [0.0, -0.0, 0.1, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e21]);
    let bools = output("bool", numbers(DType::Bool, &[], &[0, 1, 255]), 3);
    assert_eq!(bools["data"], json!([false, true, true]));
    let halves = [f16::MAX, f16::MIN_POSITIVE_SUBNORMAL, f16::from_f32(0.1)];
    let found = output("float16", numbers(DType::Float16, &[], &in_memory!(halves)), 3);
    assert_eq!(found["data"], json!([65504.0, 5.960_464_5e-8, 0.099_975_586]));
    let halves = [bf16::MAX, bf16::from_f32(0.1)];
    let found = output("bfloat16", numbers(DType::BFloat16, &[], &in_memory!(halves)), 2);
    assert_eq!(found["data"], json!([3.389_531_4e38, 0.100_097_656]));
    let singles = output("float32", numbers(DType::Float32, &[], &in_memory!([0.1_f32, f32::MAX])), 2);
    assert_eq!(singles["data"], json!([0.1, 3.402_823_5e38]));
}

#[test]
fn numbers_that_json_has_no_word_for_are_null() {
    let wide = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0];
    let found = output("float64", numbers(DType::Float64, &[5], &in_memory!(wide)), 1);
    assert_eq!(found["data"], json!([null, null, null, null, 1.0]));
    let single = [f32::NAN, f32::INFINITY, -1.0];
    let found = output("float32", numbers(DType::Float32, &[3], &in_memory!(single)), 1);
    assert_eq!(found["data"], json!([null, null, -1.0]));
    let half = [f16::NAN, f16::NEG_INFINITY, f16::ONE];
    let found = output("float16", numbers(DType::Float16, &[3], &in_memory!(half)), 1);
    assert_eq!(found["data"], json!([null, null, 1.0]));
}

#[test]
fn rows_of_several_batches_make_one_tensor() {
    let first = Arc::new(vec![
        numbers(DType::Int16, &[2], &in_memory!([0_i16, 1, 10, 11])),
        strings(&[], &[b"a", b"b"]),
    ]);
    let second =
        Arc::new(vec![numbers(DType::Int16, &[2], &in_memory!([20_i16, 21])), strings(&[], &[b"c"])]);
    let row = |columns: &Arc<Vec<Column>>, row| AnswerRow::new(Arc::clone(columns), row);
    let rows = [row(&second, 0), row(&first, 1), row(&first, 0)];
    let found = respond(&[spec("n", "int16", &[2]), spec("s", "string", &[])], None, &rows);
    let expected = json!([
        {"name": "n", "datatype": "INT16", "shape": [3, 2], "data": [20, 21, 10, 11, 0, 1]},
        {"name": "s", "datatype": "BYTES", "shape": [3], "data": ["c", "b", "a"]},
    ]);
    assert_eq!(found["outputs"], expected);
}

#[test]
fn wanted_outputs_alone_are_sent_in_the_order_of_the_model() {
    let columns: Vec<_> = (0..3).map(|value| numbers(DType::UInt8, &[], &[value])).collect();
    let rows = [AnswerRow::new(Arc::new(columns), 0)];
    let outputs = ["a", "b", "c"].map(|name| spec(name, "uint8", &[]));
    let names = |wanted: &[&str]| {
        let index = |name: &&str| outputs.iter().position(|spec| spec.name == *name).unwrap();
        let wanted: Vec<_> =
            wanted.iter().map(|name| WantedOutput { index: index(name), binary: false }).collect();
        let found = respond(&outputs, Some(&wanted), &rows);
        let found = found["outputs"].as_array().unwrap().clone();
        found.iter().map(|output| (output["name"].clone(), output["data"][0].clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&["c", "a"]), [(json!("a"), json!(0)), (json!("c"), json!(2))]);
    assert_eq!(names(&["b"]), [(json!("b"), json!(1))]);
}

#[test]
fn rows_without_elements_are_empty_data() {
    let found = output("float32", numbers(DType::Float32, &[2, 0], &[]), 3);
    assert_eq!((&found["shape"], &found["data"]), (&json!([3, 2, 0]), &json!([])));
}

#[test]
fn strings_are_escaped_and_what_is_no_text_is_shown_as_such() {
    let values: [&[u8]; 4] = [b"\"\\\n\t\x00", "日本🦀".as_bytes(), b"", b"a\xffb"];
    let found = output("string", strings(&[2], &values), 2);
    assert_eq!(found["shape"], json!([2, 2]));
    assert_eq!(found["data"], json!(["\"\\\n\t\u{0}", "日本🦀", "", "a\u{fffd}b"]));
}

/// The answer with some outputs binary: its JSON, and what follows.
fn mixed(response: &InferResponse<'_>) -> (Value, Vec<u8>) {
    let mut encoded = response.encode();
    let data = encoded.body.split_off(encoded.header_length.unwrap());
    (serde_json::from_slice(&encoded.body).unwrap(), data)
}

fn answer<'a>(outputs: &'a [TensorSpec], rows: &'a [AnswerRow], binary: bool) -> InferResponse<'a> {
    InferResponse { model: "m", version: "1", id: None, outputs, wanted: None, binary, rows }
}

#[test]
fn binary_outputs_follow_the_json_in_its_order() {
    let first = Arc::new(vec![
        numbers(DType::Int16, &[], &in_memory!([1_i16, 2, 3])),
        strings(&[2], &[b"a", b"", b"\xff", b"bc", b"d", b"e"]),
        numbers(DType::Bool, &[], &[0, 1, 255]),
    ]);
    let second = Arc::new(vec![
        numbers(DType::Int16, &[], &in_memory!([258_i16])),
        strings(&[2], &[b"", b"z"]),
        numbers(DType::Bool, &[], &[1]),
    ]);
    let row = |columns: &Arc<Vec<Column>>, row| AnswerRow::new(Arc::clone(columns), row);
    let rows = [row(&first, 1), row(&first, 2), row(&second, 0), row(&first, 0)];
    let outputs = [spec("n", "int16", &[]), spec("t", "bytes", &[2]), spec("b", "bool", &[])];
    let (json, data) = mixed(&answer(&outputs, &rows, true));
    let of = |name, datatype, shape: &[usize], size: usize| json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}});
    let expected =
        json!([of("n", "INT16", &[4], 8), of("t", "BYTES", &[4, 2], 39), of("b", "BOOL", &[4], 4)]);
    assert_eq!(json["outputs"], expected);
    let texts = b"\x01\0\0\0\xff\x02\0\0\0bc\x01\0\0\0d\x01\0\0\0e\0\0\0\0\x01\0\0\0z\x01\0\0\0a\0\0\0\0";
    assert_eq!(data, [&[2, 0, 3, 0, 2, 1, 1, 0], &texts[..], &[1, 1, 1, 0]].concat());
}

#[test]
fn each_output_is_sent_as_it_was_asked_for() {
    let columns = Arc::new(vec![numbers(DType::UInt8, &[], &[7]), numbers(DType::UInt8, &[], &[8])]);
    let rows = [AnswerRow::new(columns, 0)];
    let outputs = [spec("a", "uint8", &[]), spec("b", "uint8", &[])];
    let wanted = [WantedOutput { index: 1, binary: true }, WantedOutput { index: 0, binary: false }];
    let response = InferResponse { wanted: Some(&wanted), ..answer(&outputs, &rows, false) };
    let (json, data) = mixed(&response);
    assert_eq!((&json["outputs"][0]["data"], data), (&json!([7]), vec![8]));
    assert_eq!(json["outputs"][1].get("data"), None);
    // What is wanted by name says itself how.
    let response = InferResponse { wanted: Some(&wanted[1..]), ..answer(&outputs, &rows, true) };
    assert_eq!(response.encode().header_length, None);
}

#[test]
fn numbers_that_json_has_no_word_for_are_kept_by_binary_data() {
    let values = [f32::NAN, f32::INFINITY, -0.0, f32::from_bits(0x7fa0_0001)];
    let columns = Arc::new(vec![numbers(DType::Float32, &[4], &in_memory!(values))]);
    let rows = [AnswerRow::new(columns, 0)];
    let (_, data) = mixed(&answer(&[spec("y", "float32", &[4])], &rows, true));
    let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(data, expected);
}

#[test]
fn what_a_response_cannot_say_is_found_before_it_is_written() {
    let rows = [AnswerRow::new(Arc::new(vec![strings(&[], &[b"a\xff"])]), 0)];
    let outputs = [spec("y", "bytes", &[])];
    let error = answer(&outputs, &rows, false).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Output);
    assert!(error.message().contains("'y'") && error.message().contains("utf-8"), "{error}");
    answer(&outputs, &rows, true).check().unwrap();
    let column = |length: usize| Arc::new(vec![numbers(DType::UInt8, &[length], &vec![1; length])]);
    let rows = [2, 3].map(|length| AnswerRow::new(column(length), 0));
    let error = answer(&[spec("y", "uint8", &[-1])], &rows, true).check().unwrap_err();
    assert!(error.message().contains("different shapes"), "{error}");
}

#[test]
fn a_body_is_allocated_once() {
    // Every bit pattern that begins with a sign is long in some type.
    for (dtype, byte) in
        DTYPES.into_iter().flat_map(|dtype| [0x00, 0x01, 0x80, 0x81].map(|byte| (dtype, byte)))
    {
        let column = numbers(dtype, &[100], &vec![byte; 100 * dtype.size()]);
        let rows = [AnswerRow::new(Arc::new(vec![column]), 0)];
        let outputs = [spec("y", dtype.name(), &[100])];
        for binary in [false, true] {
            let response = answer(&outputs, &rows, binary);
            let (ahead, body) = (response.size_ahead(&response.parts()), response.encode().body);
            assert!(body.len() <= ahead, "{dtype:?}: {} bytes where {ahead} were expected", body.len());
        }
    }
}

#[test]
fn metadata_and_errors_are_valid_json() {
    let inputs: Vec<_> = DTYPES.iter().map(|dtype| spec(dtype.name(), dtype.name(), &[3, -1])).collect();
    let body = model_metadata("m\"", &["2".to_owned(), "1".to_owned()], &inputs, &[spec("t", "string", &[])]);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["name"], &body["versions"]), (&json!("m\""), &json!(["2", "1"])));
    for (dtype, input) in DTYPES.iter().zip(body["inputs"].as_array().unwrap()) {
        let expected = json!({"name": dtype.name(), "datatype": dtype.oip_name(), "shape": [-1, 3, -1]});
        assert_eq!(*input, expected);
    }
    assert_eq!(body["outputs"], json!([{"name": "t", "datatype": "BYTES", "shape": [-1]}]));
    for (repository, extensions) in [
        (false, &["binary_tensor_data"][..]),
        (true, &["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"]),
    ] {
        let body: Value = serde_json::from_slice(&server_metadata("penstock", "0", repository)).unwrap();
        assert_eq!(body, json!({"name": "penstock", "version": "0", "extensions": extensions}));
    }
    let body: Value = serde_json::from_slice(&model_ready("m", false)).unwrap();
    assert_eq!(body, json!({"name": "m", "ready": false}));
    let body: Value = serde_json::from_slice(&error_body("a \"b\"\n\u{1}")).unwrap();
    assert_eq!(body, json!({"error": "a \"b\"\n\u{1}"}));
}
