//! Any tensors, as JSON and as binary data: no bit may change on any way, and no bytes may break the reader.

use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::super::{AnswerRow, InferRequest, InferResponse, WantedOutput};
use super::{DTYPES, spares, spec};
use crate::error::ErrorKind;
use crate::tensor::{Column, DType, Elements, TensorSpec};

/// A tensor of a request.
#[derive(Debug, Clone)]
struct Tensor {
    spec: TensorSpec,
    /// Batch axis first.
    shape: Vec<usize>,
    /// Each in the machine's byte order.
    elements: Vec<Vec<u8>>,
}

fn elements_of(kind: Elements, finite: bool) -> BoxedStrategy<Vec<u8>> {
    match kind {
        Elements::Text => any::<String>().prop_map(String::into_bytes).boxed(),
        Elements::Bytes if finite => any::<String>().prop_map(String::into_bytes).boxed(),
        Elements::Bytes => any::<Vec<u8>>().boxed(),
        Elements::Numbers(dtype) => proptest::collection::vec(any::<u8>(), dtype.size())
            .prop_map(move |bytes| number(dtype, bytes, finite))
            .boxed(),
    }
}

/// Bits that are a number of this type, and one that JSON has a word for where `finite`.
fn number(dtype: DType, bytes: Vec<u8>, finite: bool) -> Vec<u8> {
    macro_rules! is_finite {
        ($kind:ty) => {
            <$kind>::from_ne_bytes(bytes[..].try_into().unwrap()).is_finite()
        };
    }
    let kept = match dtype {
        DType::Bool => return vec![bytes[0] & 1],
        DType::Float16 => is_finite!(f16),
        DType::BFloat16 => is_finite!(bf16),
        DType::Float32 => is_finite!(f32),
        DType::Float64 => is_finite!(f64),
        _ => true,
    };
    if kept || !finite { bytes } else { vec![0; dtype.size()] }
}

fn kinds() -> impl Strategy<Value = Elements> {
    let numbers = DTYPES.into_iter().map(Elements::Numbers);
    proptest::sample::select(numbers.chain([Elements::Text, Elements::Bytes]).collect::<Vec<_>>())
}

fn tensor(name: String, rows: usize, finite: bool) -> impl Strategy<Value = Tensor> {
    (kinds(), proptest::collection::vec(0_usize..4, 0..4)).prop_flat_map(move |(kind, axes)| {
        let declared: Vec<_> = axes.iter().map(|axis| i64::try_from(*axis).unwrap()).collect();
        let spec = spec(&name, kind.name(), &declared);
        let shape = [vec![rows], axes].concat();
        let count = shape.iter().product::<usize>();
        proptest::collection::vec(elements_of(kind, finite), count).prop_map(move |elements| Tensor {
            spec: spec.clone(),
            shape: shape.clone(),
            elements,
        })
    })
}

/// Tensors with the same number of rows, under names that need escapes.
fn tensors(finite: bool) -> impl Strategy<Value = Vec<Tensor>> {
    (1_usize..4, 1_usize..4).prop_flat_map(move |(rows, count)| {
        let one = |at: usize| tensor(format!("{at}\"ü\\"), rows, finite);
        (0..count).map(one).collect::<Vec<_>>()
    })
}

fn specs(tensors: &[Tensor]) -> Vec<TensorSpec> {
    tensors.iter().map(|tensor| tensor.spec.clone()).collect()
}

impl Tensor {
    fn envelope(&self) -> Value {
        json!({"name": self.spec.name, "shape": self.shape, "datatype": self.spec.elements.oip_name()})
    }

    /// One element as JSON, by other means than those that are tested.
    fn shown(&self, bytes: &[u8]) -> Value {
        macro_rules! read {
            ($kind:ty) => {
                <$kind>::from_ne_bytes(bytes.try_into().unwrap())
            };
        }
        let Elements::Numbers(dtype) = self.spec.elements else {
            return json!(std::str::from_utf8(bytes).unwrap());
        };
        match dtype {
            DType::Bool => json!(bytes == [1]),
            DType::Int8 => json!(read!(i8)),
            DType::Int16 => json!(read!(i16)),
            DType::Int32 => json!(read!(i32)),
            DType::Int64 => json!(read!(i64)),
            DType::UInt8 => json!(read!(u8)),
            DType::UInt16 => json!(read!(u16)),
            DType::UInt32 => json!(read!(u32)),
            DType::UInt64 => json!(read!(u64)),
            DType::Float16 => json!(read!(f16).to_f64()),
            DType::BFloat16 => json!(read!(bf16).to_f64()),
            DType::Float32 => json!(f64::from(read!(f32))),
            _ => json!(read!(f64)),
        }
    }

