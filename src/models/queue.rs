//! Which load is next.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Residency;
use crate::flow::{Moment, Priority};

/// What a load is wanted for: the first is served before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it.
    Live = 0,
    /// Something that somebody waits for needs it.
    Dependency = 1,
    /// It is loaded because somebody said so, at the start or later.
    Preload = 2,
    /// It is loaded because it may be asked for.
    Predicted = 3,
}

impl Class {
    /// The class of what a load of this class needs: what waits for a person keeps its place before all preloads.
    #[must_use]
    pub const fn of_dependencies(self) -> Self {
        match self {
            Self::Live => Self::Dependency,
            other => other,
        }
    }
}

/// Who wants a load, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What for.
    pub class: Class,
    /// How urgent it is among those of its class.
    pub priority: Priority,
    /// Since when it has waited: waiting lifts it.
    pub since: Moment,
}

impl Want {
    /// What both want: the better of the two places, and the longer wait.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (class, priority) = (self.class, self.priority).min((other.class, other.priority));
        Self { class, priority, since: self.since.min(other.since) }
    }

    /// The same for what it needs: a dependency inherits priority and wait.
    #[must_use]
    pub fn of_dependencies(self) -> Self {
        Self { class: self.class.of_dependencies(), ..self }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    want: Want,
    /// Seconds from its beginning to the end of the last load that waits for it.
    rank: f64,
    /// Who came first.
    number: u64,
}

/// Loads that wait for their turn.
///
/// The better class goes first, within it the higher priority, then the one with the longest chain of loads behind it, then
/// who came first. Every `aging` that a load has waited lifts it by a class, without end, so that none waits forever.
#[derive(Debug)]
pub struct LoadQueue {
    aging: Duration,
    entries: BTreeMap<Residency, Entry>,
    numbers: u64,
}

impl LoadQueue {
    /// An empty queue. An `aging` of zero means that waiting lifts nothing.
    pub const fn new(aging: Duration) -> Self {
        Self { aging, entries: BTreeMap::new(), numbers: 0 }
    }

    /// Puts a load in, or, where it waits already, has it wanted by one more: it may move forward, never back. `rank` is the
    /// newest, as [`super::graph::Graph::ranks`] gives it.
    pub fn want(&mut self, residency: Residency, want: Want, rank: f64) {
        let want = self.entries.get(&residency).map_or(want, |known| known.want.with(want));
        self.set(residency, want, rank);
    }

    /// Puts a load in, or has it wanted by nobody but `want`: where somebody has left, it may move back. It keeps its place
    /// among equals.
    pub fn set(&mut self, residency: Residency, want: Want, rank: f64) {
        let numbers = &mut self.numbers;
        let entry = self.entries.entry(residency).or_insert_with(|| {
            *numbers += 1;
            Entry { want, rank, number: *numbers }
        });
        entry.want = want;
        entry.rank = rank;
    }

    /// Takes a load out: it begins, or nobody wants it. False where it was not there.
    pub fn remove(&mut self, residency: Residency) -> bool {
        self.entries.remove(&residency).is_some()
    }

    /// Who wants it; `None` where it does not wait.
    pub fn wanted(&self, residency: Residency) -> Option<Want> {
        self.entries.get(&residency).map(|entry| entry.want)
    }

    /// Loads that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first that `may` go. It stays in the queue.
    pub fn first(&self, now: Moment, may: impl Fn(Residency) -> bool) -> Option<Residency> {
        let there = self.entries.iter().filter(|(residency, _)| may(**residency));
        there.min_by(|(_, one), (_, other)| self.compare(one, other, now)).map(|(residency, _)| *residency)
    }

    /// All, the first first.
    pub fn in_order(&self, now: Moment) -> Vec<Residency> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_unstable_by(|(_, one), (_, other)| self.compare(one, other, now));
        all.into_iter().map(|(residency, _)| *residency).collect()
    }

    /// How many stand before it; `None` where it does not wait.
    pub fn position(&self, residency: Residency, now: Moment) -> Option<usize> {
        let own = self.entries.get(&residency)?;
        Some(self.entries.values().filter(|other| self.compare(other, own, now).is_lt()).count())
    }

    fn compare(&self, one: &Entry, other: &Entry, now: Moment) -> std::cmp::Ordering {
        let place = |entry: &Entry| (self.lifted(entry.want, now), entry.want.priority);
        let by_rank = || Reverse(Rank(one.rank)).cmp(&Reverse(Rank(other.rank)));
        place(one).cmp(&place(other)).then_with(by_rank).then_with(|| one.number.cmp(&other.number))
    }

    /// Its class, less one for each time that it has waited for `aging`.
    fn lifted(&self, want: Want, now: Moment) -> i64 {
        let waited = now.since(want.since).as_nanos();
        let classes = waited.checked_div(self.aging.as_nanos()).unwrap_or_default();
        (want.class as i64).saturating_sub(i64::try_from(classes).unwrap_or(i64::MAX))
    }
}

