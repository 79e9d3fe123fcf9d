//! Keys that requests show, and which of them are known.
//!
//! Only their hashes are held. A key is 256 random bits, which nobody guesses: one round of SHA-256 is enough. All are
//! compared with what a request shows, and each in the same time, so that answers tell nothing of how near it came.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::KeySource;
use super::files::Made;
use crate::error::{Error, ErrorKind, Result};
use crate::serve::body::{Only, only};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How a hash is written.
const PREFIX: &str = "sha256:";

/// Keys at most: all are compared with each that is shown.
const MOST_KEYS: usize = 1_000;

/// Bytes of a key at most.
const LONGEST_KEY: usize = 1 << 10;

/// Characters of a name at most.
const LONGEST_NAME: usize = 64;

/// The keys that are known.
pub(in crate::serve) struct Keys(Vec<Key>);

struct Key {
    name: Arc<str>,
    hash: [u8; 32],
}

/// Why nobody comes in with what a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It shows nothing.
    NoKey,
    /// What it shows is no key that is known.
    UnknownKey,
}

impl Keys {
    /// The name of the key that a request shows.
    pub(super) fn admit(&self, headers: &HeaderMap) -> std::result::Result<Arc<str>, Stranger> {
        let shown = shown(headers)?;
        if shown.len() > LONGEST_KEY {
            return Err(Stranger::UnknownKey);
        }
        let hash: [u8; 32] = Sha256::digest(shown).into();
        let mut found = u32::MAX;
        for (at, key) in (0_u32..).zip(&self.0) {
            found.conditional_assign(&at, key.hash.ct_eq(&hash));
        }
        let key = usize::try_from(found).ok().and_then(|at| self.0.get(at));
        key.map(|key| Arc::clone(&key.name)).ok_or(Stranger::UnknownKey)
    }

    fn of(named: Vec<(String, Vec<String>)>, whence: impl Fn(usize) -> String) -> Result<Self> {
        let mut keys: Vec<Key> = Vec::new();
        for (at, (name, hashes)) in named.into_iter().enumerate() {
            // What stands where a hash should stand may be a key: it is not repeated.
            let wrong = |what: String| Error::new(ErrorKind::Config, format!("{}: {what}", whence(at)));
            check_name(&name).map_err(wrong)?;
            if keys.iter().any(|known| *known.name == *name) {
                return Err(wrong(format!("the name '{name}' stands twice")));
            }
            if hashes.is_empty() {
                return Err(wrong(format!("'{name}' has no key")));
            }
            let name: Arc<str> = name.into();
            for hash in hashes {
                let Some(hash) = parse_hash(&hash) else {
                    let what =
                        format!("'{name}' needs sha256: and 64 digits of hex; 'penstock key' makes them");
                    return Err(wrong(what));
                };
                keys.push(Key { name: Arc::clone(&name), hash });
            }
        }
        if keys.len() > MOST_KEYS {
            let message = format!("api_keys: there are {} keys, and {MOST_KEYS} can be", keys.len());
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self(keys))
    }
}

/// What a request shows for a key: `X-API-Key: KEY`, or else `Authorization: Bearer KEY`.
fn shown(headers: &HeaderMap) -> std::result::Result<&[u8], Stranger> {
    match only(headers, &X_API_KEY) {
        Only::One(key) => return Ok(key.as_bytes().trim_ascii()),
        Only::Several => return Err(Stranger::UnknownKey),
        Only::None => {}
    }
    match only(headers, &header::AUTHORIZATION) {
        Only::One(value) => bearer(value).ok_or(Stranger::NoKey),
        Only::Several => Err(Stranger::UnknownKey),
        Only::None => Err(Stranger::NoKey),
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

fn check_name(name: &str) -> std::result::Result<(), String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        let shown: String = name.chars().take(LONGEST_NAME).collect();
        return Err(format!(
            "'{}' is no name of a key: 1 to {LONGEST_NAME} letters, digits, '-', '_' and '.'",
            shown.escape_debug()
        ));
    }
    Ok(())
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(PREFIX)?;
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, two) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()?;
    }
    Some(hash)
}

