//! What a client asks and reads again: rows in columns, there and back, in every form.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;

use super::super::{AnswerRow, AskedRows, InferRequest, InferResponse, ToldRows};
use super::{DTYPES, spares, spec};
use crate::error::ErrorKind;
use crate::tensor::{Column, DType, Rows, Specs, TensorSpec};
use crate::wire::grpc::PREFIX;
use crate::wire::grpc::proto::inference::ModelInferRequest;

/// So many rows of two elements each, of that type.
fn rows_of(spec: &TensorSpec, values: &[u8], texts: &[String]) -> Rows {
    let specs: Specs = std::iter::once(spec.column(&[2])).collect();
    let mut rows = Rows::new(&specs, &spares());
    match &mut rows.columns_mut()[0] {
        Column::Numbers { dtype, memory, .. } => {
            for value in values {
                memory.extend(&dtype.bytes_of(f64::from(*value % 2)));
            }
        }
        Column::Texts { texts: column, .. } => texts.iter().for_each(|text| column.push(text.as_bytes())),
        Column::Objects(_) => {}
    }
    rows
}

fn content(column: &Column) -> Vec<Vec<u8>> {
    match column {
        Column::Numbers { memory, .. } => vec![memory.as_slice().to_vec()],
        Column::Texts { texts, .. } => texts.range(0..texts.len()).map(<[u8]>::to_vec).collect(),
        Column::Objects(_) => Vec::new(),
    }
}

/// A server that answers with what it was asked: in JSON, binary or over gRPC.
fn echoed(specs: &[TensorSpec], asked: &AskedRows<'_>, form: usize) -> Vec<Column> {
    let memory = spares();
    let request = if form == 2 {
        let message = asked.to_message("m", Some("3"));
        let message = ModelInferRequest::decode(&message[PREFIX..]).unwrap();
        assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("m", "3"));
        assert_eq!(message.outputs.len(), specs.len());
        InferRequest::from_message(&message, specs, specs, &memory).unwrap()
    } else {
        let encoded = asked.encode(form == 1).unwrap();
        assert_eq!(encoded.header_length.is_some(), form == 1);
        InferRequest::parse(&encoded.body, encoded.header_length, specs, specs, &memory).unwrap()
    };
    assert_eq!(request.timeout, if form == 2 { None } else { asked.timeout });
    assert_eq!(request.count, asked.rows.len());
    let columns = Arc::new(request.rows.into_columns().into_vec());
    let rows: Vec<_> = (0..request.count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let response = InferResponse {
        model: "m",
        version: "3",
        id: None,
        outputs: specs,
        wanted: request.outputs.as_deref(),
        binary: form > 0,
        rows: &rows,
    };
    let told = ToldRows { outputs: specs, count: request.count, spares: &memory };
    if form == 2 {
        return told.of_message(response.to_message().slice(PREFIX..)).unwrap();
    }
    let encoded = response.encode();
    told.of_body(&encoded.body, encoded.header_length).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_up_comes_down(
        values in prop::collection::vec(any::<u8>(), 8),
        texts in prop::collection::vec(".{0,6}", 8),
        (from, to) in (0_usize..4, 0_usize..4),
        kind in 0..=DTYPES.len(),
        form in 0_usize..3,
    ) {
        let elements = DTYPES.get(kind).map_or("bytes", |dtype| dtype.name());
        let specs = [spec("x \"ü", elements, &[-1])];
        let rows = rows_of(&specs[0], &values, &texts);
        let (from, to) = (from.min(to), from.max(to) + 1);
        let asked = AskedRows {
            inputs: &specs,
            outputs: &specs,
            columns: rows.columns(),
            rows: from..to,
            timeout: Some(Duration::from_micros(1500)),
        };
        let echo = echoed(&specs, &asked, form);
        let whole = content(&rows.columns()[0]);
        let expected = match &rows.columns()[0] {
            Column::Numbers { row_bytes, .. } => vec![whole[0][from * row_bytes..to * row_bytes].to_vec()],
            _ => whole[from * 2..to * 2].to_vec(),
        };
        prop_assert_eq!(content(&echo[0]), expected);
    }

    #[test]
    fn an_answer_of_any_bytes_is_refused_or_read(body in prop::collection::vec(any::<u8>(), 0..64), length in 0_usize..80) {
        let specs = [spec("y", "float32", &[2])];
        let memory = spares();
        let told = ToldRows { outputs: &specs, count: 1, spares: &memory };
        let _ = told.of_body(&body, Some(length));
        let _ = told.of_message(body.into());
    }
}

