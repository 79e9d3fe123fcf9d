//! Who sits where in a batch that is answered step by step.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::Entry;
use crate::flow::Moment;

/// Seats by number. One stands empty once its request was answered or has left; the first ones are cleared away then, so
/// that a batch that others join for ever does not grow.
pub struct Seats<W>(Mutex<Rows<W>>);

struct Rows<W> {
    /// The number of the first seat.
    first: usize,
    seats: VecDeque<Option<Entry<W>>>,
}

/// The seats, while nobody else looks at them.
pub struct Held<'a, W>(parking_lot::MutexGuard<'a, Rows<W>>);

impl<W> Held<'_, W> {
    /// Who sits there.
    pub fn get(&self, seat: usize) -> Option<&W> {
        let entry = self.0.seats.get(seat.checked_sub(self.0.first)?)?.as_ref();
        entry.map(|entry| &entry.waiter)
    }
}

impl<W> Seats<W> {
    /// A seat for each.
    pub fn new(entries: Vec<Entry<W>>) -> Self {
        Self(Mutex::new(Rows { first: 0, seats: entries.into_iter().map(Some).collect() }))
    }

    /// Holds the seats to look at several: the interpreter must not run meanwhile.
    pub fn hold(&self) -> Held<'_, W> {
        Held(self.0.lock())
    }

    /// Seats more; the first of their seats.
    pub fn add(&self, entries: Vec<Entry<W>>) -> usize {
        let mut rows = self.0.lock();
        let first = rows.first + rows.seats.len();
        rows.seats.extend(entries.into_iter().map(Some));
        first
    }

    /// Takes who sits there out of the seat.
    pub fn take(&self, seat: usize) -> Option<Entry<W>> {
        let mut rows = self.0.lock();
        let at = seat.checked_sub(rows.first)?;
        let entry = rows.seats.get_mut(at).and_then(Option::take);
        while let Some(None) = rows.seats.front() {
            rows.seats.pop_front();
            rows.first += 1;
        }
        entry
    }

    /// Looks at who sits there.
    pub fn look<T>(&self, seat: usize, look: impl FnOnce(&W) -> T) -> Option<T> {
        self.hold().get(seat).map(look)
    }

    /// The seats that are not empty.
    pub fn taken(&self) -> Vec<usize> {
        let rows = self.0.lock();
        let numbered = rows.seats.iter().zip(rows.first..);
        numbered.filter(|(entry, _)| entry.is_some()).map(|(_, seat)| seat).collect()
    }

    /// The earliest deadline of those who sit there.
    pub fn earliest_deadline(&self, seats: &[usize]) -> Option<Moment> {
        let rows = self.0.lock();
        let entry = |seat: &usize| rows.seats.get(seat.checked_sub(rows.first)?)?.as_ref();
        seats.iter().filter_map(|seat| entry(seat)?.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(waiter: u32) -> Entry<u32> {
        Entry { waiter, arrived: Moment::default(), deadline: None }
    }

    #[test]
    fn a_seat_keeps_its_number_when_those_before_it_are_cleared_away() {
        let seats = Seats::new(vec![entry(10), entry(11)]);
        assert_eq!(seats.add(vec![entry(12)]), 2);
        assert_eq!(seats.take(1).map(|entry| entry.waiter), Some(11));
        assert_eq!(seats.take(0).map(|entry| entry.waiter), Some(10));
        assert_eq!(seats.0.lock().seats.len(), 1);
        assert!(seats.take(0).is_none() && seats.take(1).is_none());
        assert_eq!(seats.look(2, |waiter| *waiter), Some(12));
        assert_eq!((seats.taken(), seats.add(vec![entry(13)])), (vec![2], 3));
    }
}