    fn data(&self, nested: bool) -> Value {
        let mut shown = self.elements.iter().map(|element| self.shown(element));
        if nested { listed(&self.shape, &mut shown) } else { shown.collect() }
    }

    fn binary(&self) -> Vec<u8> {
        let prefixed =
            |text: &Vec<u8>| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
        let little = |number: &Vec<u8>| {
            let mut number = number.clone();
            if cfg!(target_endian = "big") {
                number.reverse();
            }
            number
        };
        let is_number = matches!(self.spec.elements, Elements::Numbers(_));
        self.elements
            .iter()
            .flat_map(|element| if is_number { little(element) } else { prefixed(element) })
            .collect()
    }

    fn is_in(&self, column: &Column) -> bool {
        match column {
            Column::Numbers { memory, .. } => memory.as_slice() == self.elements.concat(),
            Column::Texts { texts, .. } => {
                texts.range(0..texts.len()).eq(self.elements.iter().map(Vec::as_slice))
            }
            Column::Objects(_) => false,
        }
    }
}

fn listed(axes: &[usize], next: &mut impl Iterator<Item = Value>) -> Value {
    match axes.split_first() {
        None => next.next().unwrap(),
        Some((length, inner)) => (0..*length).map(|_| listed(inner, next)).collect(),
    }
}

fn json_body(tensors: &[Tensor], nested: bool) -> Vec<u8> {
    let input = |tensor: &Tensor| {
        let mut input = tensor.envelope();
        input["data"] = tensor.data(nested);
        input
    };
    json!({"id": "1", "inputs": tensors.iter().map(input).collect::<Vec<_>>()}).to_string().into_bytes()
}

fn binary_body(tensors: &[Tensor]) -> (Vec<u8>, usize) {
    let input = |tensor: &Tensor| {
        let mut input = tensor.envelope();
        input["parameters"] = json!({"binary_data_size": tensor.binary().len()});
        input
    };
    let json = json!({"inputs": tensors.iter().map(input).collect::<Vec<_>>()}).to_string();
    let length = json.len();
    (tensors.iter().fold(json.into_bytes(), |body, tensor| [body, tensor.binary()].concat()), length)
}

/// Reads a body, whose columns must be these tensors.
fn read(body: &[u8], header_length: Option<usize>, tensors: &[Tensor]) -> InferRequest {
    let request = InferRequest::parse(body, header_length, &specs(tensors), &[], &spares()).unwrap();
    assert_eq!(request.count, tensors[0].shape[0]);
    for (tensor, column) in tensors.iter().zip(request.rows.columns()) {
        assert!(tensor.is_in(column), "{tensor:?} became {column:?}");
    }
    request
}

/// What a model that returns its inputs answers, some outputs binary, as the body of a request.
fn echo(request: InferRequest, tensors: &[Tensor], binary: &[bool]) -> (Vec<u8>, Option<usize>) {
    let specs = specs(tensors);
    let columns = Arc::new(request.rows.into_columns().into_vec());
    let rows: Vec<_> = (0..request.count).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect();
    let wanted: Vec<_> =
        (0..tensors.len()).map(|index| WantedOutput { index, binary: binary[index] }).collect();
    let response = InferResponse {
        model: "m",
        version: "1",
        id: request.id.as_deref(),
        outputs: &specs,
        wanted: Some(&wanted),
        binary: false,
        rows: &rows,
    };
    response.check().unwrap();
    let encoded = response.encode();
    assert_eq!(encoded.header_length.is_some(), wanted.iter().any(|output| output.binary));
    let length = encoded.header_length.unwrap_or(encoded.body.len());
    let json = std::str::from_utf8(&encoded.body[..length]).unwrap();
    let _: Value = serde_json::from_str(json).unwrap();
    let json = json.replacen("\"outputs\"", "\"inputs\"", 1);
    let length = encoded.header_length.map(|_| json.len());
    ([json.as_bytes(), &encoded.body[encoded.header_length.unwrap_or(encoded.body.len())..]].concat(), length)
}

/// One change to a body.
#[derive(Debug, Clone)]
enum Change {
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let pieces = [
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"",
        "-",
        "0",
        "1e400",
        "NaN",
        "null",
        "true",
        "\\ud800",
        "99999999999999999999",
    ];
    let pieces = proptest::sample::select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec());
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<Index>(), pieces).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Remove(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ];
    proptest::collection::vec(change, 1..4)
}

