//! What the trace is made of: each number, and where it comes from.

use std::time::Duration;

use super::chance::Chance;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A model of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Its size in memory.
    pub bytes: u64,
    /// Time that its load takes.
    pub load: Duration,
}

/// The shape of a trace.
///
/// What is fitted, is fitted to Alibaba's public trace of image generation (26,823 requests in 23 days for 86 models, each with
/// its user), which may not be shipped; timers are those of Azure's functions. What is free (users, length and number of
/// sessions) was chosen once: sessions ask 150 times an hour, so that the timers' 63 calls are 30 % of the requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Models in the catalogue: 100.
    pub models: usize,
    /// Exponent of Zipf's law over the models that people ask for: 1.2. Fitted: 1.6 over the first 20, flatter variants are
    /// harder.
    pub zipf: f64,
    /// How long the trace is: 7 days.
    pub length: Duration,
    /// People, each with a key of his own: 200. Free; who comes back goes on from the model that he used last.
    pub users: usize,
    /// Sessions a day: 300. Free.
    pub sessions_a_day: f64,
    /// Requests of a session, on average; geometric: 12. Free.
    pub requests_a_session: f64,
    /// How variable the time between the beginnings of sessions is (coefficient of variation, gamma): 3. Fitted: the median
    /// of models.
    pub variation: f64,
    /// Probability that a request is for the model of the user's request before: 0.72, fitted. Otherwise the model is drawn by
    /// popularity, and may be the same again.
    pub stay: f64,
    /// Median time between two requests of a session: 73 s, fitted.
    pub gap: Duration,
    /// Sigma of its logarithm: 1.768, which puts the 90th percentile at the fitted 704 s.
    pub gap_sigma: f64,
    /// Sessions begin in proportion to `max(0, day + sin(time of day))`: 0.8, which leaves the five dead hours of a day that
    /// the trace has.
    pub day: f64,
    /// Share of the models that timers alone ask for: 0.1.
    pub timers: f64,
    /// Their periods, in turn: 5, 15 and 60 minutes.
    pub periods: Vec<Duration>,
    /// Standard deviation of the time between two calls of a timer, as a share of its period: 0.02.
    pub jitter: f64,
    /// Every so often the popularity drifts: 6 hours.
    pub drift: Duration,
    /// Share of the models that swap their ranks then: 0.1.
    pub drifting: f64,
    /// When every model is asked for once, in the order of the catalogue: at the middle of the fourth day.
    pub scan: Option<Duration>,
    /// When models of just over [`looped`](Self::looped) of the catalogue's bytes are asked for in turn: at the middle of
    /// the sixth day.
    pub looping: Option<Duration>,
    /// Share of the catalogue's bytes that the loop does not fit into: 0.1.
    pub looped: f64,
    /// Rounds of the loop: 5.
    pub rounds: usize,
    /// Time between two requests of the scan and of the loop: 20 s.
    pub step: Duration,
    /// Median size of a model: 4 GB.
    pub bytes: f64,
    /// Sigma of the logarithm of sizes: 0.7.
    pub bytes_sigma: f64,
    /// What every load takes, whatever the size: 2 s.
    pub load: Duration,
    /// Bytes that a load reads in a second, before the model's own factor: 0.5 GB.
    pub bandwidth: f64,
    /// Between which the factor on the time that reading takes lies, uniform: 0.6 to 1.6. It is the model's own: its format, and
    /// where it lies.
    pub slowness: (f64, f64),
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            models: 100,
            zipf: 1.2,
            length: Duration::from_secs(7 * 24 * HOUR),
            users: 200,
            sessions_a_day: 300.0,
            requests_a_session: 12.0,
            variation: 3.0,
            stay: 0.72,
            gap: Duration::from_secs(73),
            gap_sigma: 1.768,
            day: 0.8,
            timers: 0.1,
            periods: [5, 15, 60].map(|minutes| Duration::from_secs(minutes * MINUTE)).to_vec(),
            jitter: 0.02,
            drift: Duration::from_secs(6 * HOUR),
            drifting: 0.1,
            scan: Some(Duration::from_secs((3 * 24 + 12) * HOUR)),
            looping: Some(Duration::from_secs((5 * 24 + 12) * HOUR)),
            looped: 0.1,
            rounds: 5,
            step: Duration::from_secs(20),
            bytes: 4e9,
            bytes_sigma: 0.7,
            load: Duration::from_secs(2),
            bandwidth: 0.5e9,
            slowness: (0.6, 1.6),
        }
    }
}

impl Shape {
    /// A catalogue of this shape.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are positive and far below 2^63"
    )]
    pub(super) fn catalogue(&self, seed: u64) -> Vec<Model> {
        let mut chance = Chance::new(seed, 0);
        let mut model = |_| {
            let bytes = chance.log_normal(self.bytes, self.bytes_sigma);
            let reading = bytes / self.bandwidth * chance.between(self.slowness.0, self.slowness.1);
            Model { bytes: bytes as u64, load: self.load + Duration::from_secs_f64(reading) }
        };
        (0..self.models).map(&mut model).collect()
    }
}
