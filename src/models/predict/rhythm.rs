//! Requests at regular times: their period, how far they stray from it, and when the next one is due.

use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use crate::flow::Moment;
use crate::models::ModelId;

/// Requests closer together than this are one visit.
const BURST: Duration = Duration::from_secs(5);
/// Visits that are looked at for a period.
const LOOKED_AT: usize = 8;
/// Of a period: how far two of its gaps may lie apart, the least and the most that a visit may stray.
const ALIKE: f64 = 0.06;
const LEAST: f64 = 0.01;
const MOST: f64 = 0.1;
/// What the latest visit weighs in the period and in what it strays.
const LATEST: f64 = 0.15;
/// Trust in a period that was just found; what each visit that comes when it is due adds of what is missing; what one that does
/// not come takes away, and one that was not due.
const FOUND: f64 = 0.4;
const KEPT: f64 = 0.3;
const MISSED: f64 = 0.3;
const ASIDE: f64 = 0.1;
/// Trust above which it is acted on, and below which it is given up.
const TRUSTED: f64 = 0.6;
const GIVEN_UP: f64 = 0.25;
/// Visits beside a period, for each one that keeps to it, that are still hardly any.
const SELDOM: f64 = 0.2;
/// Periods that are followed at most.
const FOLLOWED: usize = 1024;

/// Whose visits they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Visitor {
    /// Those that name no session.
    Nobody(ModelId),
    /// Those of a session.
    Session(u64),
}

/// A period that visits keep to.
#[derive(Debug, Clone)]
pub(super) struct Rhythm {
    pub(super) model: ModelId,
    visitor: Visitor,
    /// Seconds from one visit to the next.
    period: f64,
    /// Seconds that visits stray from it, in the mean.
    strays: f64,
    last: Moment,
    /// The last did not come: `last` is when it was due.
    missed: bool,
    trust: f64,
    /// Visits beside it between two that were due, in the mean; and since the last.
    beside: f64,
    beside_now: f64,
}

/// The latest visits, the latest first, and the period that was found in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Visits {
    times: SmallVec<[Moment; LOOKED_AT]>,
    rhythm: Option<usize>,
}

/// What became of a visit that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// The model that it was for.
    pub(super) model: ModelId,
    /// True where it came.
    pub(super) came: bool,
}

/// All periods that are followed.
#[derive(Debug, Default)]
pub(super) struct Rhythms {
    followed: Slab<Rhythm>,
}

impl Rhythm {
    /// When the next visit is due.
    fn due(&self) -> Moment {
        self.last + Duration::from_secs_f64(self.period)
    }

    /// How far from it the visit may come and still be the one that was due: three times what a bell curve of the same mean
    /// stray would call its standard deviation.
    fn leeway(&self) -> f64 {
        (self.strays * 3.75).clamp(LEAST * self.period, MOST * self.period)
    }

    /// From when until when the next visit is expected; for a model that takes `load_seconds`, the former is when the load of
    /// it must begin.
    pub(super) fn expected(&self, load_seconds: f64) -> (Moment, Moment) {
        let (due, leeway) = (self.due(), self.leeway());
        let early = Duration::from_secs_f64(leeway * 0.7 + load_seconds);
        (due.earlier_by(early), due + Duration::from_secs_f64(leeway))
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trust >= TRUSTED
    }

    /// The chance that the visit comes.
    pub(super) fn likely(&self) -> f64 {
        self.trust
    }

    /// Seconds from that moment to when the next visit is due, or back.
    fn off(&self, now: Moment) -> f64 {
        let due = self.due();
        now.since(due).max(due.since(now)).as_secs_f64()
    }

    fn keep(&mut self, now: Moment) {
        let gap = now.since(self.last).as_secs_f64();
        self.strays += LATEST * ((gap - self.period).abs() - self.strays);
        self.period += LATEST * (gap - self.period);
        self.trust += KEPT * (1.0 - self.trust);
        (self.last, self.missed) = (now, false);
        self.turn();
    }

    fn miss(&mut self) {
        (self.last, self.missed) = (self.due(), true);
        self.trust *= 1.0 - MISSED;
        self.turn();
    }

    /// A visit that is too far from when it was due; or was not due.
    fn stray(&mut self, now: Moment) {
        let late = self.missed && now.since(self.last).as_secs_f64() <= 2.0 * self.leeway();
        if late || self.off(now) <= 2.0 * self.leeway() {
            // The next one is due from here.
            (self.last, self.missed) = (now, false);
        } else {
            self.trust *= 1.0 - ASIDE;
            self.beside_now += 1.0;
        }
    }

    fn turn(&mut self) {
        self.beside += LATEST * (std::mem::take(&mut self.beside_now) - self.beside);
    }
}

