//! Binary tensor data: where it lies, how much there is, and what it may hold.

use half::{bf16, f16};
use serde_json::{Value, json};

use super::super::{InferRequest, WantedOutput};
use super::{DTYPES, bytes, in_memory, spares, spec, texts};
use crate::error::{ErrorKind, Result};
use crate::tensor::{DType, TensorSpec};

/// An input of a request, and its binary data.
fn input(name: &str, datatype: &str, shape: &[usize], size: impl serde::Serialize) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}})
}

fn read(json: &Value, data: &[u8], inputs: &[TensorSpec]) -> Result<InferRequest> {
    let json = json.to_string();
    let body = [json.as_bytes(), data].concat();
    let outputs = [spec("y", "float32", &[]), spec("z", "int8", &[])];
    InferRequest::parse(&body, Some(json.len()), inputs, &outputs, &spares())
}

fn refusal(json: &Value, data: &[u8], inputs: &[TensorSpec]) -> String {
    let error = read(json, data, inputs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Item, "{error}");
    error.message().to_owned()
}

fn one() -> [TensorSpec; 1] {
    [spec("x", "int16", &[2])]
}

#[test]
fn every_type_comes_as_it_lies_in_memory() {
    for dtype in DTYPES {
        let name = dtype.oip_name().unwrap();
        let data: Vec<u8> = (0..6 * dtype.size()).map(|at| u8::try_from(at % 2).unwrap()).collect();
        let request = json!({"inputs": [input("x", name, &[2, 3], data.len())]});
        let request = read(&request, &data, &[spec("x", dtype.name(), &[-1])]).unwrap();
        let expected: Vec<u8> = if cfg!(target_endian = "big") {
            data.chunks(dtype.size()).flat_map(|element| element.iter().rev().copied()).collect()
        } else {
            data
        };
        assert_eq!((request.count, bytes(&request.rows.columns()[0])), (2, &expected[..]), "{name}");
    }
}

#[test]
fn numbers_are_little_endian_and_keep_their_bits() {
    let wide = [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE / 2.0];
    let data: Vec<u8> = wide.iter().flat_map(|value| value.to_le_bytes()).collect();
    let request = json!({"inputs": [input("x", "FP64", &[4], data.len())]});
    let request = read(&request, &data, &[spec("x", "float64", &[])]).unwrap();
    assert_eq!(bytes(&request.rows.columns()[0]), in_memory!(wide));
    for (elements, datatype, one) in
        [("float16", "FP16", f16::ONE.to_le_bytes()), ("bfloat16", "BF16", bf16::ONE.to_le_bytes())]
    {
        let request = json!({"inputs": [input("x", datatype, &[1], 2)]});
        let request = read(&request, &one, &[spec("x", elements, &[])]).unwrap();
        let expected = u16::from_le_bytes(one).to_ne_bytes();
        assert_eq!(bytes(&request.rows.columns()[0]), expected);
    }
}

#[test]
fn data_lies_in_the_order_of_the_request_and_json_may_stand_between() {
    let inputs = [spec("a", "uint8", &[]), spec("b", "int16", &[]), spec("c", "bytes", &[])];
    let request = json!({"inputs": [
        input("c", "BYTES", &[2], 11),
        {"name": "b", "datatype": "INT16", "shape": [2], "data": [5, 6]},
        input("a", "UINT8", &[2], 2),
    ]});
    let request = read(&request, b"\x03\0\0\0a\xff\0\0\0\0\0\x08\x09", &inputs).unwrap();
    let [first, second, third] = request.rows.columns() else { panic!("not three columns") };
    assert_eq!((bytes(first), bytes(second)), (&[8, 9][..], &in_memory!([5_i16, 6])[..]));
    assert_eq!(texts(third), [&b"a\xff\0"[..], b""]);
}

