//! What comes at the same time, or in an order that nobody meant.

use super::*;

#[test]
fn two_preloads_of_one_model_are_one_load() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let (one, two) = (
        yard.cache.preload(&[id, id], Cause::Preload, Priority::Normal),
        yard.cache.preload(&[id], Cause::Start, Priority::Low),
    );
    let told = watch(&one);
    assert_eq!(yard.begun(), ["a"]);
    yard.finish("a");
    assert!(one.is_done() && two.is_done());
    assert!(well(&told));
    assert!(well(&watch(&two)), "also who asks later");
}

#[test]
fn a_preload_that_is_cancelled_cancels_what_runs_for_it_alone() {
    let yard = Yard::with(CacheSettings { max_loads: 2, ..settings(None) });
    let ids: Vec<_> = ["a", "b", "c"].map(|name| yard.model(name, 1, &[])).to_vec();
    let preload = yard.cache.preload(&ids, Cause::Preload, Priority::Normal);
    let told = watch(&preload);
    let client = yard.ask(ids[1]);
    preload.cancel();
    yard.check();
    preload.cancel();
    assert_eq!(done(&told).unwrap().unwrap_err().kind(), ErrorKind::ModelNotReady);
    let a = yard.load("a");
    assert_eq!(yard.cancels(), [a.residency]);
    assert_eq!(yard.begun(), ["b"], "c was queued for nobody else");
    let b = yard.finish("b");
    assert_eq!(client.has(), Some(b));
    yard.cache.failed(a.residency, Error::new(ErrorKind::Model, "cancelled"), true);
    yard.check();
    assert_eq!((yard.state(ids[0]), yard.state(ids[2])), (LoadState::Unloaded, LoadState::Unloaded));
    assert_eq!(yard.cache.stats().failures, 0, "what was cancelled has not failed");
}

#[test]
fn removed_while_leased_it_serves_its_leases_to_the_end() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    yard.cache.remove(id);
    yard.check();
    assert!(yard.unloads().is_empty() && yard.cache.index().is_empty());
    assert_eq!(yard.ask(id).error().kind(), ErrorKind::ModelNotFound);
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    assert_ne!(yard.model("a", 1, &[]), id, "numbers are not used again");
}

#[test]
fn removed_while_others_wait_for_it_they_are_told() {
    let yard = Yard::new(None);
    let encoder = yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    let client = yard.ask(head);
    yard.cache.remove(encoder);
    yard.check();
    assert!(client.error().message().contains("'head' needs 'encoder'"), "{}", client.error());
    assert_eq!(yard.ask(head).error().kind(), ErrorKind::ModelNotFound);
    yard.fail("encoder", true);
    assert_eq!(yard.used(), 0);
}

#[test]
fn a_dependency_removed_while_its_dependent_waits_for_space() {
    let yard = Yard::new(10);
    let busy = yard.model("busy", 8, &[]);
    let encoder = yard.model("encoder", 4, &[]);
    let head = yard.model("head", 4, &["encoder"]);
    yard.warm(busy);
    let lease = yard.hit(busy);
    let client = yard.ask(head);
    assert!(client.waits());
    yard.cache.remove(encoder);
    assert_eq!(client.error().kind(), ErrorKind::ModelNotFound);
    drop(lease);
}

#[test]
fn every_claim_may_be_dropped_at_any_time() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 6, &["c"]));
    yard.model("c", 1, &[]);
    for turn in 0..200_u32 {
        let clients = [yard.ask(a), yard.ask(b), yard.ask(a)];
        if turn % 3 == 0 {
            yard.finish_all();
        }
        for (at, client) in (0_u32..).zip(clients) {
            if (turn >> at) & 1 == 0 {
                drop(client);
                yard.check();
                yard.finish_all();
            }
        }
        yard.check();
    }
    yard.finish_all();
    assert!(yard.used() <= 10);
    assert_eq!(yard.row(a).leases + yard.row(b).leases, 0);
}

#[test]
fn a_retry_that_nobody_waits_for_is_not_made() {
    let yard = Yard::new(None);
    let id = yard.register(LoadSpec { retries: 5, ..spec("a", 1, &[]) });
    drop(yard.ask(id));
    yard.fail("a", true);
    yard.pass(60.0);
    assert!(yard.begun().is_empty());
    assert_eq!((yard.state(id), yard.used()), (LoadState::Unloaded, 0));
    let client = yard.ask(id);
    yard.fail("a", true);
    drop(client);
    yard.check();
    yard.pass(60.0);
    assert!(yard.begun().is_empty());
}

#[test]
fn progress_and_changes_follow_the_load() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let changes = yard.cache.changes();
    let preload = yard.cache.preload(&[a, b], Cause::Start, Priority::Normal);
    assert!(changes.has_changed().unwrap());
    assert!(!yard.cache.health().is_ready());
    let load = yard.load("a");
    yard.pass(2.0);
    assert!(yard.cache.report(load.residency, "weights", Some(0.25)));
    let progress = yard.cache.progress(a);
    assert_eq!(
        (progress.state, &*progress.phase, progress.fraction),
        (LoadState::Loading, "weights", Some(0.25))
    );
    assert_eq!((progress.elapsed, progress.eta), (secs(2.0), Some(secs(6.0))));
    assert_eq!((yard.cache.progress(b).state, yard.cache.progress(b).position), (LoadState::Queued, Some(0)));
    yard.cache.warming(load.residency);
    assert_eq!(yard.cache.progress(a).state, LoadState::Warming);
    yard.cache.loaded(load.residency, None);
    assert_eq!(yard.cache.progress(a).fraction, Some(1.0));
    assert_eq!(yard.cache.health().waiting, [b]);
    assert_eq!(preload.progress().len(), 2);
    yard.finish("b");
    assert!(yard.cache.health().is_ready());
}

#[test]
fn unloaded_while_it_loads_and_is_to_be_loaded_again_it_is_loaded_no_more() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let again = yard.cache.reload(id);
    yard.unload(id, false, None);
    assert_eq!(client.error().kind(), ErrorKind::ModelNotReady);
    assert_eq!(again.result().unwrap().unwrap_err().kind(), ErrorKind::ModelNotReady);
    yard.finish("a");
    yard.let_go();
    assert!(yard.begun().is_empty());
}

#[test]
fn what_is_told_may_panic_and_the_rest_is_told_all_the_same() {
    let yard = Yard::new(None);
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let claim = yard.cache.acquire(a, &Asked::default(), Box::new(|_| panic!("a defect of the caller")));
    let client = yard.ask(a);
    let load = yard.load("a");
    let cache = yard.cache.clone();
    let broken = std::thread::spawn(move || cache.loaded(load.residency, None)).join();
    assert!(broken.is_err());
    let other = yard.ask(b);
    assert_eq!(client.has(), Some(load.residency));
    yard.finish("b");
    assert!(other.has().is_some());
    drop(claim);
}

#[test]
fn a_pin_that_does_not_fit_leaves_what_was_registered_as_it_was() {
    let yard = Yard::new(10);
    let id = yard.model("a", 6, &[]);
    yard.warm(id);
    let large = LoadSpec { pinned: true, ..spec("a", 11, &[]) };
    assert_eq!(yard.cache.register(large).unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(yard.state(id), LoadState::Ready);
    yard.model("encoder", 6, &[]);
    let head = LoadSpec { pinned: true, ..spec("head", 5, &["encoder"]) };
    assert_eq!(yard.cache.register(head).unwrap_err().kind(), ErrorKind::Capacity);
}