fn changed(mut body: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &Index| at.index(body.len() + 1);
        let range = |from: &Index, to: &Index| place(from).min(place(to))..place(from).max(place(to));
        match change {
            Change::Put(at, byte) => {
                let at = place(at);
                if let Some(place) = body.get_mut(at) {
                    *place = *byte;
                }
            }
            Change::Insert(at, piece) => {
                let at = place(at);
                body.splice(at..at, piece.iter().copied());
            }
            Change::Remove(from, to) => drop(body.drain(range(from, to))),
            Change::Repeat(from, to) => {
                let range = range(from, to);
                let piece = body[range.clone()].to_vec();
                body.splice(range.end..range.end, piece);
            }
        }
    }
    body
}

/// Whatever comes, the answer is a request or the sender's fault.
fn survives(body: &[u8], header_length: Option<usize>, inputs: &[TensorSpec]) {
    let spares = spares();
    let outputs = [spec("y", "float32", &[])];
    match InferRequest::parse(body, header_length, inputs, &outputs, &spares) {
        Ok(request) => assert_eq!(request.rows.columns().len(), inputs.len()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Item, "{error}"),
    }
    assert_eq!(Arc::strong_count(&spares), 1, "memory was not given back");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_and_binary_are_the_same_tensors_and_come_back(
        tensors in tensors(true),
        nested in any::<bool>(),
        binary in proptest::collection::vec(any::<bool>(), 3),
    ) {
        let from_json = read(&json_body(&tensors, nested), None, &tensors);
        let (body, length) = binary_body(&tensors);
        let from_binary = read(&body, Some(length), &tensors);
        prop_assert_eq!(&from_json.specs, &from_binary.specs);
        for request in [from_json, from_binary] {
            let (body, length) = echo(request, &tensors, &binary);
            read(&body, length, &tensors);
        }
    }

    #[test]
    fn binary_data_keeps_what_json_cannot_say(tensors in tensors(false)) {
        let (body, length) = binary_body(&tensors);
        let request = read(&body, Some(length), &tensors);
        let (body, length) = echo(request, &tensors, &[true; 3]);
        read(&body, length, &tensors);
    }

    #[test]
    fn changed_requests_are_read_or_refused(
        tensors in tensors(true),
        nested in any::<bool>(),
        changes in changes(),
        moved in -3_isize..3,
    ) {
        let specs = specs(&tensors);
        survives(&changed(json_body(&tensors, nested), &changes), None, &specs);
        let (body, length) = binary_body(&tensors);
        survives(&body, Some(length.saturating_add_signed(moved)), &specs);
        let data = changed(body[length..].to_vec(), &changes);
        survives(&[&body[..length], &data].concat(), Some(length), &specs);
        let json = changed(body[..length].to_vec(), &changes);
        survives(&[&json, &body[length..]].concat(), Some(json.len()), &specs);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        length in proptest::option::of(0_usize..400),
        kind in kinds(),
    ) {
        survives(&body, length, &[spec("x", kind.name(), &[-1])]);
    }

    /// However a decimal is written, it is the number nearest to it.
    #[test]
    fn decimals_are_rounded_once(
        text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,22})?([eE][-+]?[0-9]{1,2})?",
    ) {
        let read = |elements: &str| {
            let request = super::scalars(elements, 1, &format!("[{text}]")).ok()?;
            Some(super::bytes(&request.rows.columns()[0]).to_vec())
        };
        let single: f32 = text.parse().unwrap();
        let double: f64 = text.parse().unwrap();
        prop_assert_eq!(read("float32"), single.is_finite().then(|| single.to_ne_bytes().to_vec()));
        prop_assert_eq!(read("float64"), double.is_finite().then(|| double.to_ne_bytes().to_vec()));
        let whole = if text == "-0" { "0" } else { &text };
        prop_assert_eq!(read("int64"), whole.parse::<i64>().ok().map(|number| number.to_ne_bytes().to_vec()));
        prop_assert_eq!(read("uint8"), whole.parse::<u8>().ok().map(|number| number.to_ne_bytes().to_vec()));
    }

    /// Decimals that lie at or beside the middle of two singles are where rounding twice goes wrong.
    #[test]
    fn decimals_between_two_singles_go_to_the_nearest(bits in 0x3000_0000_u32..0x4b00_0000, digits in 8_usize..19) {
        let middle = f64::midpoint(f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
        let text = format!("{middle:.digits$}");
        let request = super::scalars("float32", 1, &format!("[{text}]")).unwrap();
        let expected = text.parse::<f32>().unwrap().to_ne_bytes();
        prop_assert_eq!(super::bytes(&request.rows.columns()[0]), expected);
    }
}
