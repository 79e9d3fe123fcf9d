//! A request in a batch, a batch, and what its requests have in common.

use std::sync::Arc;
use std::time::Duration;

use super::Reason;
use crate::flow::{Moment, Priority};
use crate::tensor::{Rows, Spares, Specs};

/// What requests must have in common to share a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey<K> {
    /// What the floor above tells apart: keyword arguments, the structure of an item.
    pub key: K,
    /// What the columns hold.
    pub specs: Specs,
}

/// On whose behalf a request is made: a number that the batcher gave for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tenant(pub(super) u32);

/// The terms on which a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Who goes first.
    pub priority: Priority,
    /// Whose share it is taken from.
    pub tenant: Tenant,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Moment>,
    /// What it costs: rows, tokens, bytes, as the policy's budget counts them.
    pub cost: u32,
    /// The request that a row belongs to, where a batch holds rows of one request only: the batcher numbers them.
    pub request: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { priority: Priority::Normal, tenant: Tenant::default(), deadline: None, cost: 1, request: 0 }
    }
}

impl From<Priority> for Terms {
    fn from(priority: Priority) -> Self {
        Self { priority, ..Self::default() }
    }
}

/// One request in a batch.
#[derive(Debug)]
pub struct Entry<W> {
    /// Who waits for the answer.
    pub waiter: W,
    /// When it came.
    pub arrived: Moment,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Moment>,
}

/// How a batch was cut, for whoever asks why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// Batches of this batcher are numbered from 1.
    pub number: u64,
    /// When its first request came.
    pub oldest: Moment,
    /// When it could have been taken first, had a worker been free.
    pub ready: Moment,
    /// When a worker took it.
    pub taken: Moment,
    /// What its requests cost.
    pub cost: u64,
    /// What the batch costs: more than that where rows are padded.
    pub padded_cost: u64,
    /// Rows that it could have had at most.
    pub cap: usize,
    /// How long the function was expected to take, where enough is known.
    pub predicted: Option<Duration>,
    /// How long each row was before it was padded, where rows are.
    pub lengths: Vec<u32>,
}

/// What came of a batch, for whoever learns from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// The function took the whole batch in that time.
    Whole(Duration),
    /// Memory ran out, at the latest with so many rows.
    OutOfMemory(usize),
    /// Nothing to learn from: it failed, or was run in parts.
    Unknown,
}

/// Requests for one call of the model, with their rows side by side.
#[derive(Debug)]
pub struct Batch<K, W> {
    /// What the requests have in common.
    pub group: Arc<GroupKey<K>>,
    /// Row `i` belongs to entry `i`.
    pub rows: Rows,
    /// The requests, in the order of their rows.
    pub entries: Vec<Entry<W>>,
    /// Why it was cut here.
    pub reason: Reason,
    /// How it was cut.
    pub cut: Cut,
}

/// Requests that left before the model saw them.
#[derive(Debug)]
pub struct Removed<W> {
    /// The requests.
    pub entries: Vec<Entry<W>>,
    /// The numbers of the objects in their rows: nobody will ask for them again.
    pub objects: Vec<u64>,
}

impl<W> Removed<W> {
    /// Nobody left.
    pub fn none() -> Self {
        Self { entries: Vec::new(), objects: Vec::new() }
    }

    /// Adds those who left elsewhere.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.objects.extend(other.objects);
    }
}

impl<K, W> Batch<K, W> {
    /// Takes out every request whose waiter is gone and answers with them; the rest keep their order.
    pub fn remove_gone(&mut self, spares: &Arc<Spares>, mut gone: impl FnMut(&W) -> bool) -> Removed<W> {
        let mut kept = Vec::new();
        let left = remove_gone(&mut self.rows, &mut self.entries, spares, |row, waiter| {
            let left = gone(waiter);
            if !left {
                kept.push(row);
            }
            left
        });
        if !left.entries.is_empty() {
            self.cut.keep(&kept, left.entries.len());
        }
        left
    }
}

impl Cut {
    /// Forgets the rows that are not among these; `left` of them were not.
    fn keep(&mut self, rows: &[usize], left: usize) {
        let before = (rows.len() + left).max(1) as u64;
        let now = rows.len() as u64;
        self.padded_cost = self.padded_cost * now / before;
        if self.lengths.is_empty() {
            self.cost = self.cost * now / before;
        } else {
            self.lengths = rows.iter().filter_map(|row| self.lengths.get(*row).copied()).collect();
            self.cost = self.lengths.iter().copied().map(u64::from).sum();
        }
    }
}

/// Takes out every request of which `gone` is true, asked in order with the number of its row.
pub(super) fn remove_gone<W>(
    rows: &mut Rows,
    entries: &mut Vec<Entry<W>>,
    spares: &Arc<Spares>,
    mut gone: impl FnMut(usize, &W) -> bool,
) -> Removed<W> {
    let mut left = Removed::none();
    let Some(first) = entries.iter().enumerate().position(|(row, entry)| gone(row, &entry.waiter)) else {
        return left;
    };
    let mut rest = rows.empty_like(spares);
    let mut kept = Vec::with_capacity(entries.len());
    for (row, entry) in entries.drain(..).enumerate() {
        if row == first || (row > first && gone(row, &entry.waiter)) {
            left.objects.extend(rows.objects(row));
            left.entries.push(entry);
        } else {
            rest.push_from(rows, row);
            kept.push(entry);
        }
    }
    *rows = rest;
    *entries = kept;
    left
}
