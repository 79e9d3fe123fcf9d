//! How many batches are under way at a time: as many as an upstream gains by, and no more.
//!
//! An upstream that computes one batch after the other answers two at a time no sooner than one: then the second had better
//! grow while the first is computed. An upstream with eight workers wants eight. Which of them it is shows in the time that
//! batches take beside what one of as many rows takes alone: of `k` batches under way that take `r` times as long as alone,
//! `k * (1 - 1 / r)` only wait there. One that waits keeps the upstream busy while answers are on their way; more do no good.
//! (TCP Vegas judges the queue in a network so: Brakmo and Peterson, 1995.)

use std::time::Duration;

/// Batches that wait upstream: below the first there is room for more, above the second there are too many.
const WAITING: (f64, f64) = (0.9, 1.8);
/// What an older time still counts when a newer has come.
const FADING: f64 = 0.9;
/// After so many batches one is run alone, to learn anew how long that takes.
const ALONE_EVERY: usize = 200;

/// A batch that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Going {
    /// Batches under way with it when it began, itself included.
    with: usize,
    /// Its number.
    number: u64,
}

/// Batches that are under way, and how many more may be.
#[derive(Debug, Clone)]
pub struct Room {
    limit: usize,
    most: usize,
    under_way: usize,
    begun: u64,
    alone: Alone,
    /// Batches since one ran alone.
    since_alone: usize,
    /// Batches that this round has seen end, and those that waited upstream meanwhile, added up.
    round: (usize, f64),
    /// Somebody has waited for room in this round.
    was_full: bool,
    /// It has had enough once: from here on it moves by one.
    careful: bool,
}

impl Room {
    /// Room for one, and for `most` in time.
    pub fn new(most: usize) -> Self {
        Self {
            limit: 1,
            most: most.max(1),
            under_way: 0,
            begun: 0,
            alone: Alone::default(),
            since_alone: 0,
            round: (0, 0.0),
            was_full: false,
            careful: false,
        }
    }

    /// Batches that may be under way.
    pub fn limit(&self) -> usize {
        if self.since_alone >= ALONE_EVERY * self.limit { 1 } else { self.limit }
    }

    /// The same but for the one in so many that is run alone.
    pub fn usual(&self) -> usize {
        self.limit
    }

    /// A batch begins.
    pub fn begin(&mut self) -> Going {
        self.under_way += 1;
        self.begun += 1;
        self.was_full |= self.under_way >= self.limit;
        Going { with: self.under_way, number: self.begun }
    }

    /// A batch has ended; `took` says how long its rows took, where nothing went wrong.
    pub fn end(&mut self, going: Going, rows: usize, took: Option<Duration>) {
        let with = going.with.max(self.under_way);
        self.under_way = self.under_way.saturating_sub(1);
        let Some(took) = took else { return };
        let took = took.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "rows and batches are few")]
        let (size, count) = (rows as f64, with as f64);
        if with == 1 && self.begun == going.number {
            self.alone.learn(size, took);
            self.since_alone = 0;
        } else {
            self.since_alone += 1;
        }
        let Some(alone) = self.alone.time_of(size) else { return };
        let waiting = count * (1.0 - (alone / took.max(f64::MIN_POSITIVE)).min(1.0));
        self.round = (self.round.0 + 1, self.round.1 + waiting);
        if self.round.0 >= self.limit {
            self.judge();
        }
    }

    /// At the end of a round: more, fewer, or as many as before.
    fn judge(&mut self) {
        #[allow(clippy::cast_precision_loss, reason = "as above")]
        let waiting = self.round.1 / self.round.0 as f64;
        if waiting > WAITING.1 {
            self.careful = true;
            self.limit = self.limit.saturating_sub(1).max(1);
        } else if waiting < WAITING.0 && self.was_full {
            let more = if self.careful { 1 } else { self.limit };
            self.limit = (self.limit + more).min(self.most);
        }
        self.round = (0, 0.0);
        self.was_full = self.under_way >= self.limit;
    }
}

/// What batches take that are under way alone: so much for any, and so much more for each row. The line through them, where
/// the last ones count most.
#[derive(Debug, Clone, Copy, Default)]
struct Alone {
    weight: f64,
    rows: f64,
    time: f64,
    rows_squared: f64,
    rows_by_time: f64,
}