impl Visits {
    /// Three gaps of about the same length that end now: their mean, and how far they stray from it.
    fn period(&self, now: Moment) -> Option<(f64, f64)> {
        let gap_to = |from: Moment, want: f64| {
            let gaps = self.times.iter().map(|time| from.since(*time).as_secs_f64());
            let near = |gap: &f64| (gap - want).abs() <= ALIKE * want;
            gaps.filter(near).min_by(|one, other| (one - want).abs().total_cmp(&(other - want).abs()))
        };
        self.times.iter().find_map(|time| {
            let first = now.since(*time).as_secs_f64();
            let second = gap_to(*time, first)?;
            let third = gap_to(time.earlier_by(Duration::from_secs_f64(second)), first)?;
            let mean = (first + second + third) / 3.0;
            let strays = [first, second, third].iter().map(|gap| (gap - mean).abs()).sum::<f64>() / 3.0;
            // Three gaps say little about how far they stray.
            Some((mean, f64::midpoint(strays, 0.025 * mean)))
        })
    }

    fn push(&mut self, now: Moment) {
        self.times.truncate(LOOKED_AT - 1);
        self.times.insert(0, now);
    }
}

impl Rhythms {
    /// A request has come; says what it was where one was due and trusted.
    pub(super) fn visit(
        &mut self,
        visits: &mut Visits,
        visitor: Visitor,
        model: ModelId,
        now: Moment,
    ) -> Option<Due> {
        if visits.times.first().is_some_and(|last| now.since(*last) < BURST) {
            return None;
        }
        let followed = visits
            .rhythm
            .and_then(|key| self.followed.get_mut(key))
            .filter(|rhythm| rhythm.visitor == visitor);
        if let Some(rhythm) = followed {
            visits.push(now);
            if rhythm.off(now) > rhythm.leeway() {
                rhythm.stray(now);
                return None;
            }
            let due = rhythm.is_trusted().then_some(Due { model, came: true });
            rhythm.keep(now);
            return due;
        }
        visits.rhythm =
            visits.period(now).filter(|_| self.followed.len() < FOLLOWED).map(|(period, strays)| {
                self.followed.insert(Rhythm {
                    model,
                    visitor,
                    period,
                    strays,
                    last: now,
                    missed: false,
                    trust: FOUND,
                    beside: 0.0,
                    beside_now: 0.0,
                })
            });
        visits.push(now);
        None
    }

    /// Forgets a visitor's visits: it has gone, or asks for something else.
    pub(super) fn forget(&mut self, visits: &mut Visits, visitor: Visitor) {
        visits.times.clear();
        let key = visits.rhythm.take();
        if let Some(key) =
            key.filter(|key| self.followed.get(*key).is_some_and(|rhythm| rhythm.visitor == visitor))
        {
            self.followed.remove(key);
        }
    }

    /// Counts the visits that have not come though they were due; those that are trusted are told of.
    pub(super) fn settle(&mut self, now: Moment, mut missed: impl FnMut(Due)) {
        self.followed.retain(|_, rhythm| {
            while now > rhythm.expected(0.0).1 && rhythm.trust >= GIVEN_UP {
                if rhythm.is_trusted() {
                    missed(Due { model: rhythm.model, came: false });
                }
                rhythm.miss();
            }
            rhythm.trust >= GIVEN_UP
        });
    }

