//! When a batch is cut: one pure function, used by the threads, the tests and every door alike.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::Moment;
use crate::tensor::Padding;

/// When a free worker may take what is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// At the end of the tick in which requests came: a lone request never waits, a burst becomes one batch.
    Tick,
    /// When the batch is full or its first request has waited `max_wait`, whichever comes first.
    Window,
}

/// A cap on the size of a batch that is learned while batches run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adaptive {
    /// The cap never falls below this, but where memory runs out; [`BatchPolicy::max_size`] is what it never exceeds.
    pub low: usize,
    /// Time from submission to answer that batches must leave room for; without it the cap falls only where memory runs out.
    pub target: Option<Duration>,
}

/// What requests cost, where they do not all cost the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Cost of one batch at most. A padded batch costs its rows times its longest row.
    pub max_batch: Option<u64>,
    /// Cost of all that wait at most; one more is refused.
    pub max_queue: Option<u64>,
    /// Rows of different lengths share batches, filled up to the longest.
    pub padding: Option<Padding>,
}

/// How requests become batches.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchPolicy {
    /// Requests worth a call before `max_wait` has passed; 1 holds nothing back.
    pub min_size: usize,
    /// Requests in one call at most.
    pub max_size: usize,
    /// How the cap moves below `max_size`; `None` where it stands.
    pub adaptive: Option<Adaptive>,
    /// Sizes that the function likes best, ascending: a batch is cut to the largest of them that waits.
    pub preferred: Vec<usize>,
    /// Longest time that a request is held back for company.
    pub max_wait: Duration,
    /// When a free worker may take what is waiting.
    pub dispatch: Dispatch,
    /// Requests waiting at most; one more is refused.
    pub max_queue: usize,
    /// What requests cost; `None` where each costs the same.
    pub budget: Option<Budget>,
    /// Time after which a waiting request counts as one of the next higher priority, and goes before younger ones that
    /// have a deadline.
    pub aging: Duration,
    /// Shares of tenants by name, where any are given; everyone else has a share of 1.
    pub weights: Vec<(String, f64)>,
    /// A batch holds the rows of one request, and of no other: nothing is gathered.
    pub alone: bool,
}

impl BatchPolicy {
    /// Refuses a policy that contradicts itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the settings that do not fit each other.
    pub fn check(&self) -> Result<()> {
        let complaint = if self.max_size == 0 {
            "max_batch_size must be at least 1, not 0".to_owned()
        } else if self.min_size == 0 {
            "min_batch_size must be at least 1, not 0".to_owned()
        } else if self.min_size > self.max_size {
            format!("min_batch_size={} is above max_batch_size={}", self.min_size, self.max_size)
        } else if self.max_queue == 0 {
            "max_queue must be at least 1, not 0".to_owned()
        } else if self.min_size > self.max_queue {
            format!("min_batch_size={} can never wait in max_queue={}", self.min_size, self.max_queue)
        } else if self.dispatch == Dispatch::Window && self.max_wait.is_zero() {
            "max_wait=0 leaves dispatch='window' no window; use dispatch='tick'".to_owned()
        } else if self.min_size > 1 && self.max_wait.is_zero() {
            format!("min_batch_size={} can hold nothing back with max_wait=0", self.min_size)
        } else if self.aging.is_zero() {
            "aging must be above 0 seconds, not 0".to_owned()
        } else if let Some(size) = self.preferred.iter().find(|size| !(1..=self.max_size).contains(*size)) {
            format!("preferred_batch_sizes: {size} is not between 1 and max_batch_size={}", self.max_size)
        } else if let Some((tenant, weight)) = self.weights.iter().find(|(_, weight)| !is_share(*weight)) {
            format!("weights: the share of '{tenant}' must be a number above 0, not {weight}")
        } else if let Some(adaptive) =
            self.adaptive.filter(|adaptive| !(1..=self.max_size).contains(&adaptive.low))
        {
            format!("smallest={} is not between 1 and largest={}", adaptive.low, self.max_size)
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, complaint))
    }
}

fn is_share(weight: f64) -> bool {
    weight.is_finite() && weight > 0.0
}

impl Default for BatchPolicy {
    /// 100 requests, 50 ms, at the end of the tick, 10,000 waiting.
    fn default() -> Self {
        Self {
            min_size: 1,
            max_size: 100,
            max_wait: Duration::from_millis(50),
            dispatch: Dispatch::Tick,
            max_queue: 10_000,
            adaptive: None,
            preferred: Vec::new(),
            budget: None,
            aging: Duration::from_secs(1),
            weights: Vec::new(),
            alone: false,
        }
    }
}

/// Why a batch was cut where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It held `max_size` requests.
    Full,
    /// Its tick ended and a worker was free.
    Tick,
    /// Its first request had waited `max_wait`.
    Window,
    /// A larger or later one would have missed the deadline of its first request.
    Deadline,
    /// Others waited that may not share a call with it.
    Key,
    /// One more request would have exceeded its budget, or wasted more of it than another call costs.
    Budget,
    /// The batcher was closing.
    Drain,
}

