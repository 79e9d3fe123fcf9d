//! The JSON object around the data of a request, as it was sent: nothing here knows the model.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::request::{NO_LEVEL, level_named, level_of};

/// An inference request. Keys that are not here are passed over; those that are come once.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(borrow)]
    pub(super) inputs: SmallVec<[Object<GivenInput<'a>>; 2]>,
    #[serde(borrow, default)]
    pub(super) outputs: Option<Vec<Object<NamedOutput<'a>>>>,
    #[serde(default)]
    pub(super) parameters: Option<Object<RequestParameters>>,
}

/// One of a request's inputs.
#[derive(Deserialize)]
pub(super) struct GivenInput<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) shape: SmallVec<[usize; 4]>,
    #[serde(borrow)]
    pub(super) datatype: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) parameters: Option<Object<InputParameters>>,
}

/// One of the outputs that a request asks for.
#[derive(Deserialize)]
pub(super) struct NamedOutput<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(default)]
    pub(super) parameters: Option<Object<OutputParameters>>,
}

#[derive(Deserialize)]
pub(super) struct RequestParameters {
    #[serde(default)]
    pub(super) binary_data_output: Option<bool>,
    /// Microseconds.
    #[serde(default)]
    pub(super) timeout: Option<u64>,
    #[serde(default)]
    pub(super) priority: Option<Level>,
}

/// The level of a priority, by its number or its word; `None` for the usual one.
#[derive(Clone, Copy)]
pub(super) struct Level(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Given;

        impl Visitor<'_> for Given {
            type Value = Level;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a priority: a whole number, 'high', 'normal' or 'low'")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Level, E> {
                Ok(Level(level_of(number)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Level, E> {
                let level = level_named(name).ok_or_else(|| E::custom(NO_LEVEL))?;
                Ok(Level(Some(level)))
            }
        }

        deserializer.deserialize_any(Given)
    }
}

#[derive(Deserialize)]
pub(super) struct InputParameters {
    #[serde(default)]
    pub(super) binary_data_size: Option<u64>,
    #[serde(default)]
    pub(super) shared_memory_region: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct OutputParameters {
    #[serde(default)]
    pub(super) binary_data: Option<bool>,
    #[serde(default)]
    pub(super) classification: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) shared_memory_region: Option<IgnoredAny>,
}

/// A JSON object, and nothing else: a derived type alone would take a list of its fields, too.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}
