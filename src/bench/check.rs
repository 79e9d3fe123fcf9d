//! Whether an answer is an inference response of the Open Inference Protocol, version 2: JSON here, a message in
//! `message.rs`.
//!
//! Sizes and counts are compared with the shapes; what the numbers are is not looked at.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::link::Whole;
use super::message;

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    model_name: Cow<'a, str>,
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<u64>,
    data: Option<Leaves>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize, Default)]
struct Parameters {
    binary_data_size: Option<u64>,
}

/// How many values a list holds, lists in it included.
struct Leaves(u64);

/// Looks at an answer; the text of the error says what is wrong with it.
pub(super) fn inference(answer: &Whole) -> Result<(), String> {
    if answer.status != StatusCode::OK {
        return Err(format!("its status is {}", answer.status.as_u16()));
    }
    if let Some(code) = answer.code {
        return message::inference(code, &answer.body);
    }
    let json_length = answer.json_length.unwrap_or(answer.body.len());
    let Some((json, binary)) = answer.body.split_at_checked(json_length) else {
        return Err(format!("its JSON is said to have {json_length} bytes, of {} in all", answer.body.len()));
    };
    let response: Response<'_> =
        serde_json::from_slice(json).map_err(|error| format!("it is no inference response: {error}"))?;
    if response.model_name.is_empty() || response.outputs.is_empty() {
        return Err("it names no model or no output".to_owned());
    }
    let mut announced = 0_u64;
    for output in &response.outputs {
        announced = announced.saturating_add(output.check()?);
    }
    if announced != binary.len() as u64 {
        let have = binary.len();
        return Err(format!("its outputs announce {announced} bytes of binary data, and {have} are there"));
    }
    Ok(())
}

impl Output<'_> {
    /// The bytes of binary data that it announces.
    fn check(&self) -> Result<u64, String> {
        let name = &self.name;
        let count = self.shape.iter().try_fold(1_u64, |product, axis| product.checked_mul(*axis));
        let count = count.ok_or_else(|| format!("the shape of output {name:?} is too large"))?;
        let Some(bytes) = datatype_bytes(&self.datatype) else {
            return Err(format!("output {name:?} has datatype {:?}, which does not exist", self.datatype));
        };
        match (&self.data, self.parameters.binary_data_size) {
            (Some(Leaves(values)), None) if *values == count => Ok(0),
            (Some(Leaves(values)), None) => {
                Err(format!("output {name:?} has {values} values for a shape of {count}"))
            }
            (None, Some(size)) if bytes == 0 || Some(size) == count.checked_mul(bytes) => Ok(size),
            (None, Some(size)) => {
                Err(format!("output {name:?} has {size} bytes for {count} values of {bytes} bytes"))
            }
            _ => Err(format!("output {name:?} has no data, or has them twice")),
        }
    }
}

/// The bytes of one value; 0 where they vary.
pub(super) fn datatype_bytes(datatype: &str) -> Option<u64> {
    Some(match datatype {
        "BYTES" => 0,
        "BOOL" | "INT8" | "UINT8" => 1,
        "INT16" | "UINT16" | "FP16" | "BF16" => 2,
        "INT32" | "UINT32" | "FP32" => 4,
        "INT64" | "UINT64" | "FP64" => 8,
        _ => return None,
    })
}

impl<'de> Deserialize<'de> for Leaves {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CountLeaves)
    }
}

struct CountLeaves;

impl<'de> Visitor<'de> for CountLeaves {
    type Value = Leaves;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Leaves, A::Error> {
        let mut count = 0;
        while let Some(Leaf(values)) = list.next_element()? {
            count += values;
        }
        Ok(Leaves(count))
    }
}

/// A value, or a list of them.
struct Leaf(u64);

impl<'de> Deserialize<'de> for Leaf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor)
    }
}

struct LeafVisitor;

impl<'de> Visitor<'de> for LeafVisitor {
    type Value = Leaf;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a value or a list of values")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    fn visit_str<E>(self, _: &str) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    /// What NaN and infinity become, which JSON has no word for.
    fn visit_unit<E>(self) -> Result<Leaf, E> {
        Ok(Leaf(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Leaf, A::Error> {
        CountLeaves.visit_seq(list).map(|Leaves(count)| Leaf(count))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(serde::de::Error::custom("an object is no value of a tensor"))
    }
}