impl Reason {
    /// Every reason, in the order in which statistics list them.
    pub const ALL: [Reason; 7] =
        [Self::Full, Self::Tick, Self::Window, Self::Deadline, Self::Key, Self::Budget, Self::Drain];

    /// The word for it in statistics and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Tick => "tick",
            Self::Window => "window",
            Self::Deadline => "deadline",
            Self::Key => "key",
            Self::Budget => "budget",
            Self::Drain => "drain",
        }
    }
}

/// What a decision looks at: requests that may share a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// Requests waiting.
    pub waiting: usize,
    /// Requests that a batch may have now.
    pub cap: usize,
    /// What they cost.
    pub cost: u64,
    /// When the first of them came.
    pub oldest: Moment,
    /// True once a tick has ended since the first of them came.
    pub released: bool,
    /// True while the batcher closes and hands out what it still holds.
    pub closing: bool,
    /// When a batch must start to be answered by the earliest deadline among them, where there is one and enough is known.
    pub latest_start: Option<Moment>,
    /// True where they may wait for company although a worker is free: it is the last of several, half a batch waits, and
    /// all of them say by when they must be answered.
    pub deferrable: bool,
}

/// What to do with requests that may share a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A free worker may take them.
    Cut(Reason),
    /// Nothing to do before this moment, unless more come.
    HoldUntil(Moment),
    /// Nothing to do before the tick ends, unless more come.
    HoldForTick,
}

