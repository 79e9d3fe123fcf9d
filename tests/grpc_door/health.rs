//! The standard health service.

use std::time::Duration;

use bytes::Bytes;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::health::health_check_response::ServingStatus;
use penstock::wire::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListResponse};
use prost::Message;

use crate::harness::{Client, Door, Setup, until};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/grpc.health.v1.Health/List";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const NAMES: [&str; 3] = ["", "inference.GRPCInferenceService", "double"];

fn asked(service: &str) -> Bytes {
    framed(&HealthCheckRequest { service: service.to_owned() })
}

fn status(message: Bytes) -> ServingStatus {
    HealthCheckResponse::decode(message).unwrap().status()
}

#[test]
fn all_and_each_say_whether_they_serve() {
    let door = Door::open();
    let client = Client::open(door.address());
    for (ready, expected) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        door.endpoint.set_ready(ready);
        for name in NAMES {
            let ended = client.call(CHECK, asked(name)).end();
            assert_eq!(ended.code, Some(0));
            assert_eq!(status(ended.messages[0].clone()), expected, "{name}");
        }
        let ended = client.call(LIST, [0; 5].to_vec()).end();
        let list = HealthListResponse::decode(ended.messages[0].clone()).unwrap();
        assert_eq!(list.statuses.len(), NAMES.len());
        assert!(list.statuses.values().all(|each| each.status() == expected));
    }
    let ended = client.call(CHECK, asked("treble")).end();
    assert_eq!(ended.code, Some(5));
    assert!(ended.message.contains("'treble'"));
}

#[test]
fn whoever_watches_hears_of_every_change_and_of_nothing_else() {
    let door = Door::with(Setup { ready: false, ..Setup::default() });
    let client = Client::open(door.address());
    for name in NAMES {
        let mut watch = client.call(WATCH, asked(name));
        assert_eq!(status(watch.next().unwrap()), ServingStatus::NotServing);
        assert!(watch.is_silent(Duration::from_millis(30)));
        door.endpoint.set_ready(true);
        assert_eq!(status(watch.next().unwrap()), ServingStatus::Serving);
        door.endpoint.set_ready(true);
        assert!(watch.is_silent(Duration::from_millis(30)));
        door.endpoint.set_ready(false);
        assert_eq!(status(watch.next().unwrap()), ServingStatus::NotServing);
        watch.reset();
    }
    let mut unknown = client.call(WATCH, asked("treble"));
    assert_eq!(status(unknown.next().unwrap()), ServingStatus::ServiceUnknown);
    assert!(unknown.is_silent(Duration::from_millis(30)), "it may come to be served");
}

#[test]
fn whoever_watches_hears_that_the_server_closes_and_does_not_hold_it_up() {
    let door = Door::open();
    let client = Client::open(door.address());
    let mut watches: Vec<_> = NAMES.into_iter().map(|name| client.call(WATCH, asked(name))).collect();
    for watch in &mut watches {
        assert_eq!(status(watch.next().unwrap()), ServingStatus::Serving);
    }
    door.server.begin_close();
    for watch in watches {
        let ended = watch.end();
        assert_eq!(status(ended.messages[0].clone()), ServingStatus::NotServing);
        assert_eq!(ended.code, Some(14));
        assert!(ended.message.contains("closing"));
    }
    client.wait_closed();
    until("no connection was left", || door.inside.connections() == 0);
}
