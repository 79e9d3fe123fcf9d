//! `/v1/embeddings`: <https://platform.openai.com/docs/api-reference/embeddings/create>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::completion::texts;
use super::fault::{INVALID, UNSUPPORTED, refused};
use super::fields::{Fields, Table, Use};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{AnswerRow, Column, DType};

const TABLE: &Table = &[
    ("model", Use::Read),
    ("input", Use::Read),
    ("encoding_format", Use::Read),
    ("dimensions", Use::Read),
    ("user", Use::Passed),
];

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Its float32 numbers, the lowest byte of each first, in base64 (RFC 4648, section 4).
    Base64,
}

/// A request for vectors.
#[derive(Debug)]
pub struct EmbeddingRequest {
    /// The model's name.
    pub model: String,
    /// The texts, at least one.
    pub texts: Vec<String>,
    /// How the vectors are to be written.
    pub encoding: Encoding,
    dimensions: Option<usize>,
}

impl EmbeddingRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`ErrorKind::Item`], naming the parameter and what it may be.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let fields = Fields::parse(body, TABLE)?;
        let model = fields.must("model", "the name of a model")?;
        let texts = texts(&fields, "input")?;
        if texts.is_empty() {
            return Err(refused("input", INVALID, "is an empty list: it must hold a text"));
        }
        let encoding = fields.read("encoding_format", "\"float\" or \"base64\"")?.unwrap_or_default();
        let expected = "a whole number of at least 1";
        let dimensions = fields.read_where("dimensions", expected, |count: &usize| *count >= 1)?;
        Ok(Self { model, texts, encoding, dimensions })
    }

    /// Looks whether vectors of that length are what is asked for; `None` is any length.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where another length is.
    pub fn check(&self, length: Option<usize>) -> Result<()> {
        match self.dimensions {
            Some(wanted) if length != Some(wanted) => {
                let model = &self.model;
                let why = match length {
                    Some(length) => {
                        format!("={wanted} is not supported: vectors of model '{model}' have {length}")
                    }
                    None => format!("={wanted} is not supported: model '{model}' declares no length"),
                };
                Err(refused("dimensions", UNSUPPORTED, why))
            }
            _ => Ok(()),
        }
    }
}

/// The body of an answer: one vector for each text, which `rows` hold as their only output.
///
/// What JSON has no word for (NaN, infinities) becomes `null`, and stays what it is in base64. `usage` says how many tokens
/// the rows came to: 0 where nobody has counted them.
///
/// # Errors
/// [`ErrorKind::Output`] where a row is no vector of float32.
pub fn embeddings(model: &str, rows: &[AnswerRow], encoding: Encoding) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128 + rows.len() * 64);
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, row) in rows.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b"," } else { b"" });
        out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        out.extend_from_slice(b",\"embedding\":");
        let vector = vector(row).ok_or_else(|| {
            Error::new(ErrorKind::Output, format!("model '{model}' answered no float32 vector"))
        })?;
        put_vector(&mut out, vector, encoding);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"model\":");
    super::answer::put_text(&mut out, model.as_bytes());
    let tokens: u64 = rows.iter().fold(0, |sum, row| sum.saturating_add(row.tokens));
    let (mut digits, mut again) = (itoa::Buffer::new(), itoa::Buffer::new());
    for piece in [
        ",\"usage\":{\"prompt_tokens\":",
        digits.format(tokens),
        ",\"total_tokens\":",
        again.format(tokens),
        "}}",
    ] {
        out.extend_from_slice(piece.as_bytes());
    }
    Ok(out)
}

/// The bytes of a row's vector.
fn vector(row: &AnswerRow) -> Option<&[u8]> {
    match row.columns.first()? {
        Column::Numbers { dtype: DType::Float32, shape, row_bytes, memory } if shape.len() == 1 => {
            memory.as_slice().get(row.row * row_bytes..(row.row + 1) * row_bytes)
        }
        _ => None,
    }
}

fn put_vector(out: &mut Vec<u8>, vector: &[u8], encoding: Encoding) {
    let numbers =
        vector.chunks_exact(4).map(|place| f32::from_ne_bytes(place.try_into().unwrap_or_default()));
    match encoding {
        Encoding::Base64 => {
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        Encoding::Float => {
            out.reserve(vector.len() * 4);
            for (at, number) in numbers.enumerate() {
                out.push(if at > 0 { b',' } else { b'[' });
                if number.is_finite() {
                    out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
                } else {
                    out.extend_from_slice(b"null");
                }
            }
            out.extend_from_slice(if vector.is_empty() { b"[]" } else { b"]" });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use smallvec::smallvec;

    use super::*;
    use crate::tensor::{ColumnSpec, Spares};

    fn rows(vectors: &[[f32; 2]]) -> Vec<AnswerRow> {
        let spec = ColumnSpec::Numbers { dtype: DType::Float32, shape: smallvec![2] };
        let mut column = Column::new(&spec, &Spares::new(1 << 16));
        if let Column::Numbers { memory, .. } = &mut column {
            vectors.iter().flatten().for_each(|number| memory.extend(&number.to_ne_bytes()));
        }
        let columns = Arc::new(vec![column]);
        (0..vectors.len()).map(|row| AnswerRow::new(Arc::clone(&columns), row)).collect()
    }

    #[test]
    fn vectors_are_lists_or_base64() {
        let mut rows = rows(&[[1.0, -0.5], [f32::NAN, 2.0]]);
        (rows[0].tokens, rows[1].tokens) = (3, 4);
        let body: Value = serde_json::from_slice(&embeddings("m", &rows, Encoding::Float).unwrap()).unwrap();
        let expected = json!({"object": "list", "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7},
            "data": [{"object": "embedding", "index": 0, "embedding": [1.0, -0.5]},
                {"object": "embedding", "index": 1, "embedding": [null, 2.0]}]});
        assert_eq!(body, expected);
        let body: Value = serde_json::from_slice(&embeddings("m", &rows, Encoding::Base64).unwrap()).unwrap();
        let bytes = STANDARD.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap();
        assert_eq!(bytes, [1.0_f32.to_le_bytes(), (-0.5_f32).to_le_bytes()].concat());
    }

    #[test]
    fn what_is_asked_for_is_texts_of_a_length_that_the_model_has() {
        let read = |body: Value| EmbeddingRequest::parse(body.to_string().as_bytes());
        let asked = read(json!({"model": "m", "input": "a", "dimensions": 2, "user": "u"})).unwrap();
        assert_eq!((asked.texts.as_slice(), asked.encoding), (&["a".to_owned()][..], Encoding::Float));
        asked.check(Some(2)).unwrap();
        assert!(asked.check(Some(3)).unwrap_err().message().contains("have 3"));
        assert!(asked.check(None).unwrap_err().message().starts_with("dimensions=2 is not supported"));
        let many = read(json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64"})).unwrap();
        assert_eq!((many.texts.len(), many.encoding), (2, Encoding::Base64));
        many.check(None).unwrap();
        for (body, words) in [
            (json!({"input": "a"}), "model is missing"),
            (json!({"model": "m", "input": []}), "input is an empty list"),
            (json!({"model": "m", "input": [1, 2]}), "input as tokens is not supported"),
            (json!({"model": "m", "input": "a", "encoding_format": "int8"}), "encoding_format must be"),
            (json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions must be"),
            (json!({"model": "m", "input": "a", "pooling": "mean"}), "pooling is no parameter"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.message().starts_with(words), "{error}");
        }
    }
}
