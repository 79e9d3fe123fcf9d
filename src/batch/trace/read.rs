//! Reads a trace, and makes a function of what it says of times.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use super::line::{Line, VERSION};
use crate::batch::BatchPolicy;
use crate::batch::simulate::{Arrival, Call, Service};
use crate::error::{Error, ErrorKind, Result};

/// Requests that are replayed at most: the first ones.
pub(crate) const REPLAYED: usize = 50_000;
/// Bytes of a line at most.
const LONGEST_LINE: usize = 1 << 16;

/// What a trace says.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The policy that was in force.
    pub policy: BatchPolicy,
    /// Workers that took batches.
    pub workers: usize,
    /// What came, from zero on.
    pub arrivals: Vec<Arrival>,
    /// Batches: what each cost, its rows, and how long it took.
    pub batches: Vec<(u64, usize, Duration)>,
    /// Lines that are missing.
    pub dropped: u64,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot be read, naming the line that is no line of a trace.
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |source: std::io::Error| {
            let message = format!("{} cannot be read: {source}", path.display());
            Error::with_source(ErrorKind::Config, message, source)
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut reader = BufReader::new(file);
        let mut trace: Option<Self> = None;
        for number in 1_usize.. {
            let wrong = |what: String| {
                Error::new(ErrorKind::Config, format!("{} line {number}: {what}", path.display()))
            };
            let mut bytes = Vec::new();
            let mut limited = std::io::Read::take(&mut reader, LONGEST_LINE as u64);
            limited.read_until(b'\n', &mut bytes).map_err(unreadable)?;
            // A line that was not written to its end is that of a process which was killed.
            if bytes.last() != Some(&b'\n') {
                if bytes.len() >= LONGEST_LINE {
                    return Err(wrong("it has no end".to_owned()));
                }
                break;
            }
            let line: Line = serde_json::from_slice(&bytes)
                .map_err(|_| wrong(format!("{:?} is no line of a trace", shortened(&bytes))))?;
            match trace.as_mut() {
                None => trace = Some(Self::begin(&line).map_err(wrong)?),
                Some(trace) => trace.add(&line).map_err(wrong)?,
            }
        }
        let mut trace = trace.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{} is empty: it is no trace", path.display()))
        })?;
        trace.arrivals.sort_by_key(|arrival| arrival.at);
        let first = trace.arrivals.first().map(|arrival| arrival.at).unwrap_or_default();
        trace.arrivals.iter_mut().for_each(|arrival| arrival.at -= first);
        Ok(trace)
    }

    fn begin(line: &Line) -> std::result::Result<Self, String> {
        let Line::Head { penstock_trace, workers, policy } = line else {
            return Err("a trace begins with what wrote it".to_owned());
        };
        if *penstock_trace != VERSION {
            return Err(format!(
                "this version of penstock reads traces of version {VERSION}, not {penstock_trace}"
            ));
        }
        let policy = policy.policy().ok_or("its policy contradicts itself")?;
        let workers = (*workers).clamp(1, 1_024);
        Ok(Self { policy, workers, arrivals: Vec::new(), batches: Vec::new(), dropped: 0 })
    }

    fn add(&mut self, line: &Line) -> std::result::Result<(), String> {
        let seconds = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| format!("{name}={seconds} is no time in seconds"))
        };
        match line {
            Line::Head { .. } => return Err("a trace begins once".to_owned()),
            Line::Arrival { at, rows, cost, timeout } => {
                let timeout = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
                let at = seconds("at", *at)?;
                self.arrivals.push(Arrival { at, rows: *rows, cost: *cost, timeout });
            }
            Line::Batch { batch, cost, took, .. } => {
                self.batches.push((*cost, *batch, seconds("took", *took)?));
            }
            Line::Dropped { dropped } => self.dropped = self.dropped.saturating_add(*dropped),
        }
        Ok(())
    }

    /// The rows of all that came.
    pub fn requests(&self) -> u64 {
        self.arrivals.iter().map(|arrival| u64::from(arrival.rows)).sum()
    }

    /// The first arrivals, as many as are replayed.
    pub(crate) fn replayed(&self) -> Vec<Arrival> {
        let mut rows = 0;
        let within = |arrival: &&Arrival| {
            rows += arrival.rows as usize;
            rows <= REPLAYED
        };
        self.arrivals.iter().take_while(within).copied().collect()
    }

    /// Rows of the largest batch.
    pub(crate) fn largest(&self) -> usize {
        self.batches.iter().map(|(_, rows, _)| *rows).max().unwrap_or(0)
    }
}