#[test]
fn sizes_agree_with_shapes_and_add_up_to_the_body() {
    let of = |size: usize| json!({"inputs": [input("x", "INT16", &[2, 2], size)]});
    assert!(read(&of(8), &[0; 8], &one()).is_ok());
    assert!(refusal(&of(6), &[0; 6], &one()).contains("4 times 2 bytes"));
    assert!(refusal(&of(10), &[0; 10], &one()).contains("binary_data_size is 10"));
    assert!(refusal(&of(8), &[0; 7], &one()).contains("7 bytes of binary data are left"));
    assert!(refusal(&of(8), &[0; 9], &one()).contains("1 bytes follow"));
    assert!(refusal(&of(usize::MAX), &[0; 8], &one()).contains("binary_data_size"));
    for size in [json!(-8), json!(8.0), json!("8"), json!(true), json!([8])] {
        refusal(&json!({"inputs": [input("x", "INT16", &[2, 2], size)]}), &[0; 8], &one());
    }
}

#[test]
fn an_input_has_one_kind_of_data() {
    let mut both = json!({"inputs": [input("x", "INT16", &[1, 2], 4)]});
    both["inputs"][0]["data"] = json!([1, 2]);
    assert!(refusal(&both, &[0; 4], &one()).contains("both data and binary_data_size"));
    let neither = json!({"inputs": [{"name": "x", "datatype": "INT16", "shape": [1, 2]}]});
    assert!(refusal(&neither, &[], &one()).contains("neither data nor binary_data_size"));
    let empty = json!({"inputs": [{"name": "x", "datatype": "INT16", "shape": [1, 2], "parameters": {}}]});
    assert!(refusal(&empty, &[], &one()).contains("neither"));
}

#[test]
fn the_header_length_splits_the_body() {
    let json = json!({"inputs": [input("x", "INT16", &[1, 2], 4)]}).to_string();
    let body = [json.as_bytes(), &[1, 0, 2, 0]].concat();
    let parse = |header_length| InferRequest::parse(&body, header_length, &one(), &[], &spares());
    assert!(parse(Some(json.len())).is_ok());
    for wrong in [0, 1, json.len() - 1, json.len() + 1, body.len(), body.len() + 1, usize::MAX] {
        assert_eq!(parse(Some(wrong)).unwrap_err().kind(), ErrorKind::Item, "{wrong}");
    }
    let beyond = parse(Some(body.len() + 1)).unwrap_err();
    assert!(beyond.message().contains("inference-header-content-length"), "{beyond}");
    let without = InferRequest::parse(json.as_bytes(), None, &one(), &[], &spares()).unwrap_err();
    assert!(without.message().contains("0 bytes of binary data"), "{without}");
    // Spaces between belong to the JSON; JSON alone may have a header length, too.
    let plain = super::body_of("int16", "[1,2]", "[1,2]") + "  ";
    assert!(InferRequest::parse(plain.as_bytes(), Some(plain.len()), &one(), &[], &spares()).is_ok());
}

#[test]
fn bools_are_0_and_1() {
    let inputs = [spec("x", "bool", &[])];
    let request = json!({"inputs": [input("x", "BOOL", &[3], 3)]});
    assert_eq!(bytes(&read(&request, &[0, 1, 1], &inputs).unwrap().rows.columns()[0]), [0, 1, 1]);
    assert!(refusal(&request, &[0, 2, 1], &inputs).contains("neither 0 nor 1"));
}