/// Seconds in a total order.
#[derive(PartialEq)]
struct Rank(f64);

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGING: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn want(class: Class, priority: Priority, since: u64) -> Want {
        Want { class, priority, since: at(since) }
    }

    fn queue(wants: &[(Class, Priority, u64, f64)]) -> LoadQueue {
        let mut queue = LoadQueue::new(AGING);
        for (number, (class, priority, since, rank)) in (0..).zip(wants) {
            queue.want(Residency(number), want(*class, *priority, *since), *rank);
        }
        queue
    }

    fn order(queue: &LoadQueue, seconds: u64) -> Vec<u64> {
        queue.in_order(at(seconds)).into_iter().map(|residency| residency.0).collect()
    }

    #[test]
    fn live_loads_go_before_their_dependencies_those_before_preloads_and_all_before_guesses() {
        use {Class::*, Priority::*};
        let queue = queue(&[
            (Predicted, High, 0, 9.0),
            (Preload, Low, 0, 0.0),
            (Preload, Normal, 0, 0.0),
            (Dependency, Normal, 0, 0.0),
            (Live, Low, 0, 0.0),
            (Live, Normal, 0, 1.0),
            (Live, Normal, 0, 5.0),
            (Live, Normal, 0, 1.0),
        ]);
        assert_eq!(order(&queue, 0), [6, 5, 7, 4, 3, 2, 1, 0]);
        assert_eq!(queue.first(at(0), |residency| residency.0 < 3), Some(Residency(2)));
        assert_eq!(queue.position(Residency(4), at(0)), Some(3));
        assert_eq!(queue.first(at(0), |_| false), None);
    }

    #[test]
    fn who_asks_for_a_queued_preload_lifts_it_and_what_it_needs() {
        use {Class::*, Priority::*};
        let mut queue = queue(&[(Preload, Normal, 0, 2.0), (Preload, Normal, 0, 1.0), (Live, Low, 0, 1.0)]);
        assert_eq!(order(&queue, 0), [2, 0, 1]);
        let live = want(Live, High, 1);
        queue.want(Residency(1), live, 1.0);
        queue.want(Residency(0), live.of_dependencies(), 2.0);
        assert_eq!(order(&queue, 1), [1, 2, 0]);
        assert_eq!(queue.wanted(Residency(0)), Some(want(Dependency, High, 0)), "it keeps its wait");
        queue.want(Residency(1), want(Predicted, Low, 2), 1.0);
        assert_eq!(queue.wanted(Residency(1)), Some(want(Live, High, 0)), "nobody makes it wait longer");
        queue.set(Residency(1), want(Preload, Normal, 0), 1.0);
        assert_eq!(order(&queue, 1), [2, 0, 1], "the one who asked has left");
    }

    #[test]
    fn waiting_lifts_by_a_class_each_time() {
        use {Class::*, Priority::*};
        let mut queue = queue(&[(Predicted, Low, 0, 0.0)]);
        queue.want(Residency(1), want(Live, High, 29), 0.0);
        assert_eq!(order(&queue, 29), [1, 0]);
        assert_eq!(order(&queue, 31), [1, 0], "the priority still counts");
        queue.want(Residency(2), want(Live, High, 40), 0.0);
        assert_eq!(order(&queue, 40), [1, 0, 2]);
        let mut strict = LoadQueue::new(Duration::ZERO);
        strict.want(Residency(0), want(Predicted, Low, 0), 0.0);
        strict.want(Residency(1), want(Live, Low, 1_000_000), 0.0);
        assert_eq!(order(&strict, 2_000_000), [1, 0]);
    }

    #[test]
    fn who_came_first_goes_first_and_leaves_once() {
        let mut queue =
            queue(&[(Class::Live, Priority::Normal, 3, 1.0), (Class::Live, Priority::Normal, 3, 1.0)]);
        queue.want(Residency(0), want(Class::Live, Priority::Normal, 4), 1.0);
        assert_eq!(order(&queue, 4), [0, 1]);
        assert_eq!(queue.len(), 2);
        assert!(queue.remove(Residency(0)) && !queue.remove(Residency(0)));
        assert!(queue.wanted(Residency(0)).is_none() && queue.position(Residency(0), at(4)).is_none());
        assert!(queue.remove(Residency(1)) && queue.is_empty());
    }

    fn any_want() -> impl Strategy<Value = (Class, Priority, u64, f64)> {
        use {Class::*, Priority::*};
        let class = prop::sample::select(vec![Live, Dependency, Preload, Predicted]);
        let priority = prop::sample::select(vec![High, Normal, Low]);
        (class, priority, 0..60_u64, prop::sample::select(vec![0.0, 1.0, 2.0, f64::INFINITY]))
    }

    proptest! {
        #[test]
        fn every_order_is_one_order(wants in prop::collection::vec(any_want(), 1..20), now in 60..200_u64) {
            let queue = queue(&wants);
            let all = queue.in_order(at(now));
            prop_assert_eq!(all.len(), wants.len());
            prop_assert_eq!(queue.first(at(now), |_| true), all.first().copied());
            for (place, residency) in all.iter().enumerate() {
                prop_assert_eq!(queue.position(*residency, at(now)), Some(place));
            }
        }

        /// However urgent what comes is: after four times `aging` a load stands before all that is new.
        #[test]
        fn none_waits_forever(old in any_want(), new in prop::collection::vec(any_want(), 1..20)) {
            let (class, priority, _, rank) = old;
            let mut queue = queue(&[(class, priority, 0, rank)]);
            for (number, (class, priority, since, rank)) in (1..).zip(new) {
                queue.want(Residency(number), want(class, priority, 41 + since % 9), rank);
            }
            prop_assert_eq!(queue.first(at(50), |_| true), Some(Residency(0)));
        }
    }
}
