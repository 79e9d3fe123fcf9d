//! A bounded hand-over from many producers that must not wait to one reader that may be slow.

use std::time::{Duration, Instant};
use std::vec;

use super::{Held, Monitor};

/// Records on their way to a reader.
///
/// A producer holds the lock for as long as it takes to move one record, and never waits for room: what finds none is
/// dropped and counted. Memory for every record is taken at the beginning, and again for as many while they are read: the
/// reader takes all that came at once, and leaves the memory of the last burst in its place, where that was handed over in
/// one part, else as much anew.
///
/// The reader works in bursts. It sleeps until there is a record; what comes within [`Pace::gather`] of the first makes
/// up the burst, and only that first one wakes it. So under load a producer makes no system call.
pub struct Journal<T> {
    state: Monitor<State<T>>,
    /// The reader's own; nobody else waits for it.
    reading: Monitor<Reading<T>>,
    capacity: usize,
    reserve: usize,
    pace: Pace,
}

/// How a reader goes about its work.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time from the first record of a burst until the burst is handed over.
    pub gather: Duration,
    /// Records handed over at once, at most, that hold others up; a larger burst comes in several parts.
    pub most: usize,
    /// Time between two parts of a burst, in which others get what the reader had to hold while it worked.
    pub breath: Duration,
}

/// What the reader gets.
#[derive(Debug)]
pub struct Burst<T> {
    /// In the order in which they were pushed.
    pub records: Vec<T>,
    /// Records that found no room since the last burst; all of them were newer than those that were kept then.
    pub dropped: u64,
}

struct Reading<T> {
    /// What is left of the present burst.
    left: vec::IntoIter<T>,
    /// Memory for the next.
    spare: Vec<T>,
}

struct State<T> {
    records: Vec<T>,
    /// Records of the present burst that were not handed over yet: they have their place still.
    due: usize,
    /// Records that were dropped, from the beginning.
    dropped: u64,
    /// Those of them that the reader has not heard of.
    untold: u64,
    /// True while the reader sleeps and nobody has woken it.
    sleeps: bool,
    closed: bool,
}

enum Entered {
    /// It is in, and the reader must be woken where it says so.
    Kept { wake: bool },
    /// There was no room.
    Dropped,
}

impl<T> Journal<T> {
    /// An empty journal for `capacity` records, and an eighth more for those that are [rare](Self::push_rare).
    pub fn new(capacity: usize, pace: Pace) -> Self {
        let reserve = capacity / 8 + 1;
        let state = State {
            records: Vec::with_capacity(capacity + reserve),
            due: 0,
            dropped: 0,
            untold: 0,
            sleeps: false,
            closed: false,
        };
        let reading = Reading { left: Vec::new().into_iter(), spare: Vec::new() };
        Self { state: Monitor::new(state), reading: Monitor::new(reading), capacity, reserve, pace }
    }

    /// Hands a record over, or drops it where the reader is too far behind.
    pub fn push(&self, record: T) {
        self.add(record, self.capacity);
    }

    /// As [`push`](Self::push), for records so few that the flood of the others must not cost them their place.
    pub fn push_rare(&self, record: T) {
        self.add(record, self.capacity + self.reserve);
    }

    fn add(&self, record: T, room: usize) {
        if let Entered::Kept { wake: true } = self.enter(record, room) {
            self.state.wake_one();
        }
    }

    fn enter(&self, record: T, room: usize) -> Entered {
        let mut state = self.state.lock();
        if state.closed || state.records.len() + state.due >= room {
            state.dropped += 1;
            state.untold += 1;
            // The record's memory is given back when nobody waits for the lock any more.
            drop(state);
            return Entered::Dropped;
        }
        state.records.push(record);
        Entered::Kept { wake: std::mem::take(&mut state.sleeps) }
    }

    /// Blocks until there is a burst, for at most `limit` (then it is empty). `None` once the journal is closed and
    /// everything in it was handed over.
    pub fn wait(&self, limit: Duration) -> Option<Burst<T>> {
        self.wait_for(limit, |_| true)
    }