impl Alone {
    fn learn(&mut self, rows: f64, time: f64) {
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.time, time),
            (&mut self.rows_squared, rows * rows),
            (&mut self.rows_by_time, rows * time),
        ] {
            *sum = *sum * FADING + value;
        }
    }

    fn time_of(&self, rows: f64) -> Option<f64> {
        if self.weight <= 0.0 {
            return None;
        }
        let (mean_rows, mean_time) = (self.rows / self.weight, self.time / self.weight);
        let variance = self.rows_squared / self.weight - mean_rows * mean_rows;
        let covariance = self.rows_by_time / self.weight - mean_rows * mean_time;
        // A row costs something, and no more than all of it.
        let most = mean_time / mean_rows.max(1.0);
        let each = if variance > 0.01 { (covariance / variance).clamp(0.0, most) } else { 0.0 };
        Some((mean_time + each * (rows - mean_rows)).max(0.0))
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "a simulation of some thousand rows")]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// An upstream with so many workers, each of which takes so long for a batch and so long for each of its rows; requests
    /// of so many clients, each of which asks again when it has its answer. Gives the limit in the end, and rows a second.
    fn simulate(workers: usize, fixed: u64, each: u64, clients: usize, most: usize) -> (usize, f64) {
        let mut room = Room::new(most);
        let mut free: BinaryHeap<Reverse<u64>> = (0..workers).map(|_| Reverse(0)).collect();
        let mut ends: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut going = std::collections::HashMap::new();
        let (mut now, mut waiting, mut answered, mut number) = (0_u64, clients, 0_u64, 0_u64);
        while now < 20_000_000 {
            while waiting > 0 && going.len() < room.limit().max(1) {
                let rows = waiting.min(64);
                waiting -= rows;
                let Reverse(from) = free.pop().unwrap();
                let end = from.max(now) + fixed + each * rows as u64;
                free.push(Reverse(end));
                number += 1;
                going.insert(number, (room.begin(), rows, now));
                ends.push(Reverse((end, number)));
            }
            let Reverse((end, which)) = ends.pop().unwrap();
            now = end;
            let (begun, rows, at) = going.remove(&which).unwrap();
            room.end(begun, rows, Some(Duration::from_micros(now - at)));
            answered += rows as u64;
            waiting += rows;
        }
        (room.limit, answered as f64 / 20.0)
    }

    #[test]
    fn an_upstream_that_computes_one_after_the_other_gets_few_and_large_batches() {
        for (fixed, each) in [(2_000, 20), (5_000, 0), (1_000, 100)] {
            let (limit, _) = simulate(1, fixed, each, 64, 16);
            assert!((1..=3).contains(&limit), "{limit} of {fixed} and {each}");
        }
    }

    #[test]
    fn an_upstream_of_many_workers_gets_as_many_batches() {
        for workers in [2, 4, 8] {
            let (limit, rate) = simulate(workers, 5_000, 10, 1000, 32);
            assert!((workers..=workers + 3).contains(&limit), "{limit} for {workers} workers");
            let (_, alone) = simulate(1, 5_000, 10, 1000, 1);
            assert!(rate > 0.8 * alone * workers as f64, "{rate} rows a second beside {alone} of one");
        }
    }

    #[test]
    fn what_is_far_away_is_sent_as_much_as_there_may_be() {
        let (limit, _) = simulate(1000, 50_000, 1, 1000, 16);
        assert_eq!(limit, 16);
    }

    #[test]
    fn what_failed_teaches_nothing_and_gives_its_place_back() {
        let mut room = Room::new(8);
        for _ in 0..100 {
            let going = room.begin();
            room.end(going, 4, None);
        }
        assert_eq!((room.limit(), room.under_way), (1, 0));
    }

    #[test]
    fn who_never_waits_gets_no_more_room() {
        let mut room = Room::new(8);
        for _ in 0..3 {
            let going = room.begin();
            room.end(going, 1, Some(Duration::from_millis(1)));
        }
        let before = room.limit();
        for _ in 0..1000 {
            let going = room.begin();
            room.end(going, 1, Some(Duration::from_millis(1)));
        }
        assert!(room.limit <= before.max(2), "{}", room.limit);
    }
}
