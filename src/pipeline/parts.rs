//! Which rows of a batch are run next, where some of them make it fail.

use std::ops::Range;

/// Rows of a batch that are still to be run.
#[derive(Debug)]
struct Part {
    rows: Range<usize>,
    /// For a second half: how many parts had failed when it was split off.
    split_at: Option<usize>,
}

/// A batch that is being run. Where a part of it fails, its halves come next, until only rows that fail alone have
/// failed: a batch of n takes at most log2(n) rounds.
#[derive(Debug)]
pub struct Parts {
    /// The last comes first, so that answers come in order.
    todo: Vec<Part>,
    /// Parts that failed for good.
    failures: usize,
    now: Range<usize>,
    count: usize,
}

impl Parts {
    /// A batch of `count` rows, all of it to be run.
    pub fn new(count: usize) -> Self {
        Self { todo: vec![Part { rows: 0..count, split_at: None }], failures: 0, now: 0..0, count }
    }

    /// The rows that run now.
    pub fn now(&self) -> Range<usize> {
        self.now.clone()
    }

    /// True where the whole batch runs now.
    pub fn is_whole(&self) -> bool {
        self.now.len() == self.count
    }

    /// Notes that what runs now has failed for good.
    pub fn fail(&mut self) {
        self.failures += 1;
    }

    /// Has the halves of what runs now run.
    pub fn split(&mut self) {
        let Range { start, end } = self.now;
        let middle = usize::midpoint(start, end);
        self.todo.push(Part { rows: middle..end, split_at: Some(self.failures) });
        self.todo.push(Part { rows: start..middle, split_at: None });
    }

    /// Has nothing more run.
    pub fn stop(&mut self) {
        self.todo.clear();
    }
}

/// The rows to run next, until all have been run.
impl Iterator for Parts {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some(part) = self.todo.pop() {
            self.now = part.rows;
            // Its other half has no fault, so this one has: there is no need to see it fail.
            if self.now.len() > 1 && part.split_at == Some(self.failures) {
                self.split();
                continue;
            }
            return Some(self.now.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a batch in which those rows fail; answers who failed, in order, and how many runs it took.
    fn run(count: usize, bad: &[usize]) -> (Vec<bool>, usize) {
        let (mut parts, mut failed, mut runs) = (Parts::new(count), Vec::new(), 0);
        while let Some(rows) = parts.next() {
            runs += 1;
            assert_eq!(failed.len(), rows.start, "answers come in order");
            let fails = rows.clone().any(|row| bad.contains(&row));
            if fails && rows.len() > 1 {
                parts.split();
            } else {
                if fails {
                    parts.fail();
                }
                failed.extend(rows.map(|_| fails));
            }
        }
        (failed, runs)
    }

    #[test]
    fn one_bad_row_costs_the_logarithm_of_the_batch() {
        let (failed, runs) = run(64, &[37]);
        assert_eq!(failed.iter().filter(|failed| **failed).count(), 1);
        assert!(failed[37]);
        assert!(runs <= 2 * 6 + 1, "{runs}");
    }

    proptest! {
        #[test]
        fn only_bad_rows_fail(count in 1_usize..40, bad in prop::collection::vec(0_usize..40, 0..6)) {
            let (failed, _) = run(count, &bad);
            let expected: Vec<_> = (0..count).map(|row| bad.contains(&row)).collect();
            prop_assert_eq!(failed, expected);
        }
    }
}
