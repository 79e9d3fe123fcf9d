//! The parameters of a request: each is read, passed over or refused, by its name.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::{INVALID, MISSING, UNKNOWN, UNSUPPORTED, refused};
use crate::error::{Error, ErrorKind, Result};

/// What becomes of a parameter.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// It is read.
    Read,
    /// It asks for nothing that an answer would show: it may be anything.
    Passed,
    /// It is refused, unless its value means what is done anyway.
    Unless(fn(&Value) -> bool),
}

/// The parameters of an endpoint.
pub(super) type Table = [(&'static str, Use)];

/// The parameters that a request has, each as it was written, each once.
pub(super) struct Fields<'a> {
    found: Vec<(&'static str, &'a RawValue)>,
}

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

impl<'a> Fields<'a> {
    /// Reads a body that holds one JSON object.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it is none, where a parameter is given twice, and for one that is unknown or asks for
    /// what is not served.
    pub(super) fn parse(body: &'a [u8], table: &'static Table) -> Result<Self> {
        let (mut found, mut refusal) = (Vec::new(), None);
        let mut read = serde_json::Deserializer::from_slice(body);
        let seed = Object { table, found: &mut found, refusal: &mut refusal };
        let outcome = seed.deserialize(&mut read).and_then(|()| read.end());
        if let Err(error) = outcome {
            let broken = || Error::new(ErrorKind::Item, format!("the body is no request: {error}"));
            return Err(refusal.unwrap_or_else(broken));
        }
        let fields = Self { found };
        for (name, used) in table {
            if let (Use::Unless(is_default), Some(raw)) = (used, fields.raw(name)) {
                let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
                if !is_default(&value) {
                    return Err(refused(name, UNSUPPORTED, format!("={} is not supported", shown(raw))));
                }
            }
        }
        Ok(fields)
    }

    /// What was given under that name; `null` is as good as nothing.
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, raw) = self.found.iter().find(|(known, _)| *known == name)?;
        (raw.get() != "null").then_some(*raw)
    }

    /// The value of a parameter that may be missing.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it is not what it must be.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<Option<T>> {
        self.read_where(name, expected, |_| true)
    }

    /// As [`read`](Self::read), and what is read must hold.
    pub(super) fn read_where<T: DeserializeOwned>(
        &self,
        name: &str,
        expected: &str,
        holds: impl Fn(&T) -> bool,
    ) -> Result<Option<T>> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(value) if holds(&value) => Ok(Some(value)),
            _ => Err(refused(name, INVALID, format!("must be {expected}, not {}", shown(raw)))),
        }
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    /// As [`read`](Self::read), and where it is missing.
    pub(super) fn must<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<T> {
        self.read(name, expected)?
            .ok_or_else(|| refused(name, MISSING, format!("is missing: it must be {expected}")))
    }

    /// Takes in the parameters of an object that was given as one.
    ///
    /// # Errors
    /// [`ErrorKind::Item`] where it is no object, as of [`parse`](Self::parse), and for what is given here, too.
    pub(super) fn open(&mut self, name: &str, table: &'static Table) -> Result<()> {
        let Some(raw) = self.raw(name) else { return Ok(()) };
        for (inner, value) in Self::parse(raw.get().as_bytes(), table)?.found {
            if self.raw(inner).is_some() {
                return Err(refused(inner, INVALID, format!("is given twice: once in {name}")));
            }
            self.found.push((inner, value));
        }
        Ok(())
    }

    /// A parameter as it was written.
    pub(super) fn written(&self, name: &str) -> Option<&'a str> {
        self.raw(name).map(RawValue::get)
    }
}

/// A value, as far as an error shows it.
fn shown(raw: &RawValue) -> String {
    let text = raw.get();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Object<'a, 'f> {
    table: &'static Table,
    found: &'f mut Vec<(&'static str, &'a RawValue)>,
    /// Why the object is refused, in better words than a parser's.
    refusal: &'f mut Option<Error>,
}

impl<'a> DeserializeSeed<'a> for Object<'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let refusal = match self.table.iter().find(|(known, _)| *known == name) {
                None => refused(&clipped(&name), UNKNOWN, "is no parameter of this endpoint"),
                Some((known, _)) if self.found.iter().any(|(found, _)| found == known) => {
                    refused(known, INVALID, "is given twice")
                }
                Some((known, _)) => {
                    self.found.push((known, map.next_value()?));
                    continue;
                }
            };
            *self.refusal = Some(refusal);
            return Err(de::Error::custom("refused"));
        }
        Ok(())
    }
}

fn clipped(name: &str) -> String {
    name.chars().take(2 * SHOWN).collect()
}

/// True for a number that is zero.
pub(super) fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

/// True for the number one.
pub(super) fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// True for `false`.
pub(super) fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

/// True for a list, an object or a text that is empty.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// True for nothing at all: whatever is given is refused.
pub(super) fn never(_: &Value) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openai::Fault;

    const TABLE: &Table = &[
        ("model", Use::Read),
        ("best_of", Use::Unless(is_one)),
        ("store", Use::Unless(is_false)),
        ("note", Use::Passed),
    ];

    fn fault(body: &str) -> Fault {
        let error = Fields::parse(body.as_bytes(), TABLE).map(|_| ()).unwrap_err();
        std::error::Error::source(&error).unwrap().downcast_ref::<Fault>().unwrap().clone()
    }

    #[test]
    fn what_is_unknown_or_unsupported_is_refused_by_name() {
        for (body, parameter, code) in [
            (r#"{"colour": 1}"#, "colour", UNKNOWN),
            (r#"{"best_of": 2}"#, "best_of", UNSUPPORTED),
            (r#"{"store": "no"}"#, "store", UNSUPPORTED),
            (r#"{"model": "a", "mod\u0065l": "b"}"#, "model", INVALID),
        ] {
            let fault = fault(body);
            assert_eq!((fault.parameter.as_str(), fault.code), (parameter, code), "{body}");
        }
        let fine = br#"{"best_of": 1.0, "store": null, "note": [1, {"a": 2}], "model": "m"}"#;
        assert_eq!(Fields::parse(fine, TABLE).unwrap().must::<String>("model", "a text").unwrap(), "m");
    }

    #[test]
    fn what_is_no_object_is_no_request() {
        for body in ["", "[]", "{", "{} {}", "null", r#"{"model": }"#, "{\"model\": \"\u{1}\"}"] {
            let error = Fields::parse(body.as_bytes(), TABLE).map(|_| ()).unwrap_err();
            assert!(error.message().starts_with("the body is no request"), "{body}: {error}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_shown_in_short() {
        let body = format!(r#"{{"model": [{}]}}"#, "1, ".repeat(1_000) + "1");
        let fields = Fields::parse(body.as_bytes(), TABLE).unwrap();
        let error = fields.must::<String>("model", "a text").unwrap_err();
        assert!(
            error.message().starts_with("model must be a text, not [1, 1") && error.message().len() < 100
        );
        let missing = Fields::parse(b"{}", TABLE).unwrap().must::<String>("model", "a text").unwrap_err();
        assert_eq!(missing.message(), "model is missing: it must be a text");
    }
}
