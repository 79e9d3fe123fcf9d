//! Requests that wait on terms of their own: with a deadline, a cost, or a tenant whose share counts.
//!
//! Each keeps its row for itself, because it may leave before those that came earlier.

use std::collections::VecDeque;

use super::{Entry, Terms};
use crate::flow::Moment;
use crate::tensor::Rows;

/// A request and its row.
pub(super) struct Waiting<W> {
    pub(super) entry: Entry<W>,
    pub(super) terms: Terms,
    /// Its tenant's turn; 0 where tenants have no shares.
    pub(super) turn: f64,
    /// One row.
    pub(super) rows: Rows,
    /// True once a tick has ended since it came.
    pub(super) released: bool,
    /// What its coming was like; the pile notes it.
    pub(super) came: Came,
}

/// The pile as somebody came to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Came {
    /// Who waited.
    ahead: usize,
    /// Who had left by then, ever.
    left: u64,
}

/// Requests in the order of their arrival, with gaps where some have left.
pub(super) struct Pile<W> {
    slots: VecDeque<Option<Waiting<W>>>,
    waiting: usize,
    /// All who have left, ever.
    left: u64,
    cost: u64,
    /// Those without a deadline.
    undated: usize,
    earliest: Option<Moment>,
}

impl<W> Pile<W> {
    pub(super) fn new() -> Self {
        Self { slots: VecDeque::new(), waiting: 0, left: 0, cost: 0, undated: 0, earliest: None }
    }

    pub(super) fn push(&mut self, mut waiting: Waiting<W>) {
        waiting.came = Came { ahead: self.waiting, left: self.left };
        self.waiting += 1;
        self.cost += u64::from(waiting.terms.cost);
        if let Some(deadline) = waiting.terms.deadline {
            self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        } else {
            self.undated += 1;
        }
        self.slots.push_back(Some(waiting));
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// True where those who were ahead of it have left, and half as many again as these, or as a batch has rows, have passed it
    /// by: about two and a half times its turn. Less costs throughput, for then most are late where many wait; more is
    /// paid by the last (`tests/proofs.rs` prints both).
    pub(super) fn is_late(&self, waiting: &Waiting<W>, rows: usize) -> bool {
        let Came { ahead, left } = waiting.came;
        self.left - left >= (ahead + ahead.max(rows) * 3 / 2) as u64
    }

    /// What all of them cost.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// True where each has a deadline.
    pub(super) fn all_dated(&self) -> bool {
        self.undated == 0
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Moment> {
        self.earliest
    }

    /// The one that came first.
    pub(super) fn oldest(&self) -> Option<&Waiting<W>> {
        // A gap is never left at the front.
        self.slots.front()?.as_ref()
    }

    /// Ends a tick: those before one that was released were released before it.
    pub(super) fn release(&mut self) {
        for waiting in self.slots.iter_mut().rev().flatten() {
            if waiting.released {
                return;
            }
            waiting.released = true;
        }
    }

    /// All of them in the order of their arrival, with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Waiting<W>)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }

    /// The request of whoever waits at that place.
    pub(super) fn request_at(&self, at: usize) -> Option<u64> {
        self.slots.get(at)?.as_ref().map(|waiting| waiting.terms.request)
    }

    /// Takes those at these places out, in the order given. Places mean nothing afterwards.
    pub(super) fn take(&mut self, places: &[usize]) -> Vec<Waiting<W>> {
        let taken: Vec<_> = places.iter().filter_map(|at| self.slots.get_mut(*at)?.take()).collect();
        self.left(&taken);
        taken
    }

    /// Takes out those of whom that is true, in the order of their arrival.
    pub(super) fn take_if(&mut self, mut wanted: impl FnMut(&Waiting<W>) -> bool) -> Vec<Waiting<W>> {
        let places: Vec<usize> =
            self.iter().filter(|(_, waiting)| wanted(waiting)).map(|(at, _)| at).collect();
        self.take(&places)
    }

    fn left(&mut self, taken: &[Waiting<W>]) {
        self.waiting -= taken.len();
        self.left += taken.len() as u64;
        self.cost -= taken.iter().map(|waiting| u64::from(waiting.terms.cost)).sum::<u64>();
        self.undated -= taken.iter().filter(|waiting| waiting.terms.deadline.is_none()).count();
        while self.slots.front().is_some_and(Option::is_none) {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.waiting + 64 {
            self.slots.retain(Option::is_some);
        }
        if taken.iter().any(|waiting| waiting.terms.deadline.is_some()) {
            self.earliest = self.slots.iter().flatten().filter_map(|waiting| waiting.terms.deadline).min();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Spares, Specs};

    fn waiting(number: u64, deadline: Option<u64>) -> Waiting<u64> {
        let deadline = deadline.map(Moment::from_nanos);
        let terms = Terms { deadline, cost: 2, ..Terms::default() };
        let entry = Entry { waiter: number, arrived: Moment::from_nanos(number), deadline };
        let rows = Rows::new(&Specs::new(), &Spares::new(0));
        Waiting { entry, terms, turn: 0.0, rows, released: false, came: Came::default() }
    }

    fn numbers(taken: &[Waiting<u64>]) -> Vec<u64> {
        taken.iter().map(|waiting| waiting.entry.waiter).collect()
    }

    #[test]
    fn whoever_leaves_is_not_counted_any_more() {
        let mut pile = Pile::new();
        for number in 0..200 {
            pile.push(waiting(number, (number % 2 == 0).then_some(1_000 - number)));
        }
        assert_eq!((pile.waiting(), pile.cost(), pile.all_dated()), (200, 400, false));
        assert_eq!(pile.earliest(), Some(Moment::from_nanos(802)));
        assert_eq!(numbers(&pile.take(&[198, 0, 5, 198])), [198, 0, 5]);
        assert_eq!((pile.waiting(), pile.cost()), (197, 394));
        assert_eq!(pile.earliest(), Some(Moment::from_nanos(804)));
        assert_eq!(pile.oldest().unwrap().entry.waiter, 1);
        let odd = pile.take_if(|waiting| waiting.terms.deadline.is_none());
        assert_eq!(odd.len(), 99);
        assert!(pile.all_dated());
        assert_eq!(pile.take_if(|_| true).len(), 98);
        assert!(pile.is_empty());
        assert_eq!((pile.cost(), pile.earliest()), (0, None));
    }

    #[test]
    fn a_tick_releases_all_who_came_before_its_end() {
        let mut pile = Pile::new();
        pile.push(waiting(0, None));
        pile.release();
        pile.push(waiting(1, None));
        pile.push(waiting(2, None));
        pile.take(&[1]);
        assert_eq!(pile.iter().map(|(_, waiting)| waiting.released).collect::<Vec<_>>(), [true, false]);
        pile.release();
        assert!(pile.iter().all(|(_, waiting)| waiting.released));
    }
}