    /// Those that are acted on.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &Rhythm> {
        self.followed.iter().map(|(_, rhythm)| rhythm).filter(|rhythm| rhythm.is_trusted())
    }

    /// When the next visit to a model is expected the earliest, where all visits to it that are known of keep to a period and
    /// hardly any comes beside it.
    pub(super) fn silent_until(&self, model: ModelId) -> Option<Moment> {
        let mut own = self.trusted().filter(|rhythm| rhythm.model == model).peekable();
        let earliest = |rhythm: &Rhythm| (rhythm.beside < SELDOM).then_some(rhythm.expected(0.0).0);
        own.peek()?;
        own.try_fold(None, |least: Option<Moment>, rhythm| {
            let due = earliest(rhythm)?;
            Some(Some(least.map_or(due, |least| least.min(due))))
        })?
    }

    /// The models of requests without a session that are due now, the nearest to its time first.
    pub(super) fn due(&self, now: Moment) -> SmallVec<[(ModelId, f64); 8]> {
        let of_nobody = self.trusted().filter(|rhythm| matches!(rhythm.visitor, Visitor::Nobody(_)));
        let near = of_nobody.map(|rhythm| (rhythm.model, rhythm.off(now) / rhythm.leeway()));
        let mut due: SmallVec<[_; 8]> = near.filter(|(_, off)| *off <= 1.0).collect();
        due.sort_unstable_by(|one, other| one.1.total_cmp(&other.1));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(4);
    const VISITOR: Visitor = Visitor::Nobody(MODEL);

    fn at(seconds: f64) -> Moment {
        Moment::default() + Duration::from_secs_f64(seconds)
    }

    /// A value that strays from zero by about one.
    fn stray(random: &mut fastrand::Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    /// Visits at those times; how many were due and came, and how many were due and did not.
    fn visited(rhythms: &mut Rhythms, times: &[f64]) -> (usize, usize) {
        let (mut visits, mut came, mut missed) = (Visits::default(), 0, 0);
        for time in times {
            rhythms.settle(at(*time), |_| missed += 1);
            came += usize::from(rhythms.visit(&mut visits, VISITOR, MODEL, at(*time)).is_some());
        }
        (came, missed)
    }

    fn timer(random: &mut fastrand::Rng, period: f64, count: usize) -> Vec<f64> {
        let step = |time: &mut f64, gap: f64| {
            *time += gap;
            Some(*time)
        };
        let gaps: Vec<_> = (0..count).map(|_| period * (1.0 + 0.02 * stray(random))).collect();
        gaps.into_iter().scan(100.0, step).collect()
    }

    #[test]
    fn a_timer_is_found_and_its_next_visit_known() {
        let mut random = fastrand::Rng::with_seed(1);
        for period in [300.0, 900.0, 3600.0] {
            let mut rhythms = Rhythms::default();
            let times = timer(&mut random, period, 100);
            let (came, missed) = visited(&mut rhythms, &times);
            assert!(
                came >= 80 && missed <= 8,
                "of 100 visits every {period} s {came} came when due, {missed} did not"
            );
            let rhythm = rhythms.trusted().next().unwrap();
            assert!((rhythm.period / period - 1.0).abs() < 0.03, "{}", rhythm.period);
            let (from, until) = rhythm.expected(20.0);
            let due = times.last().unwrap() + period;
            assert!(
                from < at(due - 20.0)
                    && from > at(due - 20.0 - 0.15 * period)
                    && until < at(due + 0.16 * period)
            );
        }
    }

    #[test]
    fn a_timer_is_found_among_other_visits() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut times = timer(&mut random, 600.0, 200);
        times.extend((0..100).map(|_| random.f64() * 120_000.0));
        times.sort_by(f64::total_cmp);
        let mut rhythms = Rhythms::default();
        let (came, missed) = visited(&mut rhythms, &times);
        assert!(came > 120 && missed < came / 5, "{came} came, {missed} did not");
    }

    #[test]
    fn a_timer_that_stops_is_given_up() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut rhythms = Rhythms::default();
        let times = timer(&mut random, 300.0, 30);
        visited(&mut rhythms, &times);
        assert_eq!(rhythms.trusted().count(), 1);
        rhythms.settle(at(times.last().unwrap() + 330.0 * 2.0), |_| ());
        assert_eq!(rhythms.trusted().count(), 0, "it is no longer acted on after two that did not come");
        rhythms.settle(at(times.last().unwrap() + 330.0 * 8.0), |_| ());
        assert!(rhythms.followed.is_empty());
    }

    #[test]
    fn chance_is_seldom_taken_for_a_timer() {
        let mut random = fastrand::Rng::with_seed(4);
        let (mut trusted, mut looked) = (0, 0);
        for _ in 0..200 {
            let mut time = 0.0;
            let gap = |random: &mut fastrand::Rng| -1800.0 * random.f64().max(1e-9).ln();
            let times: Vec<_> = (0..100)
                .map(|_| {
                    time += gap(&mut random);
                    time
                })
                .collect();
            let mut rhythms = Rhythms::default();
            visited(&mut rhythms, &times);
            looked += 1;
            trusted += rhythms.trusted().count();
        }
        assert!(trusted * 12 <= looked, "{trusted} of {looked}");
    }

    #[test]
    fn requests_of_one_visit_count_once() {
        let mut rhythms = Rhythms::default();
        let times =
            (0..10).flat_map(|turn| (0..20).map(move |step| f64::from(turn) * 300.0 + f64::from(step) * 0.2));
        let times: Vec<_> = times.collect();
        let (came, missed) = visited(&mut rhythms, &times);
        assert!(came >= 4 && missed == 0, "{came} {missed}");
    }

    #[test]
    fn a_visitor_that_asks_for_something_else_is_forgotten() {
        let (mut rhythms, mut visits) = (Rhythms::default(), Visits::default());
        for turn in 0..10 {
            rhythms.visit(&mut visits, VISITOR, MODEL, at(f64::from(turn) * 60.0));
        }
        assert_eq!(rhythms.trusted().count(), 1);
        rhythms.forget(&mut visits, VISITOR);
        assert!(rhythms.followed.is_empty() && visits.times.is_empty());
    }
}
