//! A request in a batch, a batch, and what its requests have in common.

use std::sync::Arc;

use super::Reason;
use crate::flow::Moment;
use crate::tensor::{Rows, Spares, Specs};

/// What requests must have in common to share a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey<K> {
    /// What the floor above tells apart: keyword arguments, the structure of an item.
    pub key: K,
    /// What the columns hold.
    pub specs: Specs,
}

/// Who goes first: a higher priority is put into a batch before any lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Before all others.
    High = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// After all others.
    Low = 2,
}

impl Priority {
    /// Number of priorities.
    pub const COUNT: usize = 3;

    /// The priority of that name: `high`, `normal` or `low`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "high" => Some(Self::High),
            "normal" => Some(Self::Normal),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}

/// One request in a batch.
#[derive(Debug)]
pub struct Entry<W> {
    /// Who waits for the answer.
    pub waiter: W,
    /// When it came.
    pub arrived: Moment,
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
}

impl<K, W> Batch<K, W> {
    /// Takes out every request whose waiter is gone and answers with them; the rest keep their order.
    pub fn remove_gone(&mut self, spares: &Arc<Spares>, mut gone: impl FnMut(&W) -> bool) -> Removed<W> {
        let mut left = Removed::none();
        let Some(first) = self.entries.iter().position(|entry| gone(&entry.waiter)) else {
            return left;
        };
        let mut rows = Rows::new(&self.group.specs, spares);
        let mut entries = Vec::with_capacity(self.entries.len());
        for (row, entry) in self.entries.drain(..).enumerate() {
            if row == first || (row > first && gone(&entry.waiter)) {
                left.objects.extend(self.rows.objects(row));
                left.entries.push(entry);
            } else {
                rows.push_from(&self.rows, row);
                entries.push(entry);
            }
        }
        self.rows = rows;
        self.entries = entries;
        left
    }
}
