//! A line that anybody may leave: to join, to be served and to leave cost the same however long it is.

use slab::Slab;

struct Standing<T> {
    what: T,
    number: u64,
    before: Option<usize>,
    after: Option<usize>,
}

/// Stands for one who joined a line, also when the place is somebody else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    at: usize,
    number: u64,
}

/// First in, first out; linked through a slab, so that nobody is moved when one leaves from the middle.
pub(super) struct Line<T> {
    places: Slab<Standing<T>>,
    first: Option<usize>,
    last: Option<usize>,
    joined: u64,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self { places: Slab::new(), first: None, last: None, joined: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whoever has waited longest.
    pub(super) fn first(&self) -> Option<&T> {
        Some(&self.places.get(self.first?)?.what)
    }

    pub(super) fn join(&mut self, what: T) -> Ticket {
        let number = self.joined;
        self.joined += 1;
        let at = self.places.insert(Standing { what, number, before: self.last, after: None });
        match self.last.replace(at).and_then(|last| self.places.get_mut(last)) {
            Some(last) => last.after = Some(at),
            None => self.first = Some(at),
        }
        Ticket { at, number }
    }

    /// Takes out whoever has waited longest.
    pub(super) fn next(&mut self) -> Option<T> {
        self.remove(self.first?)
    }

    /// Takes out one who gives up; `None` where they were served already.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let standing = self.places.get(ticket.at)?;
        if standing.number == ticket.number { self.remove(ticket.at) } else { None }
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        let gone = self.places.try_remove(at)?;
        match gone.before.and_then(|before| self.places.get_mut(before)) {
            Some(before) => before.after = gone.after,
            None => self.first = gone.after,
        }
        match gone.after.and_then(|after| self.places.get_mut(after)) {
            Some(after) => after.before = gone.before,
            None => self.last = gone.before,
        }
        Some(gone.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ticket_is_good_for_its_owner_alone() {
        let mut line = Line::new();
        let first = line.join('a');
        assert_eq!(line.next(), Some('a'));
        let second = line.join('b');
        assert_eq!(first.at, second.at, "the place was used again");
        assert_eq!(line.leave(first), None);
        assert_eq!(line.leave(second), Some('b'));
        assert_eq!((line.next(), line.len(), line.is_empty()), (None, 0, true));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_list(steps in proptest::collection::vec((0_u8..4, 0_usize..20), 0..200)) {
            let (mut line, mut list) = (Line::new(), Vec::new());
            for (number, (step, which)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => list.push((line.join(number), number)),
                    2 => {
                        let next = if list.is_empty() { None } else { Some(list.remove(0).1) };
                        prop_assert_eq!(line.next(), next);
                    }
                    _ if which < list.len() => {
                        let (ticket, number) = list.remove(which);
                        prop_assert_eq!(line.leave(ticket), Some(number));
                        prop_assert_eq!(line.leave(ticket), None);
                    }
                    _ => {}
                }
                prop_assert_eq!(line.len(), list.len());
                prop_assert_eq!(line.first(), list.first().map(|(_, number)| number));
            }
        }
    }
}
