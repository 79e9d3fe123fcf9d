//! Unloading by name.

use super::*;

#[test]
fn others_that_need_it_are_named() {
    let yard = Yard::new(None);
    let encoder = yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    yard.warm(head);
    let error = done(&yard.unload(encoder, false, None)).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("'head'"), "{error}");
    assert_eq!(yard.state(encoder), LoadState::Ready);
    let told = yard.unload(encoder, true, None);
    yard.let_go();
    yard.let_go();
    assert!(well(&told));
}

#[test]
fn mlserver_reload_drains_inflight() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let old = lease.has().unwrap();
    let reload = yard.cache.reload(id);
    let fresh = yard.finish("a");
    assert!(reload.is_done() && yard.unloads().is_empty());
    assert_eq!(yard.hit(id).has(), Some(fresh));
    drop(lease);
    assert_eq!(yard.unloads(), [old]);
}

#[test]
fn leases_may_last_for_drain_and_then_it_is_told_and_goes_on() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let told = yard.unload(id, false, Some(10.0));
    assert_eq!(yard.state(id), LoadState::Draining);
    yard.pass(11.0);
    let error = done(&told).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.message().contains("drain=10 seconds: 1 leases last"), "{error}");
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    assert_eq!(yard.state(id), LoadState::Unloaded);
}

#[test]
fn lswap_946_request_during_ttl_unload() {
    let yard = Yard::new(1);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let told = yard.unload(id, false, None);
    let client = yard.ask(id);
    assert!(client.waits());
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    assert!(well(&told));
    let fresh = yard.finish("a");
    assert_eq!(client.has(), Some(fresh));
}

#[test]
fn triton_3583_unload_between_load_and_use() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let residency = yard.finish("a");
    let told = yard.unload(id, false, None);
    assert!(yard.unloads().is_empty(), "it is leased to who waited for it");
    assert_eq!(client.has(), Some(residency));
    drop(client);
    assert_eq!(yard.unloads(), [residency]);
    assert!(done(&told).is_none());
    yard.cache.unloaded(residency, 0);
    assert!(well(&told));
}

#[test]
fn who_waits_for_a_load_that_is_unloaded_is_told() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let preload = yard.cache.preload(&[id], Cause::Preload, Priority::Normal);
    let told = yard.unload(id, false, None);
    assert_eq!(client.error().kind(), ErrorKind::ModelNotReady);
    assert_eq!(preload.result().unwrap().unwrap_err().kind(), ErrorKind::ModelNotReady);
    let old = yard.load("a");
    assert_eq!(yard.cancels(), [old.residency]);
    assert!(done(&told).is_none(), "its loader runs");
    // Who asks now waits for a load of its own, which begins when the old one has ended.
    let client = yard.ask(id);
    assert!(yard.begun().is_empty() && client.waits());
    yard.cache.loaded(old.residency, None);
    yard.check();
    assert_eq!(yard.unloads(), [old.residency], "what came too late is let go at once");
    let fresh = yard.finish("a");
    assert_eq!(client.has(), Some(fresh));
    yard.cache.unloaded(old.residency, 0);
    assert!(well(&told));
}

#[test]
fn a_cancelled_load_that_hangs_is_told_to_who_waits_for_the_next() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    drop(yard.ask(id));
    let told = yard.unload(id, false, None);
    let client = yard.ask(id);
    yard.pass(30.0);
    assert_eq!(client.error().kind(), ErrorKind::LoadTimeout);
    assert!(well(&told), "there is nothing more to wait for");
    assert_eq!(yard.cache.health().stuck, [id]);
    let residency = yard.fail("a", false);
    assert!(yard.cache.health().stuck.is_empty());
    yard.pass(10.0);
    let client = yard.ask(id);
    assert_ne!(yard.finish("a"), residency);
    assert!(client.has().is_some());
}

#[test]
fn what_is_not_there_is_unloaded_at_once() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    assert!(well(&yard.unload(id, false, None)));
    assert_eq!(
        done(&yard.unload(ModelId(7), false, None)).unwrap().unwrap_err().kind(),
        ErrorKind::ModelNotFound
    );
}

#[test]
fn dependents_that_load_are_unloaded_with_it() {
    let yard = Yard::new(None);
    let encoder = yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    let client = yard.ask(head);
    yard.finish("encoder");
    let load = yard.load("head");
    assert_eq!(done(&yard.unload(encoder, false, None)).unwrap().unwrap_err().kind(), ErrorKind::Config);
    let told = yard.unload(encoder, true, None);
    assert_eq!(client.error().kind(), ErrorKind::ModelNotReady);
    assert_eq!(yard.cancels(), [load.residency]);
    assert!(yard.unloads().is_empty(), "it is held until the load on top of it has ended");
    yard.cache.failed(load.residency, Error::new(ErrorKind::Model, "cancelled"), true);
    assert_eq!(yard.let_go(), 1);
    assert!(well(&told));
}

#[test]
fn two_unloads_are_both_told() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let told = [yard.unload(id, false, None), yard.unload(id, false, None)];
    yard.let_go();
    assert!(told.iter().all(well));
}
