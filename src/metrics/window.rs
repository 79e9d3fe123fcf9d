//! How long requests took of late: percentiles over the last minute, which a histogram since the start cannot say.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// A slice of time; the window is made of whole ones and of the one that runs.
const SLICE: Duration = Duration::from_secs(10);
/// Slices that are looked at: the last minute, and what has passed of the present slice.
const LOOKED_AT: u64 = 7;
/// One more than are looked at, so that nobody reads what is being emptied.
const SLICES: usize = 8;
/// Each power of two is divided into so many buckets: a percentile is wrong by 1.6 % at most.
const PARTS: u64 = 32;
const PARTS_BITS: u32 = PARTS.trailing_zeros();
/// Times are counted in microseconds, up to an hour and a little.
const MOST: u64 = (1 << 32) - 1;
const BUCKETS: usize = (32 - PARTS_BITS as usize + 1) << PARTS_BITS;
/// The percentiles that are told.
const QUANTILES: [(f64, &str); 6] =
    [(0.5, "0.5"), (0.9, "0.9"), (0.95, "0.95"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1")];

/// The times of one model's requests of late. Adding one costs an atomic increment.
pub(super) struct Window {
    began: Instant,
    slices: [Slice; SLICES],
}

struct Slice {
    /// Which slice of time it holds, from 1; 0 for none.
    number: AtomicU64,
    counts: Box<[AtomicU32]>,
    /// Held by whoever empties it.
    emptying: Mutex<()>,
}

impl Window {
    pub(super) fn new() -> Self {
        let slice = || Slice {
            number: AtomicU64::new(0),
            counts: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            emptying: Mutex::default(),
        };
        Self { began: Instant::now(), slices: std::array::from_fn(|_| slice()) }
    }

    /// Adds the time of a request that ends at `now`.
    pub(super) fn add(&self, took: Duration, now: Instant) {
        let number = self.number(now);
        let Some(slice) = self.slice(number) else { return };
        slice.turn_to(number);
        if let Some(count) = slice.counts.get(bucket_of(took)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The time that each share of the requests of the last minute stayed within; `None` where there were none.
    fn quantiles(&self, now: Instant) -> Option<[f64; QUANTILES.len()]> {
        let counts = self.counts(now);
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        Some(QUANTILES.map(|(quantile, _)| at_rank(&counts, rank_of(quantile, total))))
    }

    fn counts(&self, now: Instant) -> Vec<u64> {
        let mut counts = vec![0; BUCKETS];
        let number = self.number(now);
        for slice in &self.slices {
            let of = slice.number.load(Ordering::Acquire);
            if of == 0 || of > number || number - of >= LOOKED_AT {
                continue;
            }
            for (sum, count) in counts.iter_mut().zip(&slice.counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        counts
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / SLICE.as_secs() + 1
    }

    fn slice(&self, number: u64) -> Option<&Slice> {
        self.slices.get(usize::try_from(number % SLICES as u64).unwrap_or_default())
    }
}

impl Slice {
    /// Empties it, where it still holds an older slice of time.
    fn turn_to(&self, number: u64) {
        if self.number.load(Ordering::Acquire) >= number {
            return;
        }
        let _held = self.emptying.lock();
        if self.number.load(Ordering::Acquire) < number {
            self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            self.number.store(number, Ordering::Release);
        }
    }
}

/// The bucket of a time: exact below the first power of two that is divided, then by its leading bits.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(MOST).min(MOST);
    let bucket = if micros < PARTS {
        micros
    } else {
        let power = u64::from(micros.ilog2() - PARTS_BITS);
        (power + 1) * PARTS + (micros >> power) - PARTS
    };
    usize::try_from(bucket).unwrap_or_default()
}

/// The middle of a bucket, in seconds.
#[allow(clippy::cast_precision_loss, reason = "there are far less than 2^52 microseconds")]
fn middle(bucket: u64) -> f64 {
    let (first, width) = if bucket < PARTS {
        (bucket, 1)
    } else {
        let power = bucket / PARTS - 1;
        ((PARTS + bucket % PARTS) << power, 1 << power)
    };
    (first as f64 + f64::from(width) / 2.0) / 1e6
}

/// Which of so many, from 1, in their order has that share of them up to it.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a minute has far less than 2^52 requests, and a share is not below zero"
)]
fn rank_of(quantile: f64, total: u64) -> u64 {
    ((quantile * total as f64).ceil() as u64).clamp(1, total)
}

fn at_rank(counts: &[u64], rank: u64) -> f64 {
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    middle(place.unwrap_or_default() as u64)
}

/// By the name of the model.
type Named = Vec<(String, Arc<Window>)>;

/// The windows of all models, for the text of the metrics.
#[derive(Clone, Default)]
pub(super) struct Windows(Arc<Mutex<Named>>);

impl Windows {
    /// That of a model.
    pub(super) fn of(&self, model: &str) -> Arc<Window> {
        let mut known = self.0.lock();
        if let Some((_, window)) = known.iter().find(|(name, _)| name == model) {
            return Arc::clone(window);
        }
        let window = Arc::new(Window::new());
        known.push((model.to_owned(), Arc::clone(&window)));
        window
    }

    pub(super) fn forget(&self, model: &str) {
        self.0.lock().retain(|(name, _)| name != model);
    }
}

impl fmt::Debug for Windows {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Windows")
    }
}

impl Collector for Windows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let known = self.0.lock().clone();
        let now = Instant::now();
        let told: Vec<_> =
            known.iter().filter_map(|(model, window)| Some((model, window.quantiles(now)?))).collect();
        if told.is_empty() {
            return Ok(());
        }
        let help = "Time that a share of the requests of the last minute stayed within.";
        // A summary without its sum: the library has no such type, and the label is reserved for those of others.
        let mut metric =
            encoder.encode_descriptor("request_seconds_quantile", help, None, MetricType::Unknown)?;
        for (model, seconds) in told {
            for ((_, quantile), seconds) in QUANTILES.iter().zip(seconds) {
                let labels = [("model", model.as_str()), ("quantile", *quantile)];
                ConstGauge::new(seconds).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "there are far less than 2^52 microseconds")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn percentiles_are_those_of_the_last_minute() {
        let window = Window::new();
        let began = window.began;
        assert_eq!(window.quantiles(began), None);
        for number in 1..=1000 {
            window.add(micros(number * 100), began + Duration::from_secs(3));
        }
        let near =
            |seconds: f64, wanted: f64| assert!((seconds / wanted - 1.0).abs() < 0.02, "{seconds} {wanted}");
        for after in [3, 20, 62] {
            let [half, nine, _, ninety_nine, last, most] =
                window.quantiles(began + Duration::from_secs(after)).unwrap();
            near(half, 0.05);
            near(nine, 0.09);
            near(ninety_nine, 0.099);
            near(last, 0.0999);
            near(most, 0.1);
        }
        assert_eq!(window.quantiles(began + Duration::from_secs(75)), None, "it is past");
        window.add(micros(7), began + Duration::from_secs(83));
        let [half, ..] = window.quantiles(began + Duration::from_secs(84)).unwrap();
        assert!((half - 7.5e-6).abs() < 1e-9, "what was there before is forgotten: {half}");
    }

    #[test]
    fn a_turn_loses_nothing_that_comes_after_it() {
        let window = Arc::new(Window::new());
        let at = window.began + Duration::from_secs(200);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let window = Arc::clone(&window);
                std::thread::spawn(move || (0..10_000).for_each(|_| window.add(micros(50), at)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(window.counts(at).iter().sum::<u64>(), 40_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_bucket_is_near_its_times(time in 0_u64..u64::MAX / 2) {
            let bucket = bucket_of(micros(time));
            prop_assert!(bucket < BUCKETS);
            let time = time.min(MOST) as f64 / 1e6;
            let off = (middle(bucket as u64) - time).abs();
            prop_assert!(off <= 0.5e-6_f64.max(time * 0.0161), "{time} {off}");
        }

        #[test]
        fn longer_times_are_in_later_buckets(one in 0_u64..1 << 33, other in 0_u64..1 << 33) {
            let (least, most) = (one.min(other), one.max(other));
            prop_assert!(bucket_of(micros(least)) <= bucket_of(micros(most)));
        }
    }
}
