//! Limits that calls share with HTTP.

use penstock::batch::BatchPolicy;
use penstock::serve::HttpSettings;
use penstock::wire::grpc::framed;

use crate::harness::{Client, Door, INFER, LIVE, Setup, one, raw};

const RESOURCE_EXHAUSTED: u8 = 8;

#[test]
fn a_full_queue_is_an_exhausted_resource() {
    let policy = BatchPolicy { max_queue: 2, max_size: 1, ..BatchPolicy::default() };
    let door = Door::with(Setup { policy, ..Setup::default() });
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let queued = [client.call(INFER, one(2.0)), client.call(INFER, one(3.0))];
    door.wait_queued(2);
    let refused = client.call(INFER, one(4.0)).end();
    assert_eq!(refused.code, Some(RESOURCE_EXHAUSTED));
    assert!(refused.message.contains("max_queue=2"), "{}", refused.message);
    let many = client.call(INFER, framed(&raw(&[0.0; 3]))).end();
    assert_eq!(many.code, Some(3), "no wait would help: {}", many.message);
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    for (call, number) in queued.into_iter().zip([4.0, 6.0]) {
        assert_eq!(call.end().numbers(), [number]);
    }
}

#[test]
fn no_more_calls_fly_than_may_and_questions_are_still_answered() {
    let http = HttpSettings { max_in_flight: 2, ..HttpSettings::default() };
    let door = Door::with(Setup { http, ..Setup::default() });
    let client = Client::open(door.address());
    door.gate.close();
    let running = client.call(INFER, one(1.0));
    door.wait_taken(1);
    let queued = client.call(INFER, one(2.0));
    door.wait_queued(1);
    let refused = client.call(INFER, one(3.0)).end();
    assert_eq!(refused.code, Some(RESOURCE_EXHAUSTED));
    assert!(refused.message.contains("max_in_flight=2"), "{}", refused.message);
    assert_eq!(client.call(LIVE, [0; 5].to_vec()).end().code, Some(0));
    door.gate.open();
    assert_eq!(running.end().numbers(), [2.0]);
    assert_eq!(queued.end().numbers(), [4.0]);
    assert_eq!(door.refused("max_in_flight"), 1);
}
