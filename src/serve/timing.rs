//! Where an answer's time went, as `Server-Timing` says it: <https://www.w3.org/TR/server-timing/>.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use crate::batch::Parts;
use crate::pipeline::BatchAccount;

/// Where one answer's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long its model was on its way, where it was not there when it was asked for.
    pub load: Option<Duration>,
    /// From there, or from the whole request, to the results of its batch.
    pub parts: Parts,
    /// From the results to the bytes of the answer.
    pub encode: Duration,
}

impl Timing {
    /// That of a request that was whole at `admitted` and whose answer was encoded at `encoded`.
    pub(super) fn of(
        admitted: Instant,
        load: Option<Duration>,
        batch: &BatchAccount,
        encoded: Instant,
    ) -> Self {
        let encode = encoded.saturating_duration_since(batch.done);
        // Its workers may have the model a little before those are told who wait for it.
        let load = load.map(|load| load.min(batch.taken.saturating_duration_since(admitted)));
        Self { load, parts: without(load, batch.parts_since(admitted)), encode }
    }

    /// The header's value: milliseconds, and why the batch was cut where it was.
    pub(super) fn header(self, batch: &BatchAccount) -> Option<HeaderValue> {
        let mut text = Vec::with_capacity(160);
        if let Some(load) = self.load {
            put(&mut text, "load", load);
            text.extend_from_slice(b", ");
        }
        for (name, time) in Parts::NAMES.into_iter().zip(self.parts.each()) {
            put(&mut text, name, time);
            text.extend_from_slice(b", ");
        }
        put(&mut text, "encode", self.encode);
        text.extend_from_slice(b", batch;desc=\"");
        text.extend_from_slice(batch.reason.as_bytes());
        text.push(b' ');
        text.extend_from_slice(itoa::Buffer::new().format(batch.rows).as_bytes());
        text.push(b'"');
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

/// What is left of the parts of a request that waited for its model first: in the queue, and for a worker.
fn without(load: Option<Duration>, mut parts: Parts) -> Parts {
    let load = load.unwrap_or_default();
    let of_slot = load.min(parts.slot);
    parts.slot -= of_slot;
    parts.queue = parts.queue.saturating_sub(load.saturating_sub(of_slot));
    parts
}

/// Milliseconds with three digits behind the point.
fn put(text: &mut Vec<u8>, name: &str, time: Duration) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b";dur=");
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
        let mut batch = BatchAccount::open(30, "tick", crate::batch::Cut::default());
        batch.taken = admitted + Duration::from_micros(1_250);
        batch.called = Some(batch.taken + Duration::from_micros(4));
        batch.done = batch.taken + Duration::from_micros(2_007);
        batch.model = Duration::from_millis(2);
        let millis = crate::flow::Moment::from_nanos;
        (batch.cut.ready, batch.cut.taken) = (millis(0), millis(250_000));
        let encoded = batch.done + Duration::from_micros(40);
        let timing = Timing::of(admitted, None, &batch, encoded);
        assert_eq!(
            timing.header(&batch).unwrap(),
            "queue;dur=1.000, slot;dur=0.250, gather;dur=0.004, model;dur=2.000, scatter;dur=0.003, \
             encode;dur=0.040, batch;desc=\"tick 30\""
        );
        let late = Timing::of(admitted, Some(Duration::from_secs(1)), &batch, encoded);
        assert_eq!(late.load, Some(Duration::from_micros(1_250)), "the batch was taken by then");
        let cold = Timing::of(admitted, Some(Duration::from_micros(1_200)), &batch, encoded);
        assert_eq!(
            cold.header(&batch).unwrap(),
            "load;dur=1.200, queue;dur=0.050, slot;dur=0.000, gather;dur=0.004, model;dur=2.000, scatter;dur=0.003, \
             encode;dur=0.040, batch;desc=\"tick 30\""
        );
    }
}