fn shortened(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(60).chain(['…']).collect() }
}

/// A function that takes as long as the batches of a trace did: their mean time by cost, and by chance one of the
/// distances from it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Cost and mean time, ascending.
    points: Vec<(f64, f64)>,
    ratios: Vec<f64>,
}

impl Measured {
    /// What the batches of a trace say.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there are none.
    pub fn of(trace: &Trace) -> Result<Self> {
        let mut batches: Vec<(f64, f64)> =
            trace.batches.iter().map(|(cost, _, took)| (decimal(*cost), took.as_secs_f64())).collect();
        if batches.is_empty() {
            let message = "the trace has no batch that ran whole: nothing says how long the function takes";
            return Err(Error::new(ErrorKind::Config, message));
        }
        batches.sort_by(|one, other| one.0.total_cmp(&other.0));
        let points = Self::curve(&batches);
        let mut measured = Self { points, ratios: Vec::new() };
        let ratio = |(cost, took): &(f64, f64)| {
            let mean = measured.mean(*cost);
            if mean > 0.0 { took / mean } else { 1.0 }
        };
        measured.ratios = batches.iter().map(ratio).collect();
        Ok(measured)
    }

    /// Means over groups of batches that cost about the same: powers of the sixth root of two.
    fn curve(batches: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let size = |cost: f64| (cost.max(1.0).log2() * 6.0).floor();
        let groups = batches.chunk_by(|one, other| size(one.0).total_cmp(&size(other.0)).is_eq());
        let mut points: Vec<(f64, f64)> = groups
            .map(|group| {
                let count = decimal(group.len() as u64);
                let sums = group.iter().fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
                (sums.0 / count, sums.1 / count)
            })
            .collect();
        // A larger batch that was measured faster was measured too rarely.
        let mut highest = 0.0_f64;
        for point in &mut points {
            highest = highest.max(point.1);
            point.1 = highest;
        }
        points
    }

    fn mean(&self, cost: f64) -> f64 {
        let after = self.points.partition_point(|point| point.0 < cost);
        let (before, after) =
            match (after.checked_sub(1).and_then(|at| self.points.get(at)), self.points.get(after)) {
                (Some(before), Some(after)) => (*before, *after),
                // Below the smallest that was seen: no faster than that, for nobody knows.
                (None, Some(first)) => return first.1,
                (Some(last), None) => return self.beyond(*last, cost),
                (None, None) => return 0.0,
            };
        before.1 + (after.1 - before.1) * (cost - before.0) / (after.0 - before.0).max(f64::MIN_POSITIVE)
    }

    /// Beyond the largest: as steep as the whole curve is; in proportion where there is only one point.
    fn beyond(&self, last: (f64, f64), cost: f64) -> f64 {
        let first = self.points.first().copied().filter(|first| first.0 < last.0 / 2.0).unwrap_or((0.0, 0.0));
        last.1 + (last.1 - first.1) * (cost - last.0) / (last.0 - first.0).max(f64::MIN_POSITIVE)
    }
}

impl Service for Measured {
    fn takes(&mut self, call: &Call, rng: &mut fastrand::Rng) -> Duration {
        let ratio = rng.choice(&self.ratios).copied().unwrap_or(1.0);
        Duration::try_from_secs_f64(self.mean(decimal(call.padded_cost)) * ratio).unwrap_or_default()
    }
}

#[allow(clippy::cast_precision_loss, reason = "costs stay far below 2^52")]
fn decimal(count: u64) -> f64 {
    count as f64
}