    /// As [`wait`](Self::wait), where not every record holds others up while the reader works on it: those that do not
    /// are handed over however many they are.
    pub fn wait_for(&self, limit: Duration, mut holds_up: impl FnMut(&T) -> bool) -> Option<Burst<T>> {
        let mut reading = self.reading.lock();
        if reading.left.len() > 0 {
            drop(self.rest(self.state.lock(), self.pace.breath));
        } else {
            reading.left = self.gathered(limit, &mut reading.spare)?.into_iter();
        }
        let records = self.part(&mut reading.left, &mut holds_up);
        let mut state = self.state.lock();
        state.due = reading.left.len();
        Some(Burst { records, dropped: std::mem::take(&mut state.untold) })
    }

    /// Gives the memory of a burst back, for the next.
    pub fn give_back(&self, mut records: Vec<T>) {
        records.clear();
        let mut reading = self.reading.lock();
        if records.capacity() > reading.spare.capacity() {
            reading.spare = records;
        }
    }

    /// A burst, and the memory of the last in its place; `None` where there will be none any more.
    fn gathered(&self, limit: Duration, spare: &mut Vec<T>) -> Option<Vec<T>> {
        // Taken here, and not where a record comes.
        spare.reserve_exact(self.capacity + self.reserve);
        let mut state = self.sleep(self.state.lock(), Instant::now().checked_add(limit));
        // Nobody gathers in a journal that may soon be full.
        if !state.records.is_empty() && state.records.len() < self.capacity / 2 {
            state = self.rest(state, self.pace.gather);
        }
        if state.closed && state.records.is_empty() && state.untold == 0 {
            return None;
        }
        state.due = state.records.len();
        Some(std::mem::replace(&mut state.records, std::mem::take(spare)))
    }

    /// As many as are handed over at once.
    fn part(&self, left: &mut vec::IntoIter<T>, holds_up: &mut impl FnMut(&T) -> bool) -> Vec<T> {
        let mut most = self.pace.most.max(1);
        let is_too_many = |record: &T| {
            let fits = most > 0;
            most -= usize::from(fits && holds_up(record));
            !fits
        };
        match left.as_slice().iter().position(is_too_many) {
            Some(count) => left.by_ref().take(count).collect(),
            // In the memory that it lies in.
            None => std::mem::replace(left, Vec::new().into_iter()).collect(),
        }
    }

    /// Until there is something to say, `until` comes, or the journal is closed.
    fn sleep<'a>(&'a self, mut state: Held<'a, State<T>>, until: Option<Instant>) -> Held<'a, State<T>> {
        while state.records.is_empty()
            && state.untold == 0
            && !state.closed
            && until.is_none_or(|until| Instant::now() < until)
        {
            state.sleeps = true;
            state = self.state.wait(state, until);
        }
        state.sleeps = false;
        state
    }

    /// A pause that no record ends, only the closing.
    fn rest<'a>(&'a self, state: Held<'a, State<T>>, pause: Duration) -> Held<'a, State<T>> {
        if state.closed {
            return state;
        }
        self.state.wait_ended(state, Instant::now() + pause)
    }

