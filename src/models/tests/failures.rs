//! Loads that fail, hang, or come too late.

use super::*;

#[test]
fn a_load_is_tried_again_after_a_pause_and_who_waits_never_knows() {
    let yard = Yard::new(None);
    let id = yard.register(LoadSpec { retries: 2, ..spec("a", 1, &[]) });
    let client = yard.ask(id);
    let first = yard.fail("a", true);
    assert!(client.waits());
    assert_eq!(yard.state(id), LoadState::Queued);
    yard.pass(0.5);
    let load = yard.load("a");
    assert_eq!((load.attempt, load.residency), (2, first));
    yard.cache.failed(load.residency, Error::new(ErrorKind::Model, "again"), true);
    yard.pass(1.0);
    let load = yard.load("a");
    assert_eq!(load.attempt, 3);
    yard.cache.loaded(load.residency, None);
    assert_eq!(client.has(), Some(first));
    let stats = yard.cache.stats();
    assert_eq!((stats.retries, stats.loads, stats.failures), (2, 1, 0));
}

#[test]
fn vera_134_failure_expires() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    yard.fail("a", true);
    let error = client.error();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::LoadFailed, "model 'a' failed to load: ValueError: no such file")
    );
    assert_eq!(error.wait_before_retry(), Some(secs(5.0)));
    assert_eq!(yard.state(id), LoadState::Failed);
    assert!(yard.row(id).reason.unwrap().contains("ValueError"));
    yard.pass(4.0);
    assert_eq!(yard.ask(id).error().wait_before_retry(), Some(secs(1.0)));
    assert!(yard.begun().is_empty());
    yard.pass(1.5);
    assert_eq!(yard.state(id), LoadState::Unloaded);
    let client = yard.ask(id);
    yard.fail("a", true);
    assert_eq!(client.error().wait_before_retry(), Some(secs(10.0)), "it failed twice in a row");
    yard.pass(11.0);
    yard.warm(id);
}

#[test]
fn a_failure_is_forgiven_by_reload_and_by_a_new_registration() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    for forgive in [0, 1] {
        drop(yard.ask(id));
        yard.fail("a", false);
        assert_eq!(yard.ask(id).error().kind(), ErrorKind::LoadFailed);
        if forgive == 0 {
            drop(yard.cache.reload(id));
        } else {
            assert_eq!(yard.model("a", 1, &[]), id);
            drop(yard.ask(id));
        }
        assert_eq!(yard.begun(), ["a"]);
        yard.finish("a");
        yard.unload(id, false, None);
        yard.let_go();
    }
}

#[test]
fn the_clock_of_a_time_out_starts_with_the_load_and_not_in_the_queue() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let a = yard.register(LoadSpec { timeout: secs(100.0), ..spec("a", 1, &[]) });
    let b = yard.register(LoadSpec { timeout: secs(10.0), ..spec("b", 1, &[]) });
    let (one, two) = (yard.ask(a), yard.ask(b));
    yard.pass(50.0);
    assert!(two.waits());
    yard.finish("a");
    yard.pass(9.0);
    assert!(two.waits());
    yard.pass(2.0);
    assert_eq!(two.error().kind(), ErrorKind::LoadTimeout);
    drop(one);
}

#[test]
fn a_load_that_hangs_frees_its_slot_and_keeps_its_memory() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(Some(10)) });
    let (a, b, c) = (yard.model("a", 6, &[]), yard.model("b", 4, &[]), yard.model("c", 5, &[]));
    let (one, two) = (yard.ask(a), yard.ask(b));
    yard.pass(30.0);
    assert_eq!(one.error().kind(), ErrorKind::LoadTimeout);
    assert!(one.error().message().contains("timeout of 30 seconds"), "{}", one.error());
    assert_eq!(yard.cancels().len(), 1);
    yard.finish("b");
    assert!(two.has().is_some());
    assert_eq!(yard.cache.health().stuck, [a]);
    assert_eq!((yard.cache.stats().stuck, yard.cache.stats().timeouts, yard.used()), (1, 1, 10));
    drop(two);
    let three = yard.ask(c);
    yard.pass(200.0);
    assert_eq!(three.error().kind(), ErrorKind::Capacity, "six bytes are not known to be free");
    assert_eq!(yard.ask(a).error().kind(), ErrorKind::LoadTimeout, "no second load while the first lives");
    assert_eq!(yard.cache.reload(a).result().unwrap().unwrap_err().kind(), ErrorKind::LoadTimeout);
    yard.fail("a", false);
    assert!(yard.cache.health().stuck.is_empty());
    yard.pass(600.0);
    let again = yard.ask(a);
    assert_eq!(yard.begun(), ["a"]);
    drop(again);
}

#[test]
fn roboflow_2947_late_completion_sets_ready() {
    let yard = Yard::new(10);
    let a = yard.model("a", 6, &[]);
    let client = yard.ask(a);
    yard.pass(31.0);
    assert_eq!(client.error().kind(), ErrorKind::LoadTimeout);
    assert_eq!(yard.state(a), LoadState::Failed);
    let load = yard.load("a");
    assert!(!yard.cache.report(load.residency, "weights", Some(0.9)), "it is told to stop");
    yard.cache.loaded(load.residency, None);
    yard.check();
    assert_eq!(yard.state(a), LoadState::Ready);
    yard.hit(a);
    assert_eq!(yard.cache.stats().stuck, 0);
}

