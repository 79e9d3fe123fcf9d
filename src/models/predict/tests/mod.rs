//! The predictor as a whole.

mod end_to_end;
mod limits;
mod traffic;

use std::time::Duration;

use super::*;

const BEGIN: Moment = Moment::from_nanos(0);

fn at(seconds: f64) -> Moment {
    BEGIN + Duration::from_secs_f64(seconds)
}

fn predictor(settings: PredictSettings) -> Predictor {
    Predictor::new(settings).unwrap()
}

/// Every model can be loaded, and is small.
#[expect(clippy::unnecessary_wraps, reason = "it stands where a model may not be one to load")]
fn small(_: ModelId) -> Option<Prospect> {
    Some(Prospect { bytes: 10, load_seconds: 5.0 })
}
