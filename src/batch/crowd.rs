//! Who takes part in a batch that is answered step by step: who is live, and whose reader is too slow for now.
//!
//! A function counts on what is live, so this changes at two points only: at a `yield` for those who left, and at the
//! next `join` for those whose readers are too slow, or not any more. By then the function has seen to the step that it
//! took for them. Where it does not join between two steps, it is the `yield` for all of them.

use std::mem::take;

/// A request of a run: the index that its batch gives it, and the seat that it has.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// What its batch calls it.
    pub index: usize,
    /// Where it sits.
    pub seat: usize,
    /// Its reader is too slow.
    pub slow: bool,
    /// Nobody waits there any more.
    pub gone: bool,
}

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Indices that are out of the batch.
    pub gone: Vec<usize>,
    /// Indices that take no part for now.
    pub paused: Vec<usize>,
    /// Indices that take part again.
    pub again: Vec<usize>,
    /// All that are left are too slow: the batch has to wait.
    pub must_wait: bool,
}

impl Changes {
    /// Nothing has changed, and the batch has to wait.
    pub fn wait() -> Self {
        Self { must_wait: true, ..Self::default() }
    }

    /// `None` where nothing changed and nobody has to wait.
    pub fn any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// The requests of a run that are not answered yet, by their index.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Those who take part in the next step.
    pub live: Vec<Place>,
    /// Those who take no part for now.
    pub resting: Vec<Place>,
    next: usize,
    /// The function has asked for more at some time: whoever waits may join.
    joins: bool,
    /// It has asked since the last step.
    joined: bool,
    /// Requests that waited when it asked last and got none.
    passed_over: usize,
    /// Resting or about to: so that nothing is looked at where nobody is.
    restless: bool,
}

impl Crowd {
    /// The requests in these seats.
    pub fn new(seats: impl Iterator<Item = usize>) -> Self {
        let mut crowd = Self::default();
        crowd.seat(seats);
        crowd
    }

    /// Adds the requests in these seats; the index of the first.
    pub fn seat(&mut self, seats: impl Iterator<Item = usize>) -> usize {
        let first = self.next;
        for seat in seats {
            self.live.push(Place { index: self.next, seat, slow: false, gone: false });
            self.next += 1;
        }
        first
    }

    /// The seat of a request that is not answered yet.
    pub fn seat_of(&self, index: usize) -> Option<usize> {
        let find = |places: &[Place]| {
            let at = places.binary_search_by_key(&index, |place| place.index).ok()?;
            places.get(at).map(|place| place.seat)
        };
        find(&self.live).or_else(|| find(&self.resting))
    }

    /// Takes a request out; its seat.
    pub fn leave(&mut self, index: usize) -> Option<usize> {
        for places in [&mut self.live, &mut self.resting] {
            if let Ok(at) = places.binary_search_by_key(&index, |place| place.index) {
                return Some(places.remove(at).seat);
            }
        }
        None
    }

    /// Takes everybody out; their seats.
    pub fn leave_all(&mut self) -> Vec<usize> {
        take(&mut self.live).into_iter().chain(take(&mut self.resting)).map(|place| place.seat).collect()
    }

    /// Everybody as they are now, to be looked at.
    pub fn everybody(&self) -> Vec<Place> {
        self.live.iter().chain(&self.resting).copied().collect()
    }

    /// Takes what was seen of them.
    pub fn note(&mut self, looked: &[Place]) {
        let mut looked = looked.iter();
        for place in self.live.iter_mut().chain(&mut self.resting) {
            // They stand in the order in which they were: whoever was taken out meanwhile is passed over.
            if let Some(seen) = looked.find(|seen| seen.index == place.index) {
                (place.slow, place.gone) = (seen.slow, seen.gone);
            }
        }
    }

    /// Notes that the function asked for more; of those who wait, so many could not join it.
    pub fn join(&mut self, left_outside: usize) {
        (self.joins, self.joined, self.passed_over) = (true, true, left_outside);
    }

    /// True where one of those who wait may join.
    pub fn takes_more(&mut self, largest: usize, outside: usize) -> bool {
        self.passed_over = self.passed_over.min(outside);
        self.joins && outside > self.passed_over && self.live.len() + self.resting.len() < largest
    }

    /// After a step, once everybody was looked at: who left is out, and where the function did not join since the step
    /// before, whoever is too slow takes no part any more.
    pub fn stepped(&mut self) -> Changes {
        let mut changes = self.sort_out();
        if !std::mem::replace(&mut self.joined, false) && self.restless {
            self.shift(&mut changes);
        }
        if !changes.must_wait {
            self.keep_one(&mut changes);
        }
        changes
    }

    /// While it waits, once everybody was looked at. `more` says that somebody could join.
    pub fn waited(&mut self, more: bool) -> Changes {
        let mut changes = self.sort_out();
        if more {
            // The function goes on, to take them in: it must find somebody live.
            changes.must_wait = false;
        }
        if !changes.must_wait {
            self.keep_one(&mut changes);
        }
        changes
    }

    /// Where the function has joined, or has answered everybody who was live: those whose readers are slow take no part
    /// any more, and those whose readers are not do again; but somebody is live as long as anybody is there.
    pub fn regroup(&mut self) -> Changes {
        let mut changes = Changes::default();
        if self.restless {
            self.shift(&mut changes);
        }
        self.keep_one(&mut changes);
        changes
    }

    /// Lets go of those who left; says whether there is anybody to take a step for.
    fn sort_out(&mut self) -> Changes {
        let mut changes = Changes::default();
        for places in [&mut self.live, &mut self.resting] {
            if places.iter().any(|place| place.gone) {
                changes.gone.extend(places.iter().filter(|place| place.gone).map(|place| place.index));
                places.retain(|place| !place.gone);
            }
        }
        self.restless = !self.resting.is_empty() || self.live.iter().any(|place| place.slow);
        let somebody = self.restless && self.live.iter().chain(&self.resting).all(|place| place.slow);
        changes.must_wait = somebody;
        changes
    }

