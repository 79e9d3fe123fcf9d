//! Where an answer's time went, as `Server-Timing` says it: <https://www.w3.org/TR/server-timing/>.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use crate::pipeline::BatchAccount;

/// The parts of one answer's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// From the whole request to the moment that a worker took its batch.
    pub queue: Duration,
    /// What the batch took besides the model: it was assembled, and its results were taken apart.
    pub batch: Duration,
    /// The model's own time.
    pub model: Duration,
    /// From the results to the bytes of the answer.
    pub encode: Duration,
}

impl Parts {
    /// The parts of a request that was whole at `admitted` and whose answer was encoded at `encoded`.
    pub(super) fn of(admitted: Instant, batch: &BatchAccount, encoded: Instant) -> Self {
        Self {
            queue: batch.taken.saturating_duration_since(admitted),
            batch: batch.done.saturating_duration_since(batch.taken).saturating_sub(batch.model),
            model: batch.model,
            encode: encoded.saturating_duration_since(batch.done),
        }
    }

    /// The header's value: milliseconds, and why the batch was cut where it was.
    pub(super) fn header(self, batch: &BatchAccount) -> Option<HeaderValue> {
        let mut text = Vec::with_capacity(112);
        put(&mut text, "queue;dur=", self.queue);
        put(&mut text, ", batch;dur=", self.batch);
        text.extend_from_slice(b";desc=\"");
        text.extend_from_slice(batch.reason.as_bytes());
        text.push(b' ');
        text.extend_from_slice(itoa::Buffer::new().format(batch.rows).as_bytes());
        put(&mut text, "\", model;dur=", self.model);
        put(&mut text, ", encode;dur=", self.encode);
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

/// Milliseconds with three digits behind the point.
fn put(text: &mut Vec<u8>, name: &str, time: Duration) {
    text.extend_from_slice(name.as_bytes());
    let micros = time.as_micros();
    let mut whole = itoa::Buffer::new();
    text.extend_from_slice(whole.format(micros / 1000).as_bytes());
    let digit = |of: u128| b'0' + u8::try_from(micros / of % 10).unwrap_or_default();
    text.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_every_part_in_milliseconds() {
        let admitted = Instant::now();
        let taken = admitted + Duration::from_micros(1_250);
        let done = taken + Duration::from_micros(2_007);
        let cut = crate::batch::Cut::default();
        let batch =
            BatchAccount { taken, done, model: Duration::from_millis(2), rows: 30, reason: "tick", cut };
        let parts = Parts::of(admitted, &batch, done + Duration::from_micros(40));
        assert_eq!(
            parts.header(&batch).unwrap(),
            "queue;dur=1.250, batch;dur=0.007;desc=\"tick 30\", model;dur=2.000, encode;dur=0.040"
        );
    }
}
