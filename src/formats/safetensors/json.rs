//! JSON as the format wants it: no key twice, no key that is not known, nothing around it but spaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::header::{MAX_RANK, TensorEntry};
use super::names::{fault, quoted};
use super::stored::StoredType;

/// The key of a header that names no tensor.
const METADATA: &str = "__metadata__";

type Contents = (Vec<TensorEntry>, BTreeMap<String, String>);

/// Reads the text of a header.
pub(super) fn header(text: &[u8]) -> Result<Contents, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("its header is not UTF-8: {error}"))?;
    let text = text.trim_end_matches(' ');
    if !text.starts_with('{') || !text.ends_with('}') {
        return Err("its header does not begin with '{' and end with '}' and spaces".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let contents = Entries.deserialize(&mut reader);
    contents
        .and_then(|contents| reader.end().map(|()| contents))
        .map_err(|error| format!("its header cannot be read: {error}"))
}

/// Reads the `weight_map` of an index.
pub(super) fn weight_map(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("the index is not UTF-8: {error}"))?;
    let WeightMap(files) =
        serde_json::from_str(text).map_err(|error| format!("the index cannot be read: {error}"))?;
    Ok(files)
}

struct Entries;

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Contents;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Contents, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Contents, A::Error> {
        let (mut tensors, mut metadata) = (Vec::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                let Distinct(found) = map.next_value()?;
                if metadata.replace(found).is_some() {
                    return Err(A::Error::custom(format!("the key '{METADATA}' stands twice")));
                }
                continue;
            }
            if let Some(fault) = fault(&name) {
                return Err(A::Error::custom(format!("{fault}: {}", quoted(&name))));
            }
            let entry: Entry = map
                .next_value::<Object<Entry>>()
                .map_err(|error| A::Error::custom(format!("tensor {}: {error}", quoted(&name))))?
                .0;
            let [begin, end] = entry.data_offsets;
            tensors.push(TensorEntry { name, dtype: entry.dtype, shape: entry.shape.0, begin, end });
        }
        Ok((tensors, metadata.unwrap_or_default()))
    }
}

/// What stands under the name of a tensor. That no field stands twice is what derived readers see to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: StoredType,
    shape: Lengths,
    data_offsets: [u64; 2],
}

/// A structure that is an object; derived readers take a list of its fields, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
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
        reader.deserialize_map(Fields(PhantomData))
    }
}

impl<'de> Deserialize<'de> for StoredType {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let name = String::deserialize(reader)?;
        Self::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("the format has no type {}", quoted(&name))))
    }
}

/// The lengths of the axes of a tensor.
struct Lengths(Vec<usize>);

impl<'de> Deserialize<'de> for Lengths {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Axes;
        impl<'de> Visitor<'de> for Axes {
            type Value = Lengths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_RANK} lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lengths, A::Error> {
                let mut lengths = Vec::new();
                while let Some(length) = list.next_element()? {
                    if lengths.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("it has more than {MAX_RANK} dimensions")));
                    }
                    lengths.push(length);
                }
                Ok(Lengths(lengths))
            }
        }
        reader.deserialize_seq(Axes)
    }
}

/// An object whose keys are all different.
struct Distinct<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Distinct<T> {
    /// Reads what is left of an object.
    fn walk<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if found.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {} stands twice", quoted(&key))));
            }
            found.insert(key, value);
        }
        Ok(Self(found))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Distinct<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Distinct<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Distinct<T>, A::Error> {
                Distinct::walk(map)
            }
        }
        reader.deserialize_map(Keys(PhantomData))
    }
}

/// The `weight_map` of an index.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a weight_map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let (mut seen, mut found) = (BTreeSet::new(), None);
                while let Some(key) = map.next_key::<String>()? {
                    if key == "weight_map" {
                        let Distinct(files) = map.next_value()?;
                        found = Some(files);
                    } else {
                        map.next_value::<Anything>()?;
                    }
                    if let Some(key) = seen.replace(key) {
                        return Err(A::Error::custom(format!("the key {} stands twice", quoted(&key))));
                    }
                }
                found.map(WeightMap).ok_or_else(|| A::Error::missing_field("weight_map"))
            }
        }
        reader.deserialize_map(Top)
    }
}

/// Any value that has no key twice in one object.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Anything;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Anything, A::Error> {
                while list.next_element::<Anything>()?.is_some() {}
                Ok(Anything)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Anything, A::Error> {
                Distinct::<Anything>::walk(map).map(|_| Anything)
            }
        }
        reader.deserialize_any(Walk)
    }
}
