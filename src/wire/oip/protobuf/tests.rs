//! Messages of requests and answers: what comes back, what is refused, and with which words.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::error::ErrorKind;
use crate::tensor::{AnswerRow, Column, DType, Elements, Rows, Spares, TensorSpec};
use crate::wire::grpc::proto::inference::infer_parameter::ParameterChoice;
use crate::wire::grpc::proto::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use crate::wire::grpc::proto::inference::model_infer_response::InferOutputTensor;
use crate::wire::grpc::proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::wire::grpc::{PREFIX, prefix_of};
use crate::wire::oip::{InferRequest, InferResponse, WantedOutput};

fn spec(name: &str, elements: &str, axes: &[i64]) -> TensorSpec {
    TensorSpec::new(name, elements, axes).unwrap()
}

fn spares() -> Arc<Spares> {
    Spares::new(1 << 20)
}

fn read(message: &ModelInferRequest, inputs: &[TensorSpec]) -> crate::error::Result<InferRequest> {
    let outputs = [spec("y", "float32", &[]), spec("z", "int8", &[])];
    InferRequest::from_message(message, inputs, &outputs, &spares())
}

fn refusal(message: &ModelInferRequest, inputs: &[TensorSpec]) -> String {
    let error = read(message, inputs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Item, "{error}");
    error.message().to_owned()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw(inputs: Vec<InferInputTensor>, data: Vec<Vec<u8>>) -> ModelInferRequest {
    let raw_input_contents = data.into_iter().map(Bytes::from).collect();
    ModelInferRequest { inputs, raw_input_contents, ..ModelInferRequest::default() }
}

fn typed(mut tensor: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    tensor.contents = Some(contents);
    ModelInferRequest { inputs: vec![tensor], ..ModelInferRequest::default() }
}

fn unframed(message: &Bytes) -> Bytes {
    assert_eq!(message[..PREFIX], prefix_of(message.len() - PREFIX));
    message.slice(PREFIX..)
}

/// A whole [`RequestMessage`]: each input with its data.
fn request_message(
    model: &str,
    version: Option<&str>,
    id: Option<&str>,
    inputs: &[(AskedTensor<'_>, &[u8])],
    outputs: &[String],
) -> Bytes {
    let heads: Vec<_> = inputs.iter().map(|(tensor, _)| *tensor).collect();
    let mut message = RequestMessage::new(model, version, id, &heads, outputs);
    for (_, data) in inputs {
        message.put_data(data);
    }
    message.finish()
}

fn numbers(column: &Column) -> &[u8] {
    match column {
        Column::Numbers { memory, .. } => memory.as_slice(),
        other => panic!("{other:?} holds no numbers"),
    }
}

fn texts(column: &Column) -> Vec<Vec<u8>> {
    match column {
        Column::Texts { texts, .. } => texts.range(0..texts.len()).map(<[u8]>::to_vec).collect(),
        other => panic!("{other:?} holds no texts"),
    }
}

/// An answer of a model that returns its inputs.
fn echoed(rows: Rows, count: usize, specs: &[TensorSpec], binary: bool) -> Bytes {
    let columns = Arc::new(rows.into_columns().into_vec());
    let rows: Vec<_> = (0..count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let response = InferResponse {
        model: "m",
        version: "1",
        id: Some("7"),
        outputs: specs,
        wanted: None,
        binary,
        rows: &rows,
    };
    response.to_message()
}

/// Types with the field that holds them and elements that fit; the little-endian bytes of the elements.
fn samples() -> Vec<(&'static str, InferTensorContents, Vec<u8>)> {
    let none = InferTensorContents::default;
    let le = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    vec![
        ("bool", InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        ("int8", InferTensorContents { int_contents: vec![-128, 127], ..none() }, vec![0x80, 0x7f]),
        ("int16", InferTensorContents { int_contents: vec![-2, 1], ..none() }, vec![0xfe, 0xff, 1, 0]),
        ("int32", InferTensorContents { int_contents: vec![i32::MIN, 5], ..none() }, le(&[i32::MIN, 5])),
        (
            "int64",
            InferTensorContents { int64_contents: vec![-1, 2], ..none() },
            [(-1_i64).to_le_bytes(), 2_i64.to_le_bytes()].concat(),
        ),
        ("uint8", InferTensorContents { uint_contents: vec![255, 0], ..none() }, vec![255, 0]),
        ("uint16", InferTensorContents { uint_contents: vec![0xffff, 1], ..none() }, vec![255, 255, 1, 0]),
        (
            "uint32",
            InferTensorContents { uint_contents: vec![u32::MAX, 1], ..none() },
            [u32::MAX.to_le_bytes(), 1_u32.to_le_bytes()].concat(),
        ),
        (
            "uint64",
            InferTensorContents { uint64_contents: vec![u64::MAX, 1], ..none() },
            [u64::MAX.to_le_bytes(), 1_u64.to_le_bytes()].concat(),
        ),
        (
            "float32",
            InferTensorContents { fp32_contents: vec![f32::INFINITY, -0.5], ..none() },
            [f32::INFINITY.to_le_bytes(), (-0.5_f32).to_le_bytes()].concat(),
        ),
        (
            "float64",
            InferTensorContents { fp64_contents: vec![f64::NAN, 1e300], ..none() },
            [f64::NAN.to_le_bytes(), 1e300_f64.to_le_bytes()].concat(),
        ),
        (
            "bytes",
            InferTensorContents { bytes_contents: vec![Bytes::from_static(b"\xff"), Bytes::new()], ..none() },
            b"\x01\0\0\0\xff\0\0\0\0".to_vec(),
        ),
    ]
}

#[test]
fn every_type_comes_in_its_typed_field_and_goes_back_in_it() {
    for (elements, contents, data) in samples() {
        let specs = [spec("x", elements, &[])];
        let datatype = specs[0].elements.oip_name().unwrap();
        let request = read(&typed(input("x", datatype, &[2]), contents.clone()), &specs).unwrap();
        assert!(!request.binary && request.id.is_none(), "{elements}");
        let message = unframed(&echoed(request.rows, 2, &specs, false));
        let answer = ModelInferResponse::decode(message.clone()).unwrap();
        assert_eq!((&*answer.model_name, &*answer.model_version, &*answer.id), ("m", "1", "7"));
        assert!(answer.raw_output_contents.is_empty());
        // NaN is equal to nothing: the bytes of the message are.
        let expected = InferOutputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: vec![2],
            contents: Some(contents),
            ..InferOutputTensor::default()
        };
        assert_eq!(answer.outputs[0].encode_to_vec(), expected.encode_to_vec(), "{elements}");
        // A client has the same bytes of either form.
        assert_eq!(InferAnswer::parse(message).unwrap().tensors[0].data, data, "{elements}");
    }
}

#[test]
fn every_type_comes_raw_and_goes_back_raw() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.oip_name().is_some()) {
        let data: Vec<u8> = (0..6 * dtype.size()).map(|at| u8::try_from(at % 2).unwrap()).collect();
        let specs = [spec("x", dtype.name(), &[-1])];
        let asked =
            AskedTensor { name: "x", datatype: dtype.oip_name().unwrap(), shape: &[2, 3], size: data.len() };
        let message = unframed(&request_message("m", None, Some("7"), &[(asked, &data)], &[]));
        let request = read(&ModelInferRequest::decode(message).unwrap(), &specs).unwrap();
        assert!(request.binary);
        assert_eq!((request.count, request.id.as_deref()), (2, Some("7")));
        let answer = InferAnswer::parse(unframed(&echoed(request.rows, 2, &specs, true))).unwrap();
        let expected = AnswerTensor {
            name: "x".into(),
            elements: Elements::Numbers(dtype),
            shape: vec![2, 3],
            data: data.into(),
        };
        assert_eq!(answer.tensors, [expected]);
    }
}

#[test]
fn an_answer_with_a_type_that_has_no_typed_field_is_raw() {
    let specs = [spec("x", "float16", &[]), spec("y", "int8", &[])];
    let request = raw(vec![input("y", "INT8", &[1]), input("x", "FP16", &[1])], vec![vec![7], vec![0, 0x3c]]);
    let request = read(&request, &specs).unwrap();
    let answer = ModelInferResponse::decode(unframed(&echoed(request.rows, 1, &specs, false))).unwrap();
    assert_eq!(answer.raw_output_contents, [vec![0, 0x3c], vec![7]]);
    assert!(answer.outputs.iter().all(|output| output.contents.is_none()));
}

#[test]
fn a_request_is_written_as_the_description_says() {
    let one = AskedTensor { name: "x", datatype: "FP32", shape: &[1, 300], size: 1200 };
    let two = AskedTensor { name: "é", datatype: "BYTES", shape: &[], size: 0 };
    let outputs = ["y".to_owned(), String::new()];
    let message =
        unframed(&request_message("m", Some("2"), Some("id"), &[(one, &[1; 1200]), (two, &[])], &outputs));
    let expected = ModelInferRequest {
        model_name: "m".into(),
        model_version: "2".into(),
        id: "id".into(),
        inputs: vec![input("x", "FP32", &[1, 300]), input("é", "BYTES", &[])],
        outputs: ["y", ""]
            .map(|name| InferRequestedOutputTensor { name: name.into(), ..Default::default() })
            .to_vec(),
        raw_input_contents: vec![vec![1; 1200].into(), Bytes::new()],
        ..ModelInferRequest::default()
    };
    assert_eq!(ModelInferRequest::decode(message).unwrap(), expected);
}

#[test]
fn a_time_out_is_a_number_of_microseconds() {
    let x = [spec("x", "int8", &[])];
    let mut request = raw(vec![input("x", "INT8", &[1])], vec![vec![7]]);
    let choices = [
        (ParameterChoice::Int64Param(1_500), Some(Some(1_500))),
        (ParameterChoice::Uint64Param(2), Some(Some(2))),
        (ParameterChoice::Int64Param(0), Some(None)),
        (ParameterChoice::Int64Param(-1), None),
        (ParameterChoice::StringParam("1".into()), None),
    ];
    for (choice, expected) in choices {
        let shown = format!("{choice:?}");
        request.parameters.insert("timeout".into(), InferParameter { parameter_choice: Some(choice) });
        match expected {
            Some(micros) => {
                let timeout = read(&request, &x).unwrap().timeout;
                assert_eq!(timeout, micros.map(std::time::Duration::from_micros), "{shown}");
            }
            None => assert!(
                refusal(&request, &x).contains("the parameter timeout is no number of micro"),
                "{shown}"
            ),
        }
    }
}

#[test]
fn outputs_that_are_asked_for_are_known_and_asked_for_once() {
    let x = [spec("x", "int8", &[])];
    let mut request = raw(vec![input("x", "INT8", &[1])], vec![vec![7]]);
    let named = |name: &str| InferRequestedOutputTensor { name: name.into(), ..Default::default() };
    request.outputs = vec![named("z")];
    assert_eq!(read(&request, &x).unwrap().outputs.unwrap(), [WantedOutput { index: 1, binary: true }]);
    request.outputs = vec![named("z"), named("z")];
    assert!(refusal(&request, &x).contains("'z' is asked for twice"));
    request.outputs = vec![named("w")];
    assert!(refusal(&request, &x).contains("there is no output 'w'"));
    for (parameter, words) in
        [("classification", "classification"), ("shared_memory_region", "shared memory")]
    {
        let mut output = named("z");
        output.parameters.insert(parameter.into(), InferParameter::default());
        request.outputs = vec![output];
        assert!(refusal(&request, &x).contains(words));
    }
}

fn ints(values: &[i32]) -> InferTensorContents {
    InferTensorContents { int_contents: values.to_vec(), ..Default::default() }
}

fn refused_with(cases: impl IntoIterator<Item = (ModelInferRequest, &'static str)>) {
    for (request, words) in cases {
        let found = refusal(&request, &[spec("x", "int8", &[2])]);
        assert!(found.contains(words), "{found:?} lacks {words:?}");
    }
}

#[test]
fn what_is_wrong_with_raw_data_is_named_with_its_field() {
    let mut both = typed(input("x", "INT8", &[1, 2]), ints(&[1, 2]));
    both.raw_input_contents = vec![Bytes::from_static(&[1, 2])];
    let mut shared = raw(vec![input("x", "INT8", &[1, 2])], vec![vec![1, 2]]);
    shared.inputs[0].parameters.insert("shared_memory_region".into(), InferParameter::default());
    let one = |shape: &[i64], data: &[u8]| raw(vec![input("x", "INT8", shape)], vec![data.to_vec()]);
    refused_with([
        (both, "both int_contents and raw_input_contents[0]"),
        (shared, "shared memory"),
        (one(&[1, 2], &[1]), "the length of raw_input_contents[0] is 1"),
        (one(&[1, 2], &[1, 2, 3]), "the length of raw_input_contents[0] is 3"),
        (one(&[1, 3], &[1, 2, 3]), "has shape [1, 3]; the model wants [rows] and then [2]"),
        (one(&[-1, 2], &[]), "an axis is negative"),
        (one(&[0, 2], &[]), "has no rows"),
        (one(&[i64::MAX, i64::MAX], &[]), "has more than 4294967296 elements"),
        (
            raw(vec![input("x", "INT8", &[1, 2])], vec![vec![1, 2], vec![]]),
            "raw_input_contents has 2 entries",
        ),
        (raw(vec![input("x", "FP32", &[1, 2])], vec![vec![0; 8]]), "datatype FP32; the model wants INT8"),
        (raw(vec![input("w", "INT8", &[1, 2])], vec![vec![0; 2]]), "there is no input 'w'"),
        (raw(vec![], vec![]), "input 'x' is missing"),
    ]);
}

#[test]
fn what_is_wrong_with_typed_data_is_named_with_its_field() {
    let floats =
        |values: &[f32]| InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() };
    refused_with([
        (typed(input("x", "INT8", &[1, 2]), ints(&[1, 128])), "int_contents holds what is no INT8"),
        (typed(input("x", "INT8", &[1, 2]), ints(&[1])), "int_contents has 1 elements"),
        (typed(input("x", "INT8", &[1, 2]), InferTensorContents::default()), "int_contents has 0 elements"),
        (typed(input("x", "INT8", &[1, 2]), floats(&[1.0, 2.0])), "int_contents has 0 elements"),
        (
            typed(
                input("x", "INT8", &[1, 2]),
                InferTensorContents { fp32_contents: vec![1.0], ..ints(&[1, 2]) },
            ),
            "fp32_contents is given, and INT8 stands in int_contents",
        ),
        (
            ModelInferRequest { inputs: vec![input("x", "INT8", &[1, 2])], ..Default::default() },
            "neither int_contents nor raw_input_contents is given",
        ),
    ]);
    let half = [spec("x", "bfloat16", &[])];
    let request = typed(input("x", "BF16", &[1]), floats(&[1.0]));
    assert!(refusal(&request, &half).contains("BF16 has no typed contents: send it in raw_input_contents"));
    let text = [spec("x", "string", &[])];
    let bytes =
        InferTensorContents { bytes_contents: vec![Bytes::from_static(b"\xff")], ..Default::default() };
    assert!(refusal(&typed(input("x", "BYTES", &[1]), bytes), &text).contains("element 0 is no utf-8"));
}

#[test]
fn answers_that_do_not_add_up_are_refused() {
    let output = |datatype: &str, shape: &[i64]| InferOutputTensor {
        name: "y".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..Default::default()
    };
    let answer = |output: InferOutputTensor, raw: &[&'static [u8]]| ModelInferResponse {
        outputs: vec![output],
        raw_output_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..Default::default()
    };
    for (answer, words) in [
        (answer(output("FP32", &[1]), &[b"abc"]), "3 bytes are none of shape [1] of FP32"),
        (answer(output("FP32", &[i64::MAX, i64::MAX]), &[b""]), "0 bytes are none of shape"),
        (answer(output("FP32", &[-1]), &[b""]), "is negative"),
        (answer(output("FP99", &[1]), &[b""]), "'FP99' is no datatype"),
        (answer(output("FP32", &[1]), &[b"abcd", b""]), "raw_output_contents has 2 entries"),
        (answer(output("FP16", &[1]), &[]), "has no typed contents"),
        (answer(output("FP32", &[1]), &[]), "0 bytes are none of shape [1] of FP32"),
    ] {
        let error = InferAnswer::parse(answer.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolError);
        assert!(error.message().contains(words), "{error} lacks {words:?}");
    }
    assert!(InferAnswer::parse(Bytes::from_static(b"\xff\xff")).is_err());
    assert!(StreamAnswer::parse(Bytes::from_static(b"\xff\xff")).is_err());
}

proptest! {
    #[test]
    fn tensors_of_texts_and_numbers_come_back_as_they_were(
        rows in prop::collection::vec((any::<f32>(), prop::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let specs = [spec("x", "float32", &[]), spec("t", "bytes", &[])];
        let floats: Vec<u8> = rows.iter().flat_map(|(number, _)| number.to_le_bytes()).collect();
        let mut data = Vec::new();
        for (_, text) in &rows {
            super::super::binary::put_text(&mut data, text);
        }
        let shape = [rows.len()];
        let asked = [
            (AskedTensor { name: "t", datatype: "BYTES", shape: &shape, size: data.len() }, &data[..]),
            (AskedTensor { name: "x", datatype: "FP32", shape: &shape, size: floats.len() }, &floats[..]),
        ];
        let message = unframed(&request_message("m", None, None, &asked, &[]));
        let request = read(&ModelInferRequest::decode(message).unwrap(), &specs).unwrap();
        prop_assert_eq!(numbers(&request.rows.columns()[0]), &floats[..]);
        let expected: Vec<_> = rows.iter().map(|(_, text)| text.clone()).collect();
        prop_assert_eq!(texts(&request.rows.columns()[1]), expected);
        let answer = InferAnswer::parse(unframed(&echoed(request.rows, rows.len(), &specs, true))).unwrap();
        prop_assert_eq!(&answer.tensors[0].data[..], &floats[..]);
        prop_assert_eq!(&answer.tensors[1].data[..], &data[..]);
    }

    #[test]
    fn whatever_bytes_come_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(message) = ModelInferRequest::decode(bytes.clone()) {
            let _ = read(&message, &[spec("x", "float32", &[-1])]);
        }
        let _ = InferAnswer::parse(bytes.clone());
        let _ = StreamAnswer::parse(bytes);
    }
}
