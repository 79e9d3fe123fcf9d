//! Tensors as bytes, in requests and in answers.

use serde_json::{Value, json};

use crate::harness::{Answer, Door, Wire, body, infer, post_with};

/// A request with binary data for rows of one number each.
fn binary(numbers: &[f32], parameters: &Value, outputs: Option<&Value>) -> Vec<u8> {
    shaped([numbers.len(), 1], numbers, parameters, outputs)
}

fn shaped(shape: [usize; 2], numbers: &[f32], parameters: &Value, outputs: Option<&Value>) -> Vec<u8> {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut json = json!({
        "inputs": [{
            "name": "x",
            "shape": shape,
            "datatype": "FP32",
            "parameters": {"binary_data_size": data.len()},
        }],
        "parameters": parameters,
    });
    if let Some(outputs) = outputs {
        json["outputs"] = outputs.clone();
    }
    packed(&json.to_string(), &data)
}

fn packed(json: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("inference-header-content-length: {}\r\n", json.len());
    post_with(&header, &[json.as_bytes(), data].concat())
}

/// The JSON of an answer with binary data, and the numbers in that.
fn unpack(answer: &Answer) -> (Value, Vec<f32>) {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let (json, data) = answer.body.split_at(answer.header_number("inference-header-content-length"));
    let numbers = data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    (serde_json::from_slice(json).unwrap(), numbers.collect())
}

#[test]
fn either_half_may_be_binary_and_the_connection_goes_on() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let as_bytes = json!({"binary_data_output": true});
    for _ in 0..3 {
        let answer = wire.ask(binary(&[1.0, 2.5], &json!({}), None));
        assert_eq!(answer.numbers(), [2.0, 5.0], "json for bytes");
        assert_eq!(answer.header("inference-header-content-length"), None);
        let (told, numbers) = unpack(&wire.ask(binary(&[1.0, 2.5], &as_bytes, None)));
        assert_eq!(numbers, [2.0, 5.0], "bytes for bytes");
        let output = &told["outputs"][0];
        assert_eq!(output["parameters"]["binary_data_size"], 8);
        assert_eq!((&output["shape"], &output["data"]), (&json!([2, 1]), &Value::Null));
        let text = body(&[3.0]).replacen('{', "{\"parameters\":{\"binary_data_output\":true},", 1);
        assert_eq!(unpack(&wire.ask(post_with("", text.as_bytes()))).1, [6.0], "bytes for json");
        assert_eq!(wire.ask(infer(&[4.0])).numbers(), [8.0]);
    }
}

#[test]
fn an_output_decides_for_itself() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    for (of_all, of_one, is_binary) in [
        (json!({"binary_data_output": true}), json!({"binary_data": false}), false),
        (json!({"binary_data_output": false}), json!({"binary_data": true}), true),
        (json!({"binary_data_output": true}), json!({}), true),
        (json!({}), json!({}), false),
    ] {
        let outputs = json!([{"name": "y", "parameters": of_one}]);
        let answer = wire.ask(binary(&[1.0], &of_all, Some(&outputs)));
        if is_binary {
            assert_eq!(unpack(&answer).1, [2.0], "{of_all} {of_one}");
        } else {
            assert_eq!(answer.numbers(), [2.0], "{of_all} {of_one}");
        }
    }
}

#[test]
fn numbers_that_json_has_no_word_for_come_as_they_are() {
    let door = Door::open();
    let sent = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 2.0];
    let request = binary(&sent, &json!({"binary_data_output": true}), None);
    let (_, came) = unpack(&Wire::open(door.address()).ask(request));
    let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&came), bits(&sent.map(|number| number * 2.0)));
}

#[test]
fn sizes_that_lie_are_refused_and_the_connection_kept() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let input = |shape: &str, more: &str| {
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32"{more}}}]}}"#)
    };
    let sized = |size: &str| input("[1,1]", &format!(r#","parameters":{{"binary_data_size":{size}}}"#));
    let four = [0, 0, 128, 63];
    for (what, json, data) in [
        ("more than there is", sized("8"), &four[..]),
        ("less than the shape", sized("3"), &four[..3]),
        ("less than there is", sized("4"), &[0; 5]),
        ("nothing", sized("0"), &[]),
        ("negative", sized("-4"), &four),
        ("a fraction", sized("4.0"), &four),
        ("text", sized("\"4\""), &four),
        ("beyond everything", sized("18446744073709551615"), &four),
        ("a shape that is larger", input("[2,1]", r#","parameters":{"binary_data_size":4}"#), &four),
        (
            "a shape beyond everything",
            input("[4294967297,1073741824]", r#","parameters":{"binary_data_size":4}"#),
            &four,
        ),
        ("no size", input("[1,1]", ""), &four),
        ("data as well", input("[1,1]", r#","data":[1],"parameters":{"binary_data_size":4}"#), &four),
        ("no json", "{".to_owned(), &four),
    ] {
        let answer = wire.ask(packed(&json, data));
        assert_eq!(answer.status, 400, "{what}: {}", String::from_utf8_lossy(&answer.body));
        assert!(!answer.error().is_empty());
        assert_ne!(answer.header("connection"), Some("close"), "{what}");
    }
    assert_eq!(wire.ask(packed(&sized("4"), &four)).numbers(), [2.0], "the connection is still good");
    assert_eq!(door.seen(), [1.0], "nothing else reached the model");
}

#[test]
fn header_lengths_that_lie_are_refused_and_the_connection_kept() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let text = body(&[1.0]);
    let named = |value: &str| format!("inference-header-content-length: {value}\r\n");
    let length = text.len().to_string();
    for header in [
        named(&(text.len() + 1).to_string()),
        named(&(text.len() - 1).to_string()),
        named("0"),
        named("-1"),
        named("1e2"),
        named("many"),
        named(""),
        named("18446744073709551616"),
        named("\u{e9}"),
        named(&length) + &named(&length),
        named(&format!("{length}, {length}")),
    ] {
        let answer = wire.ask(post_with(&header, text.as_bytes()));
        assert_eq!(answer.status, 400, "{header}: {}", String::from_utf8_lossy(&answer.body));
        assert!(!answer.error().is_empty());
    }
    assert_eq!(wire.ask(post_with(&named(&length), text.as_bytes())).numbers(), [2.0]);
    assert_eq!(door.seen(), [1.0]);
}

/// Long enough to be read and written on a thread of its own.
#[test]
fn large_tensors_come_back_whole() {
    let door = Door::open();
    let mut wire = Wire::open(door.address());
    let numbers: Vec<f32> = (0..60_000_u16).map(f32::from).collect();
    let doubled: Vec<f32> = numbers.iter().map(|number| number * 2.0).collect();
    let request = shaped([1, numbers.len()], &numbers, &json!({"binary_data_output": true}), None);
    assert!(unpack(&wire.ask(request)).1 == doubled);
    assert_eq!(wire.ask(infer(&[1.0])).numbers(), [2.0]);
}
