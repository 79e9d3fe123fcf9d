//! Bytes: reserved, measured, made up for; and what cannot fit.

use super::*;

#[test]
fn the_longest_unused_leaves_for_what_is_asked_for() {
    let yard = Yard::new(30);
    let ids: Vec<_> = ["a", "b", "c", "d"].map(|name| yard.model(name, 10, &[])).to_vec();
    for id in &ids[..3] {
        yard.warm(*id);
    }
    yard.hit(ids[0]);
    let client = yard.ask(ids[3]);
    assert_eq!(yard.unloads().len(), 1);
    assert_eq!(yard.state(ids[1]), LoadState::Draining);
    assert_eq!(yard.used(), 30);
    drop(client);
    assert_eq!(yard.cache.stats().evictions.of(Reason::Space), 1);
}

#[test]
fn what_is_reserved_counts_before_it_is_loaded() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 6, &[]));
    let (one, two) = (yard.ask(a), yard.ask(b));
    assert_eq!(yard.begun(), ["a"]);
    let bytes = yard.cache.stats().bytes;
    assert_eq!((bytes.reserved, bytes.ready, bytes.used), (6, 0, 6));
    yard.finish_with("a", Some(3));
    assert_eq!(yard.begun(), ["b"], "it took less than it was taken to");
    drop((one, two));
}

#[test]
fn nobody_is_refused_for_the_sake_of_a_guess() {
    let yard = Yard::new(10);
    let (huge, unknown) = (yard.model("huge", 1, &[]), yard.register(LoadSpec::new("unknown", "1")));
    let kept = yard.model("kept", 4, &[]);
    let (refused, lease) = (yard.ask(huge), yard.ask(kept));
    yard.finish_with("huge", Some(100));
    yard.finish_with("kept", Some(4));
    yard.let_go();
    drop(refused);
    let client = yard.ask(unknown);
    assert_eq!(yard.begun(), ["unknown"], "the mean of what was measured is more than there is");
    assert_eq!(yard.cache.stats().bytes.reserved, 10 - 4);
    yard.finish_with("unknown", Some(2));
    assert_eq!(yard.row(unknown).bytes, 2);
    drop((client, lease));
}

#[test]
fn what_is_measured_replaces_what_was_said() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 1, &[]), yard.register(LoadSpec::new("b", "1")));
    let client = yard.ask(a);
    yard.finish_with("a", Some(4));
    drop(client);
    assert_eq!(yard.row(a).bytes, 4);
    assert_eq!(yard.row(b).bytes, 4, "the mean of what was measured");
    yard.unload(a, false, None);
    yard.let_go();
    let client = yard.ask(a);
    assert_eq!(yard.cache.stats().bytes.reserved, 4);
    drop(client);
}

#[test]
fn more_than_the_memory_is_refused_at_once() {
    let yard = Yard::new(10);
    let id = yard.model("a", 11, &[]);
    let error = yard.ask(id).error();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert_eq!(
        error.message(),
        "model 'a' and what it needs require 11 bytes of a memory of 10: 0 are pinned, 0 leased, 0 evictable"
    );
    assert!(yard.begun().is_empty());
}

#[test]
fn llamacpp_18373_all_pinned_errors() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 5, &[]));
    yard.warm(a);
    yard.cache.pin(a, true).unwrap();
    let error = yard.ask(b).error();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("6 are pinned"), "{error}");
    assert_eq!(yard.cache.pin(b, true).unwrap_err().kind(), ErrorKind::Capacity);
    yard.cache.pin(a, false).unwrap();
    let client = yard.ask(b);
    assert_eq!(yard.let_go(), 1);
    yard.finish("b");
    assert!(client.has().is_some());
}

#[test]
fn what_a_pinned_model_needs_stays_with_it() {
    let yard = Yard::new(10);
    yard.model("encoder", 4, &[]);
    let head = yard.model("head", 2, &["encoder"]);
    yard.cache.pin(head, true).unwrap();
    yard.warm(head);
    let other = yard.model("other", 5, &[]);
    let error = yard.ask(other).error();
    assert!(error.message().contains("6 are pinned"), "{error}");
    assert!(yard.row(yard.cache.find("encoder").unwrap()).pinned);
}

#[test]
fn what_is_leased_is_waited_for_until_space_timeout() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 6, &[]));
    yard.warm(a);
    let lease = yard.hit(a);
    let client = yard.ask(b);
    assert_eq!(yard.state(b), LoadState::WaitingForSpace);
    yard.pass(179.0);
    assert!(client.waits());
    yard.pass(2.0);
    let error = client.error();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("6 leased"), "{error}");
    assert!(error.message().contains("space_timeout of 180 seconds"), "{error}");
    drop(lease);
    let client = yard.ask(b);
    yard.let_go();
    yard.finish("b");
    assert!(client.has().is_some());
}

#[test]
fn modelmesh_511_underprediction_does_not_evict_only_model() {
    let yard = Yard::new(10);
    let a = yard.model("a", 2, &[]);
    let preload = yard.cache.preload(&[a], Cause::Preload, Priority::Normal);
    yard.finish_with("a", Some(10));
    assert!(preload.is_done() && yard.unloads().is_empty());
    yard.hit(a);
}

#[test]
fn what_grew_has_others_leave_and_stays_itself() {
    let yard = Yard::new(10);
    let (a, b, c) = (yard.model("a", 3, &[]), yard.model("b", 3, &[]), yard.model("c", 3, &[]));
    yard.warm(a);
    yard.warm(b);
    let preload = yard.cache.preload(&[c], Cause::Preload, Priority::Normal);
    yard.finish_with("c", Some(7));
    assert_eq!(yard.cache.stats().bytes.deficit, 3);
    assert_eq!(yard.let_go(), 1);
    assert_eq!(
        (yard.state(a), yard.state(b), yard.state(c)),
        (LoadState::Unloaded, LoadState::Ready, LoadState::Ready)
    );
    assert_eq!(yard.cache.stats().bytes.deficit, 0);
    drop(preload);
}

