//! What a text model is asked for, in the form in which it gets it: a JSON document in its one column of texts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::smallvec;

use super::fault::{INVALID, refused};
use super::fields::Fields;
use super::stop::Stops;
use crate::error::Result;
use crate::tensor::{Column, ColumnSpec, Rows, Shape, Spares, Specs};

/// Tokens of an answer at most, where nothing else is said.
pub(super) const MAX_TOKENS: u64 = 2048;
/// Texts at most that end an answer.
const MOST_STOPS: usize = 4;
/// Entries of `metadata` at most, and characters of their names and values.
const MOST_METADATA: (usize, usize, usize) = (16, 64, 512);

/// The terms of an answer, whatever it answers.
#[derive(Debug, Clone, Serialize)]
pub struct Terms {
    /// Tokens at most; a token is what the model gives at a time.
    pub max_tokens: u64,
    /// From 0, always the likeliest, to 2.
    pub temperature: f64,
    /// The share of the likeliest that is chosen from: 0 to 1.
    pub top_p: f64,
    /// Texts that end the answer, which leaves them out.
    pub stop: Vec<String>,
    /// What chance is to begin with, where the sender wants the same answer again.
    pub seed: Option<i64>,
    /// What else the sender says, by name.
    pub metadata: BTreeMap<String, String>,
    /// For whom the sender asks.
    pub user: Option<String>,
}

/// A question for a text model.
#[derive(Debug, Serialize)]
pub struct Ask<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The text that is to be gone on with, or
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<&'a str>,
    /// the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<&'a [Message]>,
    /// The terms.
    #[serde(flatten)]
    pub terms: Cow<'a, Terms>,
    /// True where the sender wants the answer as it comes.
    pub stream: bool,
}

/// What somebody said in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Who of several of that role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            max_tokens: MAX_TOKENS,
            temperature: 1.0,
            top_p: 1.0,
            stop: Vec::new(),
            seed: None,
            metadata: BTreeMap::new(),
            user: None,
        }
    }
}

impl Terms {
    /// Reads them from the parameters of a request.
    ///
    /// # Errors
    /// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the parameter and what it may be.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let usual = Self::default();
        let zero_to = |most: f64| move |number: &f64| (0.0..=most).contains(number);
        let temperature = fields.read_where("temperature", "a number between 0 and 2", zero_to(2.0))?;
        let top_p = fields.read_where("top_p", "a number between 0 and 1", zero_to(1.0))?;
        Ok(Self {
            max_tokens: max_tokens(fields)?.unwrap_or(usual.max_tokens),
            temperature: temperature.unwrap_or(usual.temperature),
            top_p: top_p.unwrap_or(usual.top_p),
            stop: stop(fields)?,
            seed: fields.read("seed", "a whole number")?,
            metadata: metadata(fields)?,
            user: fields.read("user", "a text")?,
        })
    }

    /// Those of the choice of that number: none but the first begins with the very same chance.
    #[must_use]
    pub(super) fn of_choice(&self, number: usize) -> Cow<'_, Self> {
        match self.seed {
            Some(seed) if number > 0 => {
                let seed = seed.wrapping_add(i64::try_from(number).unwrap_or_default());
                Cow::Owned(Self { seed: Some(seed), ..self.clone() })
            }
            _ => Cow::Borrowed(self),
        }
    }
}

impl Ask<'_> {
    /// The document.
    pub fn document(&self) -> Vec<u8> {
        // Of texts and finite numbers, by names that are texts: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The texts that end an answer on those terms, prepared.
pub fn stops_of(terms: &Terms) -> Arc<Stops> {
    Stops::new(terms.stop.iter().map(String::as_str))
}

/// A column of single texts, and what it holds: one row for each.
pub fn column<'a>(texts: impl IntoIterator<Item = &'a [u8]>, spares: &Arc<Spares>) -> (Specs, Rows) {
    let specs: Specs = smallvec![ColumnSpec::Texts { shape: Shape::new() }];
    let mut rows = Rows::new(&specs, spares);
    if let Some(Column::Texts { texts: column, .. }) = rows.columns_mut().first_mut() {
        texts.into_iter().for_each(|text| column.push(text));
    }
    (specs, rows)
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<u64>> {
    let read =
        |name: &str| fields.read_where(name, "a whole number of at least 1", |tokens: &u64| *tokens >= 1);
    match (read("max_tokens")?, read("max_completion_tokens")?) {
        (Some(one), Some(other)) if one != other => {
            Err(refused("max_completion_tokens", INVALID, format!("={other} contradicts max_tokens={one}")))
        }
        (one, other) => Ok(one.or(other)),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>> {
    let expected = "a text or a list of up to 4 texts, none of them empty";
    let texts = match fields.read("stop", expected)? {
        None => Vec::new(),
        Some(OneOrMore::One(text)) => vec![text],
        Some(OneOrMore::More(texts)) => texts,
    };
    if texts.len() > MOST_STOPS || texts.iter().any(String::is_empty) {
        let shown = format!("must be {expected}, not {}", fields.written("stop").unwrap_or("null"));
        return Err(refused("stop", INVALID, shown.chars().take(120).collect::<String>()));
    }
    Ok(texts)
}

fn metadata(fields: &Fields<'_>) -> Result<BTreeMap<String, String>> {
    let (most, longest_name, longest_value) = MOST_METADATA;
    let expected = "up to 16 texts of at most 512 characters, by names of at most 64";
    let fits = |given: &BTreeMap<String, String>| {
        given.len() <= most
            && given.iter().all(|(name, value)| {
                name.chars().count() <= longest_name && value.chars().count() <= longest_value
            })
    };
    Ok(fields.read_where("metadata", expected, fits)?.unwrap_or_default())
}