#[test]
fn a_late_completion_of_what_was_registered_anew_is_let_go() {
    let yard = Yard::new(None);
    let a = yard.model("a", 6, &[]);
    let client = yard.ask(a);
    yard.pass(31.0);
    let stuck = yard.load("a");
    assert_eq!(yard.model("a", 6, &[]), a);
    let second = yard.ask(a);
    let residency = yard.finish("a");
    assert_eq!(second.has(), Some(residency));
    yard.cache.loaded(stuck.residency, None);
    yard.check();
    assert_eq!(yard.unloads(), [stuck.residency]);
    assert_eq!(yard.hit(a).has(), Some(residency));
    drop(client);
}

#[test]
fn a_time_out_takes_what_waits_for_it_along() {
    let yard = Yard::new(None);
    yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    let client = yard.ask(head);
    yard.pass(30.0);
    let error = client.error();
    assert_eq!(error.kind(), ErrorKind::LoadTimeout);
    assert!(error.message().starts_with("model 'head' needs 'encoder', which failed to load"), "{error}");
    assert_eq!(yard.used(), 1);
    yard.pass(600.0);
    assert_eq!(yard.ask(head).error().kind(), ErrorKind::LoadTimeout);
    yard.finish("encoder");
    let client = yard.ask(head);
    yard.finish("head");
    assert!(client.has().is_some());
}

#[test]
fn the_fallback_is_given_where_a_model_cannot_be_loaded() {
    let yard = Yard::new(10);
    let small = yard.model("small", 1, &[]);
    let medium = yard.register(LoadSpec { fallback: Some("small".into()), ..spec("medium", 2, &[]) });
    let large = yard.register(LoadSpec { fallback: Some("medium".into()), ..spec("large", 3, &[]) });
    let client = yard.ask(large);
    yard.fail("large", false);
    assert!(client.waits());
    assert_eq!(client.claim.model(), medium);
    yard.fail("medium", false);
    let residency = yard.finish("small");
    assert_eq!((client.has(), client.claim.model(), client.claim.asked()), (Some(residency), small, large));
    // Remembered: it is had at once.
    let at_once = yard.ask(large);
    assert!(at_once.claim.at_once() && at_once.claim.model() == small);
    drop((client, at_once));
    assert_eq!(yard.row(small).leases, 0);
    let huge = yard.register(LoadSpec { fallback: Some("small".into()), ..spec("huge", 30, &[]) });
    assert_eq!(yard.hit(huge).claim.model(), small);
}

#[test]
fn fallbacks_that_lead_in_a_circle_end_with_the_first_error() {
    let yard = Yard::new(None);
    let a = yard.register(LoadSpec { fallback: Some("b".into()), ..spec("a", 1, &[]) });
    yard.register(LoadSpec { fallback: Some("a".into()), ..spec("b", 1, &[]) });
    let client = yard.ask(a);
    yard.fail("a", false);
    yard.fail("b", false);
    let error = client.error();
    assert!(error.message().starts_with("model 'b'") || error.message().starts_with("model 'a'"), "{error}");
    let error = yard.ask(a).error();
    assert!(error.message().starts_with("model 'a'"), "{error}");
    assert!(yard.begun().is_empty());
}

#[test]
fn what_is_said_of_what_is_not_there_is_not_heard() {
    let yard = Yard::new(10);
    let id = yard.model("a", 1, &[]);
    let nobody = Residency(77);
    yard.cache.loaded(nobody, Some(5));
    yard.cache.failed(nobody, Error::new(ErrorKind::Model, "x"), true);
    yard.cache.unloaded(nobody, 5);
    yard.cache.returned(nobody, 5);
    yard.cache.warming(nobody);
    yard.cache.ranked(4, vec![]);
    yard.cache.dead(nobody, Error::new(ErrorKind::Model, "x"));
    assert!(!yard.cache.report(nobody, "x", None));
    yard.warm(id);
    let residency = yard.row(id).serving.unwrap();
    yard.cache.loaded(residency, Some(9));
    yard.cache.failed(residency, Error::new(ErrorKind::Model, "x"), true);
    yard.cache.unloaded(residency, 0);
    yard.check();
    assert_eq!((yard.state(id), yard.used()), (LoadState::Ready, 1));
}

#[test]
fn a_dead_model_is_leased_to_nobody_new() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let residency = lease.has().unwrap();
    yard.cache.dead(residency, Error::new(ErrorKind::Model, "its process died"));
    assert!(yard.unloads().is_empty());
    let client = yard.ask(id);
    let fresh = yard.finish("a");
    assert_ne!(fresh, residency);
    assert_eq!(client.has(), Some(fresh));
    drop(lease);
    assert_eq!(yard.unloads(), [residency]);
    assert_eq!(yard.cache.stats().evictions.of(Reason::Dead), 1);
}
