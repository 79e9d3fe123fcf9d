//! Random tensors to text and back: no bit may change.

use std::fmt::Write;
use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::Value;

use super::super::{AnswerRow, InferResponse};
use super::{InferRequest, body_of, bytes, in_memory, parse, spec, texts};
use crate::tensor::Elements;

/// Axes of one row and the number of rows.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    (1_usize..4, proptest::collection::vec(1_usize..4, 0..4))
        .prop_map(|(rows, axes)| [vec![rows], axes].concat())
}

/// Numbers of a kind for a shape, and whether they are to be nested.
fn arrays<T: std::fmt::Debug>(
    element: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = (Vec<usize>, Vec<T>, bool)> {
    shapes().prop_flat_map(move |shape| {
        let count = shape.iter().product::<usize>();
        let values = proptest::collection::vec(element.clone(), count);
        (Just(shape), values, any::<bool>())
    })
}

/// The elements as JSON lists, as deep as the shape says or flat.
fn listed(shape: &[usize], elements: &[String], nested: bool) -> String {
    match shape.split_first() {
        Some((length, inner)) if nested && !inner.is_empty() => {
            let parts = elements.chunks(elements.len() / length);
            let parts: Vec<_> = parts.map(|part| listed(inner, part, true)).collect();
            format!("[{}]", parts.join(", "))
        }
        _ => format!("[{}]", elements.join(",")),
    }
}

fn request(elements: &str, shape: &[usize], data: &[String], nested: bool) -> InferRequest {
    let inputs = [spec("x", elements, &vec![-1; shape.len() - 1])];
    let body = body_of(elements, &format!("{shape:?}"), &listed(shape, data, nested));
    let request = parse(&body, &inputs).unwrap();
    assert_eq!(request.count, shape[0]);
    request
}

/// What a model that returns its input would answer, read again as a request.
fn echoed(elements: &str, request: InferRequest) -> InferRequest {
    let count = request.count;
    let axes = request.specs[0].clone();
    let columns = Arc::new(request.rows.into_columns().into_vec());
    let rows: Vec<_> = (0..count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let axes = match axes {
        crate::tensor::ColumnSpec::Numbers { shape, .. } | crate::tensor::ColumnSpec::Texts { shape } => {
            vec![-1; shape.len()]
        }
        crate::tensor::ColumnSpec::Objects => Vec::new(),
    };
    let specs = [spec("x", elements, &axes)];
    assert!(matches!(specs[0].elements, Elements::Numbers(_) | Elements::Text));
    let response = InferResponse {
        model: "m",
        version: "1",
        id: None,
        outputs: &specs,
        wanted: None,
        binary: false,
        rows: &rows,
    };
    let response = String::from_utf8(response.encode().body).unwrap();
    let _: Value = serde_json::from_str(&response).unwrap();
    parse(&response.replacen("\"outputs\"", "\"inputs\"", 1), &specs).unwrap()
}

fn shown<T: serde::Serialize>(values: &[T]) -> Vec<String> {
    values.iter().map(|value| serde_json::to_string(value).unwrap()).collect()
}

macro_rules! comes_back {
    ($elements:literal, $array:expr) => {{
        let (shape, values, nested) = $array;
        let expected = in_memory!(values);
        let request = request($elements, &shape, &shown(&values), nested);
        prop_assert_eq!(bytes(&request.rows.columns()[0]), &expected[..]);
        let echo = echoed($elements, request);
        prop_assert_eq!(bytes(&echo.rows.columns()[0]), &expected[..]);
    }};
}

const FINITE_32: proptest::num::f32::Any = proptest::num::f32::ANY;
const FINITE_64: proptest::num::f64::Any = proptest::num::f64::ANY;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_finite_float64_comes_back(
        array in arrays(FINITE_64.prop_filter("finite", |value| value.is_finite())),
    ) {
        comes_back!("float64", array);
    }

    #[test]
    fn every_finite_float32_comes_back(
        array in arrays(FINITE_32.prop_filter("finite", |value| value.is_finite())),
    ) {
        comes_back!("float32", array);
    }

    #[test]
    fn every_int64_comes_back(array in arrays(any::<i64>())) {
        comes_back!("int64", array);
    }

    #[test]
    fn every_uint64_comes_back(array in arrays(any::<u64>())) {
        comes_back!("uint64", array);
    }

    #[test]
    fn every_string_comes_back(array in arrays(any::<String>())) {
        let (shape, values, nested) = array;
        let request = request("string", &shape, &shown(&values), nested);
        let same = |request: &InferRequest| {
            texts(&request.rows.columns()[0]).into_iter().eq(values.iter().map(String::as_bytes))
        };
        prop_assert!(same(&request));
        prop_assert!(same(&echoed("string", request)));
    }
}

macro_rules! halves {
    ($elements:literal, $kind:ty) => {{
        let values: Vec<_> =
            (0..=u16::MAX).map(<$kind>::from_bits).filter(|value| value.is_finite()).collect();
        let mut shown = vec![String::new(); values.len()];
        for (text, value) in shown.iter_mut().zip(&values) {
            write!(text, "{:?}", value.to_f64()).unwrap();
        }
        let request = request($elements, &[values.len()], &shown, false);
        assert_eq!(bytes(&request.rows.columns()[0]), in_memory!(values));
        let echo = echoed($elements, request);
        assert_eq!(bytes(&echo.rows.columns()[0]), in_memory!(values));
    }};
}

/// There are few enough of them to try all.
#[test]
fn every_finite_half_comes_back() {
    halves!("float16", f16);
    halves!("bfloat16", bf16);
}
