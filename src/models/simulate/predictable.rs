//! How often a trace can be predicted at best: what its numbers allow.

use super::shape::Shape;

/// The share of requests whose model can be among two that are named before.
///
/// Whoever knows the popularity names the model that the session used last, and the most popular other one. A session stays
/// with probability `stay`; else it draws, and draws its last model or that other one by their popularity. The last model was
/// drawn itself, so it has each model with its popularity. A timer's request is always foreseen, and comes when it is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predictable {
    /// Of requests of sessions.
    pub sessions: f64,
    /// Of requests of sessions and timers; the few of the scan and of the loop are left out.
    pub both: f64,
}

impl Predictable {
    /// What a shape allows.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred models"
    )]
    pub fn of(shape: &Shape) -> Self {
        let timers = (shape.models as f64 * shape.timers).round();
        let ranks = shape.models - timers as usize;
        let weights: Vec<_> = (1..=ranks).map(|rank| (rank as f64).powf(-shape.zipf)).collect();
        let sum: f64 = weights.iter().sum();
        let popularity: Vec<_> = weights.iter().map(|weight| weight / sum).collect();
        // By rank of the last model: that one, and the first of all the others.
        let drawn = popularity.iter().enumerate().map(|(rank, last)| {
            let other = popularity.get(usize::from(rank == 0)).copied().unwrap_or_default();
            last * (last + other)
        });
        let sessions = shape.stay + (1.0 - shape.stay) * drawn.sum::<f64>();
        let asked = shape.sessions_a_day * shape.requests_a_session;
        let periods = shape.periods.iter().cycle().take(timers as usize);
        let called: f64 = periods.map(|period| 24.0 * 3600.0 / period.as_secs_f64()).sum();
        Self { sessions, both: (asked * sessions + called) / (asked + called) }
    }
}