/// Decides whether a free worker may take what is waiting; `pressure.waiting` is at least 1.
///
/// Deferral to the latest safe start under load is Symphony's (<https://arxiv.org/abs/2308.07470>), bounded by `max_wait`.
pub fn verdict(policy: &BatchPolicy, pressure: &Pressure, now: Moment) -> Verdict {
    let budget = policy.budget.and_then(|budget| budget.max_batch);
    let window_end = pressure.oldest + policy.max_wait;
    let hold_end = pressure.latest_start.map_or(window_end, |start| start.min(window_end));
    let hurried = pressure.latest_start.is_some_and(|start| start <= now);
    if pressure.waiting >= pressure.cap {
        return Verdict::Cut(Reason::Full);
    }
    if pressure.closing {
        return Verdict::Cut(Reason::Drain);
    }
    match policy.dispatch {
        _ if policy.alone && pressure.released => Verdict::Cut(Reason::Tick),
        _ if policy.alone => Verdict::HoldForTick,
        Dispatch::Tick if !pressure.released => Verdict::HoldForTick,
        Dispatch::Tick if pressure.waiting >= policy.min_size => match hold_end {
            end if pressure.deferrable && pressure.latest_start.is_some() && end > now => {
                Verdict::HoldUntil(end)
            }
            _ if pressure.deferrable && hurried => Verdict::Cut(Reason::Deadline),
            _ => Verdict::Cut(Reason::Tick),
        },
        _ if hurried => Verdict::Cut(Reason::Deadline),
        _ if budget.is_some_and(|budget| pressure.cost >= budget) => Verdict::Cut(Reason::Budget),
        _ if now >= window_end => Verdict::Cut(Reason::Window),
        _ => Verdict::HoldUntil(hold_end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_nanos(milliseconds * 1_000_000)
    }

    fn pressure(waiting: usize, released: bool) -> Pressure {
        Pressure {
            waiting,
            cap: 100,
            cost: waiting as u64,
            oldest: at(100),
            released,
            closing: false,
            latest_start: None,
            deferrable: false,
        }
    }

    #[test]
    fn a_lone_request_leaves_at_the_end_of_its_tick() {
        let policy = BatchPolicy::default();
        assert_eq!(verdict(&policy, &pressure(1, false), at(100)), Verdict::HoldForTick);
        assert_eq!(verdict(&policy, &pressure(1, true), at(100)), Verdict::Cut(Reason::Tick));
    }

    #[test]
    fn a_full_batch_waits_for_nothing() {
        for dispatch in [Dispatch::Tick, Dispatch::Window] {
            let policy = BatchPolicy { dispatch, ..BatchPolicy::default() };
            assert_eq!(verdict(&policy, &pressure(100, false), at(100)), Verdict::Cut(Reason::Full));
        }
    }

    #[test]
    fn a_window_counts_from_its_first_request_to_the_nanosecond() {
        let policy = BatchPolicy { dispatch: Dispatch::Window, ..BatchPolicy::default() };
        let waiting = pressure(99, true);
        assert_eq!(verdict(&policy, &waiting, at(149)), Verdict::HoldUntil(at(150)));
        assert_eq!(verdict(&policy, &waiting, at(150)), Verdict::Cut(Reason::Window));
    }

    #[test]
    fn a_minimum_holds_a_small_batch_back_for_max_wait_only() {
        let policy = BatchPolicy { min_size: 8, ..BatchPolicy::default() };
        assert_eq!(verdict(&policy, &pressure(7, true), at(120)), Verdict::HoldUntil(at(150)));
        assert_eq!(verdict(&policy, &pressure(8, true), at(120)), Verdict::Cut(Reason::Tick));
        assert_eq!(verdict(&policy, &pressure(7, true), at(150)), Verdict::Cut(Reason::Window));
    }

    #[test]
    fn closing_hands_out_what_is_left() {
        let policy = BatchPolicy { dispatch: Dispatch::Window, ..BatchPolicy::default() };
        let waiting = Pressure { closing: true, ..pressure(3, false) };
        assert_eq!(verdict(&policy, &waiting, at(100)), Verdict::Cut(Reason::Drain));
    }

    #[test]
    fn a_deadline_ends_a_window_early() {
        let policy = BatchPolicy { dispatch: Dispatch::Window, ..BatchPolicy::default() };
        let urgent = Pressure { latest_start: Some(at(120)), ..pressure(3, true) };
        assert_eq!(verdict(&policy, &urgent, at(110)), Verdict::HoldUntil(at(120)));
        assert_eq!(verdict(&policy, &urgent, at(120)), Verdict::Cut(Reason::Deadline));
        let patient = Pressure { latest_start: Some(at(500)), ..urgent };
        assert_eq!(verdict(&policy, &patient, at(110)), Verdict::HoldUntil(at(150)));
    }

    #[test]
    fn under_load_requests_with_deadlines_wait_for_company_until_the_latest_safe_start() {
        let policy = BatchPolicy::default();
        let idle = Pressure { latest_start: Some(at(120)), ..pressure(3, true) };
        assert_eq!(verdict(&policy, &idle, at(101)), Verdict::Cut(Reason::Tick));
        let loaded = Pressure { deferrable: true, ..idle };
        assert_eq!(verdict(&policy, &loaded, at(101)), Verdict::HoldUntil(at(120)));
        assert_eq!(verdict(&policy, &loaded, at(120)), Verdict::Cut(Reason::Deadline));
        let generous = Pressure { latest_start: Some(at(30_000)), ..loaded };
        assert_eq!(verdict(&policy, &generous, at(101)), Verdict::HoldUntil(at(150)), "max_wait bounds it");
        assert_eq!(verdict(&policy, &generous, at(150)), Verdict::Cut(Reason::Tick));
        let unknown = Pressure { latest_start: None, ..loaded };
        assert_eq!(verdict(&policy, &unknown, at(101)), Verdict::Cut(Reason::Tick));
    }

    #[test]
    fn a_spent_budget_ends_a_window_and_under_tick_waits_for_whoever_fits_better() {
        let budget = Some(Budget { max_batch: Some(512), ..Budget::default() });
        let spent = Pressure { cost: 512, ..pressure(3, false) };
        let tick = BatchPolicy { budget, ..BatchPolicy::default() };
        assert_eq!(verdict(&tick, &spent, at(100)), Verdict::HoldForTick);
        let window = BatchPolicy { dispatch: Dispatch::Window, ..tick };
        assert_eq!(verdict(&window, &spent, at(100)), Verdict::Cut(Reason::Budget));
        let left = Pressure { cost: 511, ..spent };
        assert_eq!(verdict(&window, &left, at(100)), Verdict::HoldUntil(at(150)));
    }

    fn refusal(change: impl FnOnce(&mut BatchPolicy)) -> String {
        let mut policy = BatchPolicy::default();
        change(&mut policy);
        let error = policy.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.message().to_owned()
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        assert!(BatchPolicy::default().check().is_ok());
        assert!(refusal(|policy| policy.max_size = 0).contains("max_batch_size"));
        assert!(refusal(|policy| policy.min_size = 0).contains("min_batch_size"));
        assert!(refusal(|policy| policy.min_size = 101).contains("min_batch_size=101"));
        assert!(refusal(|policy| policy.max_queue = 0).contains("max_queue"));
        let too_small = |policy: &mut BatchPolicy| (policy.min_size, policy.max_queue) = (50, 49);
        assert!(refusal(too_small).contains("max_queue=49"));
        let no_window = |policy: &mut BatchPolicy| {
            (policy.dispatch, policy.max_wait) = (Dispatch::Window, Duration::ZERO);
        };
        assert!(refusal(no_window).contains("dispatch='tick'"));
        assert!(refusal(|policy| policy.aging = Duration::ZERO).contains("aging"));
        assert!(refusal(|policy| policy.preferred = vec![8, 101]).contains("101"));
        assert!(refusal(|policy| policy.weights = vec![("a".to_owned(), 0.0)]).contains("'a'"));
        let low = |policy: &mut BatchPolicy| policy.adaptive = Some(Adaptive { low: 101, target: None });
        assert!(refusal(low).contains("smallest=101"));
        let no_time = |policy: &mut BatchPolicy| (policy.min_size, policy.max_wait) = (2, Duration::ZERO);
        assert!(refusal(no_time).contains("max_wait=0"));
    }
}