    fn shift(&mut self, changes: &mut Changes) {
        let (slow, quick): (Vec<_>, Vec<_>) = take(&mut self.live).into_iter().partition(|place| place.slow);
        let (still, again): (Vec<_>, Vec<_>) =
            take(&mut self.resting).into_iter().partition(|place| place.slow);
        changes.paused.extend(slow.iter().map(|place| place.index));
        changes.again.extend(again.iter().map(|place| place.index));
        self.live = merged(quick, again);
        self.resting = merged(still, slow);
    }

    /// Where nobody is live, the first of those who are not takes part all the same.
    fn keep_one(&mut self, changes: &mut Changes) {
        if !self.live.is_empty() || self.resting.is_empty() {
            return;
        }
        let quick: Vec<_> = self.resting.iter().filter(|place| !place.slow).copied().collect();
        if quick.is_empty() {
            let first = self.resting.remove(0);
            self.bring(first, changes);
        } else {
            self.resting.retain(|place| place.slow);
            for place in quick {
                self.bring(place, changes);
            }
        }
    }

    fn bring(&mut self, place: Place, changes: &mut Changes) {
        self.live.push(place);
        match changes.paused.iter().position(|index| *index == place.index) {
            Some(at) => drop(changes.paused.remove(at)),
            None => changes.again.push(place.index),
        }
    }
}

fn merged(mut one: Vec<Place>, other: Vec<Place>) -> Vec<Place> {
    if other.is_empty() {
        return one;
    }
    one.extend(other);
    one.sort_unstable_by_key(|place| place.index);
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(count: usize) -> Crowd {
        Crowd::new(100..100 + count)
    }

    fn set_slow(crowd: &mut Crowd, slow: &[usize]) {
        for place in crowd.live.iter_mut().chain(&mut crowd.resting) {
            place.slow = slow.contains(&place.index);
        }
    }

    fn changes(gone: &[usize], paused: &[usize], again: &[usize], must_wait: bool) -> Changes {
        Changes { gone: gone.to_vec(), paused: paused.to_vec(), again: again.to_vec(), must_wait }
    }

    fn live(crowd: &Crowd) -> Vec<usize> {
        crowd.live.iter().map(|place| place.index).collect()
    }

    #[test]
    fn a_slow_one_takes_no_part_from_the_next_join_on() {
        let mut crowd = crowd(3);
        crowd.join(0);
        crowd.stepped();
        crowd.join(0);
        set_slow(&mut crowd, &[1]);
        assert_eq!(crowd.stepped().any(), None);
        assert_eq!(live(&crowd), [0, 1, 2]);
        crowd.join(0);
        assert_eq!(crowd.regroup(), changes(&[], &[1], &[], false));
        assert_eq!((live(&crowd), crowd.seat_of(1)), (vec![0, 2], Some(101)));
        set_slow(&mut crowd, &[]);
        crowd.stepped();
        crowd.join(0);
        assert_eq!(crowd.regroup(), changes(&[], &[], &[1], false));
        assert_eq!(live(&crowd), [0, 1, 2]);
    }

    #[test]
    fn a_function_that_never_joins_is_without_it_after_the_step() {
        let mut crowd = crowd(2);
        set_slow(&mut crowd, &[0]);
        assert_eq!(crowd.stepped(), changes(&[], &[0], &[], false));
        set_slow(&mut crowd, &[]);
        assert_eq!(crowd.stepped(), changes(&[], &[], &[0], false));
    }

    #[test]
    fn where_all_are_slow_it_waits_until_one_is_not() {
        let mut crowd = crowd(2);
        set_slow(&mut crowd, &[0, 1]);
        assert!(crowd.stepped().must_wait);
        assert!(crowd.waited(false).must_wait);
        set_slow(&mut crowd, &[0]);
        assert!(!crowd.waited(false).must_wait);
        assert_eq!(live(&crowd), [1]);
    }

    #[test]
    fn somebody_is_live_as_long_as_anybody_is_there() {
        let mut crowd = crowd(3);
        set_slow(&mut crowd, &[0, 1]);
        crowd.stepped();
        assert_eq!(live(&crowd), [2]);
        assert_eq!(crowd.leave(2), Some(102));
        assert_eq!(crowd.regroup(), changes(&[], &[], &[0], false));
        assert_eq!(live(&crowd), [0]);
        assert!(crowd.stepped().must_wait);
        assert!(!crowd.waited(true).must_wait);
        assert_eq!(live(&crowd), [0]);
    }

    #[test]
    fn only_who_could_join_ends_a_wait() {
        let mut crowd = crowd(2);
        assert!(!crowd.takes_more(8, 1), "it never asked for more");
        crowd.join(0);
        assert!(!crowd.takes_more(8, 0) && crowd.takes_more(8, 1) && !crowd.takes_more(2, 1));
        crowd.join(2);
        assert!(!crowd.takes_more(8, 2) && crowd.takes_more(8, 3));
        assert!(!crowd.takes_more(8, 1) && crowd.takes_more(8, 2));
    }

    #[test]
    fn who_leaves_while_all_wait_ends_the_wait_where_he_was_the_last() {
        let mut crowd = crowd(2);
        set_slow(&mut crowd, &[0, 1]);
        crowd.stepped();
        crowd.live.iter_mut().chain(&mut crowd.resting).for_each(|place| place.gone = true);
        assert_eq!(crowd.waited(false), changes(&[0, 1], &[], &[], false));
        assert!(crowd.live.is_empty() && crowd.resting.is_empty());
    }
}