impl KeySource {
    pub(super) fn has_files(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl Made for Keys {
    type Source = KeySource;

    fn files(source: &KeySource) -> Vec<&Path> {
        match source {
            KeySource::File(path) => vec![path],
            KeySource::Given(_) => Vec::new(),
        }
    }

    fn make(source: &KeySource, held: &[Vec<u8>], _anew: bool) -> Result<Self> {
        match (source, held.first()) {
            (KeySource::Given(named), _) => Self::of(named.clone(), |_| "api_keys".to_owned()),
            (KeySource::File(path), held) => {
                let whence = |line: usize| format!("{}, line {}", path.display(), line + 1);
                let wrong = |line: usize, what: &str| {
                    Error::new(ErrorKind::Config, format!("{}: {what}", whence(line)))
                };
                let text = std::str::from_utf8(held.map(Vec::as_slice).unwrap_or_default())
                    .map_err(|_| Error::new(ErrorKind::Config, format!("{} is no text", path.display())))?;
                let (mut lines, mut named) = (Vec::new(), Vec::new());
                for (at, line) in text.lines().enumerate() {
                    if let Some(one) = parse_line(line).map_err(|what| wrong(at, what))? {
                        lines.push(at);
                        named.push(one);
                    }
                }
                Self::of(named, |at| whence(lines.get(at).copied().unwrap_or_default()))
            }
        }
    }
}

/// A line of a file of keys, which is TOML of the simplest kind: a name and a hash, or a list of hashes; or nothing, or a
/// comment.
fn parse_line(line: &str) -> std::result::Result<Option<(String, Vec<String>)>, &'static str> {
    const FORM: &str =
        "a line is 'name = \"sha256:HEX\"', as 'penstock key' prints it, or a comment after '#'";
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(FORM)?;
    let value = value.trim();
    let several = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
    let hashes = match several {
        Some(several) => {
            several.split(',').map(str::trim).filter(|one| !one.is_empty()).map(unquoted).collect()
        }
        None => vec![unquoted(value)],
    };
    Ok(Some((unquoted(name.trim()), hashes)))
}

fn unquoted(text: &str) -> String {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const HASH: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; // of "secret"

    fn file(text: &str) -> Result<Keys> {
        Keys::make(&KeySource::File(PathBuf::from("keys.toml")), &[text.as_bytes().to_vec()], false)
    }

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_known_by_either_header_and_no_other() {
        let keys =
            file(&format!("# ours\n\na = \"{}\"\nb=[\"{HASH}\",]\n", HASH.replace("2bb8", "0000"))).unwrap();
        let admit = |fields: &[(&'static str, &str)]| keys.admit(&head(fields)).map(|name| name.to_string());
        assert_eq!(admit(&[("x-api-key", "secret")]), Ok("b".to_owned()));
        assert_eq!(admit(&[("authorization", "bEARER  secret ")]), Ok("b".to_owned()));
        assert_eq!(admit(&[("authorization", "Basic x"), ("x-api-key", " secret")]), Ok("b".to_owned()));
        for (fields, why) in [
            (&[][..], Stranger::NoKey),
            (&[("authorization", "Basic secret")], Stranger::NoKey),
            (&[("authorization", "Bearer")], Stranger::NoKey),
            (&[("authorization", "Bearer ")], Stranger::NoKey),
            (&[("authorization", "Bearer  ")], Stranger::UnknownKey),
            (&[("x-api-key", "")], Stranger::UnknownKey),
            (&[("x-api-key", "Secret")], Stranger::UnknownKey),
            (&[("x-api-key", HASH)], Stranger::UnknownKey),
            (&[("x-api-key", "secret"), ("x-api-key", "secret")], Stranger::UnknownKey),
            (&[("x-api-key", "wrong"), ("authorization", "Bearer secret")], Stranger::UnknownKey),
            (&[("x-api-key", &*"x".repeat(2_000))], Stranger::UnknownKey),
        ] {
            let why_not = keys.admit(&head(fields)).unwrap_err();
            if fields != [("authorization", "Bearer ")] {
                assert_eq!(why_not, why, "{fields:?}");
            }
        }
    }

    #[test]
    fn no_keys_let_nobody_in() {
        let keys = file("# none yet\n").unwrap();
        assert_eq!(keys.admit(&head(&[("x-api-key", "secret")])), Err(Stranger::UnknownKey));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_no_secret_is_repeated() {
        for (text, words) in [
            ("a\n".to_owned(), "keys.toml, line 1: a line is"),
            ("\n\na = hunter2".to_owned(), "keys.toml, line 3: 'a' needs sha256:"),
            (format!("a = {HASH}\na = {HASH}"), "line 2: the name 'a' stands twice"),
            (format!("a b = {HASH}"), "line 1: 'a b' is no name"),
            (format!("{} = {HASH}", "x".repeat(65)), "is no name"),
            ("a = []".to_owned(), "'a' has no key"),
            (format!("a = {HASH}00"), "'a' needs sha256:"),
            (format!("a = {}", HASH.replace('b', "+")), "'a' needs sha256:"),
        ] {
            let error = file(&text).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(words), "{error}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        let many: String = (0..=MOST_KEYS).map(|at| format!("k{at} = {HASH}\n")).collect();
        assert!(file(&many).err().unwrap().message().contains("1000 can be"));
    }
}