#[test]
fn of_several_that_grew_and_do_not_fit_together_the_last_stays() {
    let yard = Yard::new(10);
    let (a, b, c) = (yard.model("a", 0, &[]), yard.model("b", 0, &[]), yard.model("c", 0, &[]));
    let clients = [yard.ask(a), yard.ask(b)];
    yard.finish_with("a", Some(10));
    yard.finish_with("b", Some(10));
    assert_eq!(yard.cache.stats().bytes.deficit, 10);
    drop(clients);
    assert_eq!(yard.let_go(), 1);
    assert_eq!((yard.state(a), yard.state(b)), (LoadState::Unloaded, LoadState::Ready));
    let third = yard.ask(c);
    yard.let_go();
    yard.finish_with("c", Some(10));
    assert!(third.has().is_some());
}

#[test]
fn no_load_starts_before_a_deficit_is_repaid() {
    let yard = Yard::new(10);
    let (a, b, c) = (yard.model("a", 5, &[]), yard.model("b", 3, &[]), yard.model("c", 0, &[]));
    yard.warm(a);
    let lease = yard.hit(a);
    let client = yard.ask(b);
    yard.finish_with("b", Some(6));
    assert_eq!(yard.cache.stats().bytes.deficit, 1);
    let waiting = yard.ask(c);
    assert!(yard.begun().is_empty());
    assert_eq!(yard.state(c), LoadState::WaitingForSpace);
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    assert_eq!(yard.begun(), ["c"]);
    drop((client, waiting));
}

#[test]
fn what_grew_beyond_the_whole_memory_goes_and_who_waits_is_told() {
    let yard = Yard::new(10);
    let a = yard.model("a", 3, &[]);
    let client = yard.ask(a);
    yard.finish_with("a", Some(11));
    let error = client.error();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Capacity, "model 'a' takes 11 bytes, and the whole memory is 10")
    );
    assert_eq!(yard.let_go(), 1);
    assert_eq!(yard.used(), 0);
    assert_eq!(yard.cache.stats().evictions.of(Reason::TooLarge), 1);
    assert_eq!(yard.ask(a).error().kind(), ErrorKind::Capacity);
    yard.pass(600.0);
    assert_eq!(yard.ask(a).error().kind(), ErrorKind::Capacity, "its size is known");
}

#[test]
fn a_tree_that_grew_too_large_for_itself_is_refused_and_not_stuck() {
    let yard = Yard::new(10);
    yard.model("encoder", 4, &[]);
    let head = yard.model("head", 5, &["encoder"]);
    let client = yard.ask(head);
    yard.finish_with("encoder", Some(6));
    let error = client.error();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("require 11 bytes"), "{error}");
    assert_eq!(yard.used(), 6);
}

#[test]
fn viewed_bytes_count_until_they_are_returned() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 6, &[]));
    yard.warm(a);
    let client = yard.ask(b);
    let residency = yard.unloads()[0];
    yard.cache.unloaded(residency, 5);
    yard.check();
    assert_eq!(yard.cache.stats().bytes.viewed, 5);
    assert!(yard.begun().is_empty());
    yard.cache.returned(residency, 1);
    assert_eq!(yard.begun(), ["b"], "four and six fit");
    yard.cache.returned(residency, 9);
    yard.check();
    assert_eq!(yard.cache.stats().bytes.viewed, 0);
    drop(client);
}

#[test]
fn sizes_that_cannot_be_do_no_harm() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", u64::MAX, &[]), yard.model("b", 1, &[]));
    assert_eq!(yard.ask(a).error().kind(), ErrorKind::Capacity);
    let client = yard.ask(b);
    yard.finish_with("b", Some(u64::MAX));
    assert_eq!(client.error().kind(), ErrorKind::Capacity);
    yard.let_go();
    assert_eq!(yard.used(), 0);
    let unlimited = Yard::new(None);
    let ids: Vec<_> = ["a", "b"].map(|name| unlimited.model(name, u64::MAX, &[])).to_vec();
    for id in &ids {
        unlimited.warm(*id);
    }
    assert_eq!(unlimited.used(), u64::MAX);
    unlimited.unload(ids[0], false, None);
    unlimited.let_go();
    assert_eq!(unlimited.used(), u64::MAX);
}

#[test]
fn who_waits_for_its_turn_after_a_deficit_is_not_taken_to_wait_for_space() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(Some(10)) });
    let (a, grown) = (yard.model("a", 4, &[]), yard.model("grown", 4, &[]));
    let slow = yard.register(LoadSpec { timeout: secs(1000.0), ..spec("slow", 1, &[]) });
    let last = yard.model("last", 1, &[]);
    yard.warm(a);
    let lease = yard.hit(a);
    let client = yard.ask(grown);
    yard.finish_with("grown", Some(8));
    let waiting = (yard.ask(slow), yard.ask(last));
    assert_eq!((yard.state(slow), yard.state(last)), (LoadState::WaitingForSpace, LoadState::Queued));
    drop(lease);
    yard.let_go();
    assert_eq!(yard.begun(), ["slow"]);
    yard.pass(500.0);
    assert!(waiting.1.waits());
    yard.finish("slow");
    yard.finish("last");
    assert!(waiting.1.has().is_some());
    drop(client);
}