    /// Takes no more records. What is there is still handed over.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.state.wake_all();
        self.state.wake_ended();
    }

    /// Records that found no room, from the beginning.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    const AT_ONCE: Pace = Pace { gather: Duration::ZERO, most: usize::MAX >> 40, breath: Duration::ZERO };
    const PATIENCE: Duration = Duration::from_secs(30);

    fn wakes(journal: &Journal<u32>, record: u32) -> bool {
        matches!(journal.enter(record, journal.capacity), Entered::Kept { wake: true })
    }

    fn until_asleep(journal: &Journal<u32>) {
        let end = Instant::now() + PATIENCE;
        while !journal.state.lock().sleeps {
            assert!(Instant::now() < end, "the reader never slept");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_burst_comes_in_order_and_at_once() {
        let journal = Journal::new(10, AT_ONCE);
        (0..5).for_each(|number| journal.push(number));
        let burst = journal.wait(PATIENCE).unwrap();
        assert_eq!((burst.records, burst.dropped), (vec![0, 1, 2, 3, 4], 0));
        assert!(journal.wait(Duration::ZERO).unwrap().records.is_empty());
    }

    #[test]
    fn a_sleeping_reader_is_woken_once_and_one_that_is_awake_never() {
        let journal = Arc::new(Journal::new(100, Pace { gather: PATIENCE, ..AT_ONCE }));
        assert!(!wakes(&journal, 0), "nobody sleeps");
        assert_eq!(journal.state.lock().records.pop(), Some(0));
        let reader = {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || journal.wait(PATIENCE).unwrap().records)
        };
        until_asleep(&journal);
        assert!(wakes(&journal, 1));
        assert!((2..50).all(|number| !wakes(&journal, number)), "a wake was on its way");
        journal.state.wake_one();
        // The reader gathers now; the end of the journal cuts that short.
        journal.close();
        assert_eq!(reader.join().unwrap(), (1..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_is_dropped_and_told_once() {
        let journal = Journal::new(3, AT_ONCE);
        (0..7).for_each(|number| journal.push(number));
        let burst = journal.wait(PATIENCE).unwrap();
        assert_eq!((burst.records, burst.dropped), (vec![0, 1, 2], 4));
        assert_eq!((journal.wait(Duration::ZERO).unwrap().dropped, journal.dropped()), (0, 4));
    }

    #[test]
    fn what_is_rare_finds_room_in_a_full_journal_but_not_without_end() {
        let journal = Journal::new(16, AT_ONCE);
        (0..20).for_each(|number| journal.push(number));
        (100..200).for_each(|number| journal.push_rare(number));
        let burst = journal.wait(PATIENCE).unwrap();
        assert_eq!(burst.records, (0..16).chain(100..103).collect::<Vec<_>>());
        assert_eq!(burst.dropped, 4 + 97);
    }

    #[test]
    fn a_large_burst_comes_in_parts_and_what_came_since_waits_for_the_next() {
        let journal = Journal::new(100, Pace { most: 2, ..AT_ONCE });
        (0..5).for_each(|number| journal.push(number));
        assert_eq!(journal.wait(PATIENCE).unwrap().records, [0, 1]);
        journal.push(5);
        assert_eq!(journal.wait(PATIENCE).unwrap().records, [2, 3]);
        assert_eq!(journal.wait(PATIENCE).unwrap().records, [4]);
        assert_eq!(journal.wait(PATIENCE).unwrap().records, [5]);
    }

    #[test]
    fn what_holds_nobody_up_comes_all_at_once() {
        let journal = Journal::new(100, Pace { most: 2, ..AT_ONCE });
        (0..20).for_each(|number| journal.push(number));
        let next = |holds_up: fn(&u32) -> bool| journal.wait_for(PATIENCE, holds_up).unwrap().records;
        assert_eq!(next(|number| number % 4 == 0), [0, 1, 2, 3, 4]);
        assert_eq!(next(|_| true), [5, 6]);
        assert_eq!(next(|_| false), (7..20).collect::<Vec<_>>());
    }

    #[test]
    fn memory_that_is_given_back_is_that_of_the_burst_after_the_next() {
        let journal = Journal::new(100, AT_ONCE);
        let mut places = Vec::new();
        for number in 0..6 {
            journal.push(number);
            let records = journal.wait(PATIENCE).unwrap().records;
            assert_eq!(records, [number]);
            places.push(records.as_ptr());
            journal.give_back(records);
        }
        assert_eq!(places[..4], places[2..]);
    }

    #[test]
    fn closing_wakes_the_reader_which_gets_what_was_there_and_then_the_end() {
        let journal = Arc::new(Journal::new(10, AT_ONCE));
        let reader = {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || journal.wait(Duration::MAX).is_none())
        };
        until_asleep(&journal);
        journal.close();
        assert!(reader.join().unwrap());

        let journal = Journal::new(10, AT_ONCE);
        journal.push(1);
        journal.close();
        journal.push(2);
        let burst = journal.wait(PATIENCE).unwrap();
        assert_eq!((burst.records, burst.dropped), (vec![1], 1), "closed is closed");
        assert!(journal.wait(PATIENCE).is_none());
    }

    #[test]
    fn many_producers_lose_nothing_uncounted_and_keep_their_order() {
        const EACH: u32 = 20_000;
        let pace = Pace { gather: Duration::from_micros(50), most: 64, breath: Duration::from_micros(10) };
        let journal = Arc::new(Journal::new(500, pace));
        let producers: Vec<_> = (0..3_u32)
            .map(|name| {
                let journal = Arc::clone(&journal);
                std::thread::spawn(move || (0..EACH).for_each(|number| journal.push((name, number))))
            })
            .collect();
        let reader = {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || {
                let (mut seen, mut dropped) = (Vec::new(), 0);
                while let Some(burst) = journal.wait(PATIENCE) {
                    seen.extend(burst.records);
                    dropped += burst.dropped;
                }
                (seen, dropped)
            })
        };
        for producer in producers {
            producer.join().unwrap();
        }
        journal.close();
        let (seen, dropped) = reader.join().unwrap();
        assert_eq!(seen.len() as u64 + dropped, u64::from(3 * EACH));
        for name in 0..3 {
            let numbers: Vec<_> =
                seen.iter().filter(|(of, _)| *of == name).map(|(_, number)| *number).collect();
            assert!(numbers.is_sorted(), "records of one producer changed places");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        PushRare,
        Read,
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Push),
            2 => Just(Step::PushRare),
            3 => Just(Step::Read),
            1 => Just(Step::Close),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_agrees_with_a_plain_list_whatever_happens(
            capacity in 1_usize..20,
            most in 1_usize..8,
            steps in steps(),
        ) {
            let journal = Journal::new(capacity, Pace { most, ..AT_ONCE });
            let (mut kept, mut lost, mut told, mut closed) = (VecDeque::new(), 0_u64, 0_u64, false);
            let reads = std::iter::repeat_n(Step::Read, 100);
            for (number, step) in steps.into_iter().chain([Step::Close]).chain(reads).enumerate() {
                match step {
                    Step::Push | Step::PushRare => {
                        let rare = matches!(step, Step::PushRare);
                        let room = if rare { capacity + capacity / 8 + 1 } else { capacity };
                        if rare { journal.push_rare(number) } else { journal.push(number) }
                        if !closed && kept.len() < room { kept.push_back(number) } else { lost += 1 }
                    }
                    Step::Close => {
                        journal.close();
                        closed = true;
                    }
                    Step::Read => match journal.wait(Duration::ZERO) {
                        None => prop_assert!(closed && kept.is_empty() && told == lost),
                        Some(mut burst) => {
                            prop_assert!(burst.records.len() <= most);
                            prop_assert!(kept.is_empty() || !burst.records.is_empty());
                            for record in burst.records.drain(..) {
                                prop_assert_eq!(Some(record), kept.pop_front());
                            }
                            told += burst.dropped;
                            journal.give_back(burst.records);
                        }
                    },
                }
                prop_assert_eq!(journal.dropped(), lost);
            }
            prop_assert!(kept.is_empty() && told == lost);
        }
    }
}

/// Every interleaving of two producers and a reader: a record never waits for a reader that was not woken.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const PACE: Pace = Pace { gather: Duration::from_secs(1), most: 8, breath: Duration::from_secs(1) };
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn no_record_is_left_with_a_reader_that_sleeps() {
        loom::model(|| {
            let journal = Arc::new(Journal::new(8, PACE));
            let producers: Vec<_> = (0..2)
                .map(|name| {
                    let journal = journal.clone();
                    thread::spawn(move || journal.push(name))
                })
                .collect();
            // A wake that were lost would leave this loop asleep for ever, which loom calls a deadlock.
            let mut seen = Vec::new();
            while seen.len() < 2 {
                seen.extend(journal.wait(LONG).unwrap().records);
            }
            for producer in producers {
                producer.join().unwrap();
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1]);
        });
    }

    #[test]
    fn a_reader_hears_of_the_end_and_of_everything_before_it() {
        loom::model(|| {
            let journal = Arc::new(Journal::new(8, PACE));
            let other = journal.clone();
            let producer = thread::spawn(move || {
                other.push(1);
                other.close();
            });
            let mut seen = Vec::new();
            while let Some(burst) = journal.wait(LONG) {
                seen.extend(burst.records);
            }
            producer.join().unwrap();
            assert_eq!(seen, [1]);
        });
    }
}
