//! SHA-256 digests of files (FIPS 180-4): what they must be, and what they are.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::names::quoted;
use super::settings::Checksums;
use super::weights::last_part;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a digest.
const BYTES: usize = 32;

/// A digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; BYTES]);

impl Digest {
    /// Reads 64 hexadecimal digits, with or without `sha256:` in front.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        let bytes = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            let message = format!("{} is no SHA-256 digest: it wants 64 hexadecimal digits", quoted(text));
            Error::new(ErrorKind::Config, message)
        })
    }

    /// Of bytes that are all there.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Makes sure that the file at `path`, whose digest this is, has the one that it must have.
    pub(super) fn check(self, expected: Self, path: &Path) -> Result<()> {
        if self == expected {
            return Ok(());
        }
        let message = format!(
            "'{}' has the SHA-256 digest {}, and {} was expected",
            path.display(),
            self.digits(),
            expected.digits()
        );
        Err(Error::new(ErrorKind::ChecksumMismatch, message))
    }

    fn digits(self) -> String {
        let digit = |number: u8| char::from_digit(number.into(), 16).unwrap_or('?');
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The digests that files must have, by their names; `index` is the name of the file that names the others.
pub(super) fn expected(
    checksums: Option<&Checksums>,
    files: &[String],
    index: Option<&str>,
) -> Result<BTreeMap<String, Digest>> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Config, message));
    match (checksums, files, index) {
        (None, _, _) => Ok(BTreeMap::new()),
        (Some(Checksums::One(digest)), [only], None) => {
            Ok(BTreeMap::from([(only.clone(), Digest::parse(digest)?)]))
        }
        (Some(Checksums::One(_)), _, _) => refuse(
            "one sha256 digest is given for weights with an index: give one for each file, by its name"
                .to_owned(),
        ),
        (Some(Checksums::Each(digests)), _, _) => {
            if let Some(file) = files.iter().find(|file| !digests.contains_key(*file)) {
                return refuse(format!("sha256 has no digest of {}", quoted(file)));
            }
            let known = |name: &String| files.contains(name) || index == Some(name);
            if let Some(name) = digests.keys().find(|name| !known(name)) {
                return refuse(format!(
                    "sha256 has a digest of {}, which is none of the files",
                    quoted(name)
                ));
            }
            digests.iter().map(|(name, digest)| Ok((name.clone(), Digest::parse(digest)?))).collect()
        }
    }
}

/// Makes sure that an index has the digest that it must have, where it must have one.
pub(super) fn check_index(text: &[u8], checksums: Option<&Checksums>, path: &Path) -> Result<()> {
    let Some(Checksums::Each(digests)) = checksums else { return Ok(()) };
    let Some(expected) = digests.get(&last_part(path)) else { return Ok(()) };
    Digest::of(text).check(Digest::parse(expected)?, path)
}

/// The digest of bytes that come one after the other.
#[derive(Default)]
pub(super) struct Stream(Sha256);

impl Stream {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The digest of a file whose pieces are read by several threads: whoever brings the next one in order takes it in, and what
/// came too early before. Nobody waits for anybody.
pub(super) struct Hashing<'a> {
    state: Mutex<Progress<'a>>,
}

struct Progress<'a> {
    early: BTreeMap<u64, &'a [u8]>,
    next: u64,
    /// None while a thread is at it.
    sum: Option<Sha256>,
}

impl<'a> Hashing<'a> {
    /// Begins with the first bytes of the file.
    pub(super) fn new(head: &[u8]) -> Self {
        let state = Progress {
            early: BTreeMap::new(),
            next: head.len() as u64,
            sum: Some(Sha256::new_with_prefix(head)),
        };
        Self { state: Mutex::new(state) }
    }

    /// Takes in the bytes of the file from `offset` on. Pieces are not empty and do not overlap.
    pub(super) fn offer(&self, offset: u64, bytes: &'a [u8]) {
        let mut state = self.state.lock();
        state.early.insert(offset, bytes);
        loop {
            let next = state.next;
            let Some(mut sum) = state.sum.take() else { return };
            let Some(bytes) = state.early.remove(&next) else {
                state.sum = Some(sum);
                return;
            };
            drop(state);
            sum.update(bytes);
            state = self.state.lock();
            state.next += bytes.len() as u64;
            state.sum = Some(sum);
        }
    }

    /// The digest of what came, once every thread is done.
    pub(super) fn finish(self) -> Digest {
        let sum = self.state.into_inner().sum.unwrap_or_default();
        Digest(sum.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn pieces_in_any_order_make_the_digest_of_the_whole() {
        // FIPS 180-4's own example.
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let hashing = Hashing::new(b"");
            for at in order {
                hashing.offer(at, &b"abc"[usize::try_from(at).unwrap()..][..1]);
            }
            assert_eq!(hashing.finish(), Digest::parse(ABC).unwrap());
        }
        assert_eq!(Digest::of(b"abc").digits(), ABC);
    }

    #[test]
    fn threads_lose_no_piece() {
        let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let hashing = Hashing::new(&bytes[..7]);
        std::thread::scope(|scope| {
            for first in 0..4 {
                let (hashing, bytes) = (&hashing, &bytes[7..]);
                scope.spawn(move || {
                    for (at, piece) in bytes.chunks(997).enumerate().skip(first).step_by(4) {
                        hashing.offer(7 + at as u64 * 997, piece);
                    }
                });
            }
        });
        assert_eq!(hashing.finish(), Digest::of(&bytes));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        assert!(Digest::parse(&format!("sha256:{}", ABC.to_uppercase())).is_ok());
        for text in
            ["", "sha256:", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "x"), "é".repeat(32).as_str()]
        {
            assert_eq!(Digest::parse(text).unwrap_err().kind(), ErrorKind::Config, "{text}");
        }
    }

    #[test]
    fn every_file_wants_its_digest_and_no_other_has_one() {
        let files = ["a", "b"].map(str::to_owned);
        let each = |names: &[&str]| {
            Checksums::Each(names.iter().map(|name| ((*name).to_owned(), ABC.to_owned())).collect())
        };
        let count = |checksums: &Checksums, files: &[String], index| {
            expected(Some(checksums), files, index).map(|all| all.len())
        };
        assert_eq!(count(&Checksums::One(ABC.to_owned()), &files[..1], None).unwrap(), 1);
        assert_eq!(count(&each(&["a", "b"]), &files, Some("i")).unwrap(), 2);
        assert_eq!(count(&each(&["a", "b", "i"]), &files, Some("i")).unwrap(), 3);
        for (checksums, files, index) in [
            (Checksums::One(ABC.to_owned()), &files[..], Some("i")),
            (Checksums::One(ABC.to_owned()), &files[..1], Some("i")),
            (each(&["a"]), &files[..], Some("i")),
            (each(&["a", "b", "c"]), &files[..], Some("i")),
            (each(&["a", "b"]), &files[..1], None),
        ] {
            assert_eq!(
                count(&checksums, files, index).unwrap_err().kind(),
                ErrorKind::Config,
                "{checksums:?}"
            );
        }
    }
}
