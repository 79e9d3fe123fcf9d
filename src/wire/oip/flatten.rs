//! Tensor data in JSON, nested or flat, straight into the bytes of a column.
//!
//! `serde_json` has seen the text before: it is well-formed. What is left to find out is what it says.

use std::marker::PhantomData;
use std::slice::ChunksExactMut;

use super::numbers::{Number, Short, with_number};
use crate::tensor::{Column, DType, Texts};

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

/// Reads the data of a tensor of `axes`, batch axis first, into `column`, in row-major order.
///
/// # Errors
/// Why it does not fit, in words.
pub(super) fn read(column: &mut Column, axes: &[usize], json: &str) -> Result<(), String> {
    read_with(column, axes, json, false)
}

/// As [`read`], of an answer: `null` is written for a number that is none, and read as such.
///
/// # Errors
/// As [`read`].
pub(super) fn read_answer(column: &mut Column, axes: &[usize], json: &str) -> Result<(), String> {
    read_with(column, axes, json, true)
}

fn read_with(column: &mut Column, axes: &[usize], json: &str, nulls: bool) -> Result<(), String> {
    let expected = axes.iter().product::<usize>();
    let mut data = Data { rest: json.as_bytes(), axes };
    match column {
        Column::Numbers { dtype, memory, .. } => {
            // Each takes two characters: a shape alone makes nobody take memory.
            let places = memory.grow(expected.min(json.len() / 2) * dtype.size());
            let places = places.chunks_exact_mut(dtype.size());
            with_number!(
                *dtype,
                Kind => data.read(expected, &mut Numbers::<Kind> { places, dtype: *dtype, nulls, kind: PhantomData }),
                Err(format!("{} has no form in json", dtype.name()))
            )
        }
        Column::Texts { texts, .. } => data.read(expected, texts),
        Column::Objects(_) => Err("objects have no form in json".to_owned()),
    }
}

/// Where elements go.
trait Elements {
    /// Adds the one that `json` begins with, if that is quickly done, and gives its length.
    fn add_short(&mut self, _json: &[u8]) -> Option<usize> {
        None
    }

    /// Adds the one that `token` stands for.
    fn add(&mut self, token: &[u8]) -> Result<(), String>;
}

struct Numbers<'a, N> {
    places: ChunksExactMut<'a, u8>,
    dtype: DType,
    /// `null` stands for a number that is none.
    nulls: bool,
    kind: PhantomData<N>,
}

impl<N: Number> Numbers<'_, N> {
    /// Surplus elements have no place: whoever counts them refuses the list.
    fn store(&mut self, number: N) {
        if let Some(place) = self.places.next() {
            number.store(place);
        }
    }
}

impl<N: Number> Elements for Numbers<'_, N> {
    fn add_short(&mut self, json: &[u8]) -> Option<usize> {
        let short = Short::of(json)?;
        self.store(N::from_short(&short)?);
        Some(short.length)
    }

    fn add(&mut self, token: &[u8]) -> Result<(), String> {
        if token == b"null" && self.nulls && self.dtype.is_float() {
            if let Some(place) = self.places.next() {
                place.copy_from_slice(&self.dtype.bytes_of(f64::NAN));
            }
            return Ok(());
        }
        let number = std::str::from_utf8(token).ok().and_then(N::parse);
        self.store(number.ok_or_else(|| mismatch(token, self.dtype.name()))?);
        Ok(())
    }
}

impl Elements for Texts {
    fn add(&mut self, token: &[u8]) -> Result<(), String> {
        match token {
            [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => self.push(plain),
            [b'"', ..] => {
                let text: String = serde_json::from_slice(token).map_err(|error| error.to_string())?;
                self.push(text.as_bytes());
            }
            _ => return Err(mismatch(token, "string")),
        }
        Ok(())
    }
}

fn mismatch(token: &[u8], wanted: &str) -> String {
    let shown = String::from_utf8_lossy(token.get(..SHOWN).unwrap_or(token));
    match token {
        [b'"', ..] => format!("a string is no {wanted}"),
        [b'{', ..] => format!("an object is no {wanted}"),
        _ if token.len() <= SHOWN => format!("{shown} is no {wanted}"),
        _ => format!("{shown}... is no {wanted}"),
    }
}

struct Data<'a> {
    rest: &'a [u8],
    /// The tensor's axes, batch axis first.
    axes: &'a [usize],
}

impl<'a> Data<'a> {
    /// Reads the whole: one flat list of `expected` elements, or lists as deep as there are axes.
    fn read(&mut self, expected: usize, elements: &mut impl Elements) -> Result<(), String> {
        if !self.begins(b'[') {
            return Err("data must be a list".to_owned());
        }
        if self.peek() == b'[' { self.lists(self.axes, elements) } else { self.elements(expected, elements) }
    }

    /// Reads the lists of the first of `axes`, their opening bracket already read.
    fn lists(&mut self, axes: &[usize], elements: &mut impl Elements) -> Result<(), String> {
        let (length, inner) = match axes {
            [length] => return self.elements(*length, elements),
            [length, inner @ ..] => (*length, inner),
            [] => return Err(self.misfit()),
        };
        if self.begins(b']') {
            return self.counted(0, length);
        }
        let mut count = 0;
        loop {
            if !self.begins(b'[') {
                return Err(self.misfit());
            }
            self.lists(inner, elements)?;
            count += 1;
            if !self.goes_on()? {
                return self.counted(count, length);
            }
        }
    }

    /// Reads a list of elements, its opening bracket already read.
    fn elements(&mut self, expected: usize, elements: &mut impl Elements) -> Result<(), String> {
        if self.begins(b']') {
            return self.counted(0, expected);
        }
        let mut count = 0;
        loop {
            self.peek();
            if let Some(length) = elements.add_short(self.rest) {
                self.take(length);
            } else {
                elements.add(self.token()?)?;
            }
            count += 1;
            if !self.goes_on()? {
                return self.counted(count, expected);
            }
        }
    }

    fn counted(&self, count: usize, expected: usize) -> Result<(), String> {
        if count == expected {
            return Ok(());
        }
        Err(format!("{count} values where shape {:?} has {expected}", self.axes))
    }

    fn misfit(&self) -> String {
        format!("the nesting of the data does not fit shape {:?}", self.axes)
    }

    /// The next value, which is no list. Of an object, its beginning.
    fn token(&mut self) -> Result<&'a [u8], String> {
        let end = match self.peek() {
            b'[' => return Err(self.misfit()),
            b'"' => end_of_string(self.rest),
            _ => self.rest.iter().position(|byte| matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r')),
        };
        Ok(self.take(end.unwrap_or(self.rest.len())))
    }

    /// True where another value follows, false at the end of the list.
    fn goes_on(&mut self) -> Result<bool, String> {
        match self.peek() {
            b',' => {
                self.take(1);
                Ok(true)
            }
            b']' => {
                self.take(1);
                Ok(false)
            }
            _ => Err(self.misfit()),
        }
    }

    /// Reads `byte`, where it comes next.
    fn begins(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        if found {
            self.take(1);
        }
        found
    }

    /// The next byte that is no white space, which is passed over; 0 at the end.
    fn peek(&mut self) -> u8 {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied().unwrap_or(0)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }
}

/// The length of the string that `json` begins with, its quotes included.
fn end_of_string(json: &[u8]) -> Option<usize> {
    let mut bytes = json.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}
