//! Where a text ends before its model does: at the first of some texts, which may come in pieces.

use std::sync::Arc;

/// Texts that end a text, prepared to be looked for in one pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stops(Vec<Needle>);

#[derive(Debug, PartialEq, Eq)]
struct Needle {
    text: Box<[u8]>,
    /// For each place: the length of the longest part before it that the text begins with, too (Knuth, Morris, Pratt).
    borders: Box<[u32]>,
}

/// Looks for them in one text, piece by piece. What comes out does not depend on where the pieces were cut.
#[derive(Debug)]
pub struct Search {
    stops: Arc<Stops>,
    /// Of each, how many of its bytes have come at the end of the text so far.
    matched: Vec<u32>,
    /// The end of the text so far, as long as it may be the beginning of one of them.
    held: Vec<u8>,
}

impl Stops {
    /// To look for these texts; empty ones are found nowhere.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        Arc::new(Self(texts.into_iter().filter(|text| !text.is_empty()).map(Needle::new).collect()))
    }
}

impl Needle {
    fn new(text: &str) -> Self {
        let text: Box<[u8]> = text.as_bytes().into();
        let mut needle = Self { borders: vec![0; text.len()].into(), text };
        let mut matched = 0;
        for at in 1..needle.text.len() {
            let byte = needle.text.get(at).copied().unwrap_or_default();
            matched = needle.after(matched, byte);
            if let Some(place) = needle.borders.get_mut(at) {
                *place = matched;
            }
        }
        needle
    }

    /// How many of its bytes have come, where `matched` had before this byte.
    fn after(&self, mut matched: u32, byte: u8) -> u32 {
        loop {
            if self.text.get(matched as usize) == Some(&byte) {
                return matched + 1;
            }
            let Some(before) = matched.checked_sub(1) else { return 0 };
            matched = self.borders.get(before as usize).copied().unwrap_or_default();
        }
    }

    fn is_whole(&self, matched: u32) -> bool {
        matched as usize == self.text.len()
    }
}

impl Search {
    /// A search in a text that begins.
    pub fn new(stops: &Arc<Stops>) -> Self {
        Self { matched: vec![0; stops.0.len()], stops: Arc::clone(stops), held: Vec::new() }
    }

    /// Adds what is certain to be before any of them to `out`; true where one of them has come: the text ends there.
    ///
    /// The one that is whole first counts, and of several the longest.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> bool {
        if self.stops.0.is_empty() {
            out.extend_from_slice(piece);
            return false;
        }
        let began = out.len();
        out.append(&mut self.held);
        for (at, byte) in piece.iter().enumerate() {
            let mut found = 0;
            for (needle, matched) in self.stops.0.iter().zip(&mut self.matched) {
                *matched = needle.after(*matched, *byte);
                if needle.is_whole(*matched) {
                    found = found.max(needle.text.len());
                }
            }
            if found > 0 {
                out.extend_from_slice(piece.get(..=at).unwrap_or_default());
                out.truncate(out.len().saturating_sub(found).max(began));
                return true;
            }
        }
        out.extend_from_slice(piece);
        let longest = self.matched.iter().max().copied().unwrap_or_default() as usize;
        let certain = out.len().saturating_sub(longest).max(began);
        self.held.extend_from_slice(out.get(certain..).unwrap_or_default());
        out.truncate(certain);
        false
    }

    /// Adds what was held back to `out`: the text has ended, and none of them has come.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.matched.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of pieces, each as it came, and whether the text was ended.
    fn heard(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut search = Search::new(&Stops::new(stops.iter().copied()));
        let mut heard = Vec::new();
        let mut out = Vec::new();
        for piece in pieces {
            let ended = search.push(piece, &mut out);
            heard.push(String::from_utf8(std::mem::take(&mut out)).unwrap());
            if ended {
                return (heard, true);
            }
        }
        search.end(&mut out);
        heard.push(String::from_utf8(out).unwrap());
        (heard, false)
    }

    #[test]
    fn what_may_be_a_beginning_is_held_back_and_nothing_else() {
        let (pieces, ended) = heard(&["STOP"], &[b"one S", b"T", b"ILL ", b"ST", b"O", b"P more"]);
        assert_eq!(pieces, ["one ", "", "STILL ", "", "", ""]);
        assert!(ended);
        let (pieces, ended) = heard(&["STOP"], &[b"at the end S", b"TO"]);
        assert_eq!((pieces.concat(), ended), ("at the end STO".to_owned(), false));
    }

    #[test]
    fn the_first_that_is_whole_counts() {
        assert_eq!(heard(&["abcd", "bc"], &[b"xabcd"]).0.concat(), "xa");
        assert_eq!(heard(&["bc", "abc"], &[b"xabcd"]).0.concat(), "x", "of several the longest");
        assert_eq!(heard(&["\n\n"], &[b"a\n", b"b\n", b"\nc"]).0, ["a", "\nb", ""]);
        assert_eq!(heard(&["aab"], &[b"aaaab"]).0.concat(), "aa");
        assert_eq!(heard(&["水"], &["火水木".as_bytes()]).0.concat(), "火");
        assert_eq!(heard(&[""], &[b"all"]), (vec!["all".to_owned(), String::new()], false));
    }

    /// Where the text ends by the rule, looked for the slow way.
    fn reference(stops: &[String], text: &str) -> (String, bool) {
        for end in 1..=text.len() {
            let so_far = &text.as_bytes()[..end];
            let found = stops.iter().filter(|stop| !stop.is_empty() && so_far.ends_with(stop.as_bytes()));
            if let Some(longest) = found.map(String::len).max() {
                return (text[..end - longest].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn where_pieces_are_cut_changes_nothing(
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            text in "[abé]{0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&places)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let known: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (heard, ended) = heard(&known, &pieces);
            prop_assert_eq!((heard.concat(), ended), reference(&stops, &text));
        }
    }
}
