//! What every target looks at: a request is read or refused, and what was read comes back as it was.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock::error::ErrorKind;
use penstock::formats::safetensors::{Header, Index};
use penstock::stream::{self, Event, LineDecoder, MAX_EVENT, SseDecoder};
use penstock::tensor::{Column, DType, Spares, TensorSpec};
use penstock::wire::grpc::PREFIX;
use penstock::wire::grpc::proto::inference::ModelInferRequest;
use penstock::wire::oip::{AnswerRow, InferAnswer, InferRequest, InferResponse, StreamAnswer};
use prost::Message;
use safetensors::SafeTensors;

/// The rules of server-sent events, written down step by step.
#[path = "../../src/stream/tests/reference.rs"]
mod reference;

/// Reads `body` for a model of every data type; its one input is `x`, as in `tests/oip_corpus.rs`.
pub fn read_for_every_type(body: &[u8], header_length: Option<usize>) {
    for_every_type(|inputs, outputs| {
        InferRequest::parse(body, header_length, inputs, outputs, &Spares::new(1 << 20))
    });
}

/// Reads a message of gRPC: as a request to a model of every data type, and as an answer.
pub fn read_message(message: &[u8]) {
    drop(InferAnswer::parse(message.to_vec().into()));
    drop(StreamAnswer::parse(message.to_vec().into()));
    let Ok(request) = ModelInferRequest::decode(message) else { return };
    for_every_type(|inputs, outputs| {
        InferRequest::from_message(&request, inputs, outputs, &Spares::new(1 << 20))
    });
}

fn for_every_type(
    read: impl Fn(&[TensorSpec], &[TensorSpec]) -> Result<InferRequest, penstock::error::Error>,
) {
    let numbers = DType::ALL.iter().filter(|dtype| dtype.oip_name().is_some()).map(|dtype| dtype.name());
    for elements in numbers.chain(["string", "bytes"]) {
        let inputs = [TensorSpec::new("x", elements, &[-1]).unwrap()];
        let outputs = ["y", "z"].map(|name| TensorSpec::new(name, "float32", &[]).unwrap());
        match read(&inputs, &outputs) {
            Ok(request) => comes_back(request, &inputs),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Item, "{error}"),
        }
    }
}

/// A model that returns its input sends the same tensor, as binary data; as JSON it answers, too.
fn comes_back(request: InferRequest, specs: &[TensorSpec]) {
    // Rows without elements cost no bytes: there may be more of them than memory for answers.
    if request.count > 1 << 16 {
        return;
    }
    let columns = Arc::new(request.rows.into_columns().into_vec());
    let rows: Vec<_> =
        (0..request.count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let id = request.id.as_deref();
    let answer = |binary| InferResponse {
        model: "m",
        version: "1",
        id,
        outputs: specs,
        wanted: None,
        binary,
        rows: &rows,
    };
    drop(answer(false).encode());
    drop(answer(false).to_message());
    let message = InferAnswer::parse(answer(true).to_message().slice(PREFIX..)).unwrap();
    for (column, tensor) in columns.iter().zip(message.tensors) {
        if let Column::Numbers { memory, .. } = column {
            assert_eq!(memory.as_slice(), &tensor.data[..]);
        }
    }
    let encoded = answer(true).encode();
    let (json, data) = encoded.body.split_at(encoded.header_length.unwrap());
    // The id may hold the word, too, and stands before the key.
    let json = std::str::from_utf8(json).unwrap();
    let key = json.rfind("\"outputs\":[{\"name\":\"x\"").unwrap();
    let json = format!("{}\"inputs\"{}", &json[..key], &json[key + "\"outputs\"".len()..]);
    let body = [json.as_bytes(), data].concat();
    let again = InferRequest::parse(&body, Some(json.len()), specs, &[], &Spares::new(1 << 20)).unwrap();
    assert_eq!((again.count, again.id.as_deref()), (rows.len(), id));
    for (column, other) in columns.iter().zip(again.rows.columns()) {
        match (column, other) {
            (Column::Numbers { memory, .. }, Column::Numbers { memory: other, .. }) => {
                assert_eq!(memory.as_slice(), other.as_slice());
            }
            (Column::Texts { texts, .. }, Column::Texts { texts: other, .. }) => {
                assert!(texts.range(0..texts.len()).eq(other.range(0..other.len())));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads a stream of events whole, byte by byte and in portions: all mean what the rules say, and are read back as written.
pub fn read_events(stream: &[u8]) {
    let meaning = reference::interpret(stream);
    for portion in [1, 3, stream.len().max(1)] {
        let (mut decoder, mut events) = (SseDecoder::new(MAX_EVENT), VecDeque::new());
        stream.chunks(portion).for_each(|some| decoder.feed(some, &mut events).unwrap());
        assert_eq!(Vec::from(events), meaning.events);
        assert_eq!(**decoder.last_event_id(), meaning.last_event_id);
        assert_eq!(decoder.retry().map(|delay| delay.as_millis()), meaning.retry.map(u128::from));
    }
    let mut written = Vec::new();
    for Event { event, data, id } in &meaning.events {
        stream::write_event(&mut written, Some(event), Some(id), data.as_bytes());
    }
    let (mut decoder, mut events) = (SseDecoder::new(2 * MAX_EVENT), VecDeque::new());
    decoder.feed(&written, &mut events).unwrap();
    assert_eq!(Vec::from(events), meaning.events);
    let mut events = VecDeque::new();
    if let Err(error) = SseDecoder::new(64).feed(stream, &mut events) {
        assert_eq!(error.kind(), ErrorKind::Stream);
    }
    assert!(events.iter().all(|event| event.data.len() <= 3 * 64), "U+FFFD has three bytes");
}

/// Cuts a body into lines, whole and byte by byte.
pub fn read_lines(body: &[u8]) {
    let cut = |portion| {
        let (mut decoder, mut lines) = (LineDecoder::new(MAX_EVENT), VecDeque::new());
        body.chunks(portion).for_each(|some| decoder.feed(some, &mut lines).unwrap());
        decoder.end(&mut lines);
        lines
    };
    let lines = cut(body.len().max(1));
    assert_eq!(cut(1), lines);
    assert!(lines.iter().all(|line| !line.iter().any(|byte| matches!(byte, b'\n' | b'\r'))));
    let breaks = body.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    assert_eq!(lines.iter().map(Vec::len).sum::<usize>(), body.len() - breaks);
}

/// Reads a safetensors file: it is refused, or the format's own crate reads the same tensors from it.
pub fn read_header(file: &[u8]) {
    let Ok(header) = Header::parse(file, file.len() as u64) else { return };
    let reference = SafeTensors::deserialize(file).unwrap();
    assert_eq!(reference.len(), header.tensors().len());
    let data = &file[header.data_begin() as usize..];
    for tensor in header.tensors() {
        let view = reference.tensor(&tensor.name).unwrap();
        assert_eq!(format!("{:?}", view.dtype()), tensor.dtype.name());
        assert_eq!(view.shape(), tensor.shape);
        assert_eq!(view.data(), &data[tensor.begin as usize..tensor.end as usize]);
        assert_eq!(header.get(&tensor.name), Some(tensor));
    }
}

/// Reads an index of safetensors files: it is refused, or every file that it names is in its own directory.
pub fn read_index(text: &[u8]) {
    let Ok(index) = Index::parse(text) else { return };
    for name in index.files() {
        let path = std::path::Path::new(name);
        assert_eq!(path.file_name(), Some(path.as_os_str()));
        assert!(name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0', ':']));
    }
}
