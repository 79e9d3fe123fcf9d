//! Versions, in order.

use std::cmp::Ordering;
use std::sync::Arc;

/// The version of a model. Its numbers compare as numbers, so that 10 is above 9 and 1.10 above 1.9; a number is above
/// a word, so that `beta` is not above `2`; what goes on is above what ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(Arc<str>);

impl Version {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut here, mut there) = (&*self.0, &*other.0);
        while !here.is_empty() && !there.is_empty() {
            let (one, rest) = first_run(here);
            let (two, other_rest) = first_run(there);
            let order = compare_runs(one, two);
            if order.is_ne() {
                return order;
            }
            (here, there) = (rest, other_rest);
        }
        // The same number may be written in two ways, which are two versions.
        here.len().cmp(&there.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The digits, or what are no digits, that a text begins with, and the rest.
fn first_run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|letter: char| letter.is_ascii_digit());
    let end = text.find(|letter: char| letter.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

fn compare_runs(one: &str, two: &str) -> Ordering {
    let number = |run: &str| run.starts_with(|letter: char| letter.is_ascii_digit());
    match (number(one), number(two)) {
        // Of any length: without its leading noughts, the longer number is the larger.
        (true, true) => {
            let (one, two) = (one.trim_start_matches('0'), two.trim_start_matches('0'));
            one.len().cmp(&two.len()).then_with(|| one.cmp(two))
        }
        (false, false) => one.cmp(two),
        (here, there) => here.cmp(&there),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_stand_in_the_order_that_people_expect() {
        let order = [
            "beta",
            "v2",
            "v10",
            "0",
            "01",
            "1",
            "1.9",
            "1.10",
            "2",
            "9",
            "10",
            "20240101",
            "99999999999999999999",
        ];
        let mut sorted: Vec<_> = order.iter().rev().map(|text| Version::new(text)).collect();
        sorted.sort();
        let texts: Vec<_> = sorted.iter().map(Version::text).collect();
        assert_eq!(texts, order);
    }

    proptest! {
        #[test]
        fn the_order_is_total(texts in prop::collection::vec("[0-2a.]{0,5}", 3)) {
            let [a, b, c] = [0, 1, 2].map(|at| Version::new(&texts[at]));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