#[test]
fn texts_come_with_their_lengths_and_fill_their_size() {
    let of = |shape: &[usize], data: &[u8], elements: &str| {
        let request = json!({"inputs": [input("x", "BYTES", shape, data.len())]});
        let axes = vec![-1; shape.len() - 1];
        read(&request, data, &[spec("x", elements, &axes)])
    };
    let two = b"\x02\0\0\0ab\0\0\0\0";
    assert_eq!(texts(&of(&[2], two, "bytes").unwrap().rows.columns()[0]), [&b"ab"[..], b""]);
    assert_eq!(of(&[1, 2], two, "string").unwrap().count, 1);
    assert_eq!(of(&[3, 0], b"", "string").unwrap().count, 3);
    for (shape, data) in [
        (&[1][..], &two[..]),
        (&[3], two),
        (&[2], b"\x02\0\0\0ab\0\0\0"),
        (&[1], b"\x03\0\0\0ab"),
        (&[1], b"\xff\xff\xff\xffab"),
        (&[1], b""),
        (&[1], b"ab"),
        (&[1 << 32], b"\0\0\0\0"),
    ] {
        assert_eq!(of(shape, data, "bytes").unwrap_err().kind(), ErrorKind::Item, "{data:?} as {shape:?}");
    }
    assert_eq!(texts(&of(&[1], b"\x01\0\0\0\xff", "bytes").unwrap().rows.columns()[0]), [b"\xff"]);
    let error = of(&[1], b"\x01\0\0\0\xff", "string").unwrap_err();
    assert!(error.message().contains("utf-8"), "{error}");
}

#[test]
fn parameters_are_objects_and_known_extensions_that_are_not_here_are_refused() {
    let with = |place: &str, parameters: Value| {
        let mut request = json!({
            "inputs": [{"name": "x", "datatype": "INT16", "shape": [1, 2], "data": [1, 2]}],
            "outputs": [{"name": "y"}],
        });
        request.pointer_mut(place).unwrap()["parameters"] = parameters;
        read(&request, &[], &one())
    };
    for place in ["", "/inputs/0", "/outputs/0"] {
        for accepted in [json!({}), json!(null), json!({"timeout": 5, "other": [{"deep": null}]})] {
            assert!(with(place, accepted).is_ok(), "{place}");
        }
        for wrong in [json!([]), json!([true]), json!("a"), json!(1)] {
            assert_eq!(with(place, wrong).unwrap_err().kind(), ErrorKind::Item, "{place}");
        }
    }
    for (place, parameters, words) in [
        ("/inputs/0", json!({"shared_memory_region": "r"}), "shared memory"),
        ("/outputs/0", json!({"shared_memory_region": "r"}), "shared memory"),
        ("/outputs/0", json!({"classification": 2}), "classification"),
        ("/outputs/0", json!({"binary_data": 1}), "invalid type"),
        ("", json!({"binary_data_output": "yes"}), "invalid type"),
    ] {
        let error = with(place, parameters).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn outputs_are_binary_by_their_own_word_or_the_requests() {
    let wanted = |outputs: Value, parameters: Value| {
        let request = json!({
            "inputs": [{"name": "x", "datatype": "INT16", "shape": [1, 2], "data": [1, 2]}],
            "outputs": outputs, "parameters": parameters,
        });
        let request = read(&request, &[], &one()).unwrap();
        (request.outputs, request.binary)
    };
    let output = |index, binary| WantedOutput { index, binary };
    assert_eq!(wanted(json!(null), json!({})), (None, false));
    assert_eq!(wanted(json!([]), json!({"binary_data_output": true})), (None, true));
    let both = json!([{"name": "z"}, {"name": "y", "parameters": {"binary_data": false}}]);
    let found = wanted(both.clone(), json!({"binary_data_output": true}));
    assert_eq!(found, (Some(vec![output(1, true), output(0, false)]), true));
    assert_eq!(wanted(both, json!({})), (Some(vec![output(1, false), output(0, false)]), false));
    let own = json!([{"name": "y", "parameters": {"binary_data": true}}]);
    assert_eq!(wanted(own, json!(null)), (Some(vec![output(0, true)]), false));
}

#[test]
fn every_type_has_a_size_that_shapes_are_checked_against() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.oip_name().is_some()) {
        let request = json!({"inputs": [input("x", dtype.oip_name().unwrap(), &[3], 3 * dtype.size() + 1)]});
        let inputs = [spec("x", dtype.name(), &[])];
        assert!(refusal(&request, &vec![0; 3 * dtype.size() + 1], &inputs).contains("times"), "{dtype:?}");
    }
}
