//! What is counted for a door.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProtocol {
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

/// The counters of one door.
#[derive(Debug, Clone)]
pub struct DoorMetrics {
    connections: Gauge,
    in_flight: Gauge,
    responses: Family<ByStatus, Counter>,
    refusals: Family<ByLimit, Counter>,
    ok: Counter,
    calls: Family<ByCode, Counter>,
    calls_ok: Counter,
    accepted: Counter,
    http: Traffic,
    grpc: Traffic,
}

/// Bytes of the bodies of requests and of answers.
#[derive(Debug, Clone)]
struct Traffic {
    received: Counter,
    sent: Counter,
}

/// The name of the status code of a call that went well.
const OK: &str = "OK";

impl DoorMetrics {
    /// Counters by their names in `registry`.
    pub fn new(registry: &Registry) -> Self {
        let responses = Family::<ByStatus, Counter>::default();
        let ok = responses.get_or_create(&ByStatus { status: 200 }).clone();
        let calls = Family::<ByCode, Counter>::default();
        let calls_ok = calls.get_or_create(&ByCode { code: OK }).clone();
        let (received, sent) =
            (Family::<ByProtocol, Counter>::default(), Family::<ByProtocol, Counter>::default());
        let traffic = |protocol| Traffic {
            received: received.get_or_create(&ByProtocol { protocol }).clone(),
            sent: sent.get_or_create(&ByProtocol { protocol }).clone(),
        };
        let door = Self {
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            responses,
            refusals: Family::default(),
            ok,
            calls,
            calls_ok,
            accepted: Counter::default(),
            http: traffic("http"),
            grpc: traffic("grpc"),
        };
        let names = &mut registry.names();
        names.register("http_connections", "Connections that are open", door.connections.clone());
        names.register("http_accepted", "Connections that were let in", door.accepted.clone());
        names.register("request_bytes", "Bytes of the bodies of requests, as they were sent", received);
        names.register("response_bytes", "Bytes of the bodies of whole answers", sent);
        names.register(
            "http_requests_in_flight",
            "Inference requests that are read or answered",
            door.in_flight.clone(),
        );
        names.register("http_responses", "Answers by status", door.responses.clone());
        names.register("grpc_responses", "Calls of gRPC by status code", door.calls.clone());
        names.register(
            "http_refusals",
            "Requests and connections that a limit of the door refused",
            door.refusals.clone(),
        );
        door
    }

    /// Counts an answer.
    pub fn responded(&self, status: u16) {
        if status == 200 {
            // By far the most frequent, so it is not looked up.
            self.ok.inc();
        } else {
            self.responses.get_or_create(&ByStatus { status }).inc();
        }
    }

    /// Counts a call of gRPC by the name of its status code.
    pub fn called(&self, code: &'static str) {
        if code == OK {
            self.calls_ok.inc();
        } else {
            self.calls.get_or_create(&ByCode { code }).inc();
        }
    }

    /// Counts a connection that was let in.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// Counts the bytes of a request and of its answer.
    pub fn moved(&self, received: u64, sent: u64) {
        self.http.received.inc_by(received);
        self.http.sent.inc_by(sent);
    }

    /// As [`moved`](Self::moved), of a call of gRPC.
    pub fn moved_by_call(&self, received: u64, sent: u64) {
        self.grpc.received.inc_by(received);
        self.grpc.sent.inc_by(sent);
    }

    /// Counts what `limit` refused.
    pub fn refused(&self, limit: &'static str) {
        self.refusals.get_or_create(&ByLimit { limit }).inc();
    }

    /// Admits an inference request unless `most` are in flight; it counts as long as what comes back lives.
    pub fn admit(&self, most: usize) -> Option<InFlight> {
        // Counted from here on, and no more where that is dropped.
        let in_flight = InFlight(self.in_flight.clone());
        let before = self.in_flight.inc();
        usize::try_from(before).is_ok_and(|before| before < most).then_some(in_flight)
    }

    /// Inference requests in flight.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.get()).unwrap_or_default()
    }

    /// Brings the connections, which are counted elsewhere, up to date before the text is made.
    pub fn observe(&self, connections: usize) {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }
}

/// An inference request in flight.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_requests_fly_than_may() {
        let door = DoorMetrics::new(&Registry::new());
        let first = door.admit(2);
        let second = door.admit(2);
        assert!(first.is_some() && second.is_some());
        assert!(door.admit(2).is_none());
        assert_eq!(door.in_flight(), 2);
        drop(first);
        assert!(door.admit(2).is_some());
    }

    #[test]
    fn the_text_carries_what_the_door_counted() {
        let registry = Registry::new();
        let door = DoorMetrics::new(&registry);
        door.responded(200);
        door.responded(404);
        door.called("OK");
        door.called("NOT_FOUND");
        door.refused("max_in_flight");
        door.accepted();
        door.moved(300, 80);
        door.moved_by_call(30, 8);
        door.observe(7);
        let text = registry.text();
        for line in [
            "penstock_http_responses_total{status=\"200\"} 1",
            "penstock_http_responses_total{status=\"404\"} 1",
            "penstock_grpc_responses_total{code=\"OK\"} 1",
            "penstock_grpc_responses_total{code=\"NOT_FOUND\"} 1",
            "penstock_http_refusals_total{limit=\"max_in_flight\"} 1",
            "penstock_http_connections 7",
            "penstock_http_accepted_total 1",
            "penstock_request_bytes_total{protocol=\"http\"} 300",
            "penstock_response_bytes_total{protocol=\"grpc\"} 8",
            "penstock_http_requests_in_flight 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