#[test]
fn bytes_that_json_cannot_carry_are_the_fault_of_their_row() {
    let specs = [spec("x", "bytes", &[-1])];
    let mut rows = rows_of(&specs[0], &[], &["a".to_owned(), "b".to_owned()]);
    if let Column::Texts { texts, .. } = &mut rows.columns_mut()[0] {
        texts.push(b"\xff");
        texts.push(b"");
    }
    let asked = |rows_asked| AskedRows {
        inputs: &specs,
        outputs: &specs,
        columns: rows.columns(),
        rows: rows_asked,
        timeout: None,
    };
    assert!(asked(0..1).encode(false).is_ok());
    assert!(asked(0..2).encode(true).is_ok());
    let refused = asked(0..2).encode(false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Item);
    assert!(refused.message().contains("json alone"), "{refused}");
}

#[test]
fn an_answer_is_what_was_asked_for_or_says_what_it_is_not() {
    let specs = [spec("y", "float32", &[2]), spec("t", "string", &[])];
    let memory = spares();
    let told = ToldRows { outputs: &specs, count: 1, spares: &memory };
    let read = |outputs: &str| told.of_body(format!(r#"{{"outputs":[{outputs}]}}"#).as_bytes(), None);
    let t = r#"{"name":"t","datatype":"BYTES","shape":[1],"data":["a"]}"#;
    let y = |rest: &str| format!(r#"{{"name":"y","datatype":"FP32",{rest}}},{t}"#);
    let columns = read(&y(r#""shape":[1,2],"data":[[null,1.5]],"parameters":{}"#)).unwrap();
    let Column::Numbers { memory, dtype, .. } = &columns[0] else { panic!("numbers") };
    assert_eq!(*dtype, DType::Float32);
    assert!(f32::from_ne_bytes(memory.as_slice()[..4].try_into().unwrap()).is_nan());
    for (outputs, kind, words) in [
        (t.to_owned(), ErrorKind::Output, "no output 'y'"),
        (y(r#""shape":[2,2],"data":[1,2,3,4]"#), ErrorKind::Output, "for 1 rows"),
        (y(r#""shape":[1,3],"data":[1,2,3]"#), ErrorKind::Output, "for 1 rows"),
        (y(r#""shape":[1,2],"data":[1]"#), ErrorKind::Output, "1 values"),
        (y(r#""shape":[1,2],"data":["a","b"]"#), ErrorKind::Output, "string"),
        (y(r#""shape":[1,2]"#), ErrorKind::ProtocolError, "no data"),
        (y(r#""shape":[-1,2],"data":[1,2]"#), ErrorKind::ProtocolError, "protocol"),
        (
            y(r#""shape":[1,2],"parameters":{"binary_data_size":8}"#),
            ErrorKind::ProtocolError,
            "binary_data_size",
        ),
        (r#"{"name":"y"}"#.to_owned(), ErrorKind::ProtocolError, "protocol"),
    ] {
        let error = read(&outputs).unwrap_err();
        assert_eq!(error.kind(), kind, "{outputs}: {error}");
        assert!(error.message().contains(words), "{outputs}: {error}");
    }
    let short = told.of_body(b"{}", Some(3)).unwrap_err();
    assert!(short.message().contains('3'), "{short}");
}
