//! What the check of inference answers accepts.

use std::time::Instant;

use http::StatusCode;

use crate::bench::check::inference;
use crate::bench::link::Whole;

fn answer(status: u16, body: &[u8], json_length: Option<usize>) -> Whole {
    let (status, now) = (StatusCode::from_u16(status).unwrap(), Instant::now());
    let body = body.to_vec();
    let length = body.len() as u64;
    Whole { status, length, body, json_length, retry_after: false, code: None, began: now, ended: now }
}

fn says(body: &str) -> Result<(), String> {
    inference(&answer(200, body.as_bytes(), None))
}

fn output(rest: &str) -> String {
    format!(r#"{{"model_name": "m", "outputs": [{{"name": "y", {rest}}}]}}"#)
}

#[test]
fn inference_responses_pass() {
    for rest in [
        r#""datatype": "FP32", "shape": [2, 2], "data": [1.5, null, -3, 4]"#,
        r#""datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]"#,
        r#""datatype": "BYTES", "shape": [1], "data": ["a\n"]"#,
        r#""datatype": "BOOL", "shape": [0], "data": [], "parameters": {"other": 1}"#,
    ] {
        assert_eq!(says(&output(rest)), Ok(()), "{rest}");
    }
}

#[test]
fn binary_tensors_pass_where_their_sizes_agree() {
    let head = output(r#""datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}"#);
    let with = |bytes: usize, length: usize| {
        inference(&answer(200, &[head.as_bytes(), &vec![0; bytes]].concat(), Some(length)))
    };
    assert_eq!(with(8, head.len()), Ok(()));
    assert!(with(7, head.len()).unwrap_err().contains("announce 8 bytes"));
    assert!(with(0, head.len() + 1).unwrap_err().contains("of"));
    let lying = output(r#""datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 4}"#);
    let lie = inference(&answer(200, &[lying.as_bytes(), &[0; 4]].concat(), Some(lying.len())));
    assert!(lie.unwrap_err().contains("4 bytes for 2 values"));
}

#[test]
fn everything_else_is_refused() {
    let status = inference(&answer(503, b"{}", None));
    assert_eq!(status, Err("its status is 503".to_owned()));
    for (body, reason) in [
        ("hello", "no inference response"),
        (r#"{"error": "no"}"#, "no inference response"),
        (r#"{"model_name": "m", "outputs": []}"#, "no output"),
    ] {
        assert!(says(body).unwrap_err().contains(reason), "{body}");
    }
    for (rest, reason) in [
        (r#""datatype": "FP32", "shape": [2], "data": [1]"#, "1 values for a shape of 2"),
        (r#""datatype": "FP31", "shape": [1], "data": [1]"#, "FP31"),
        (r#""datatype": "FP32", "shape": [1]"#, "no data"),
        (r#""datatype": "FP32", "shape": [1], "data": [1], "parameters": {"binary_data_size": 4}"#, "twice"),
        (r#""datatype": "FP32", "shape": [1], "data": [{"a": 1}]"#, "no value"),
        (r#""datatype": "FP32", "shape": [18446744073709551615, 2], "data": [1]"#, "too large"),
    ] {
        assert!(says(&output(rest)).unwrap_err().contains(reason), "{rest}");
    }
}
