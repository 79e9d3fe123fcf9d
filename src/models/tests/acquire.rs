//! Asking for models: hits, single flight, who leaves, who goes first.

use super::*;

#[test]
fn a_cold_model_is_loaded_once_for_all_who_ask() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let clients: Vec<_> = (0..1000).map(|_| yard.ask(id)).collect();
    assert_eq!(yard.begun(), ["a"]);
    assert!(clients.iter().all(Client::waits));
    yard.pass(2.0);
    let residency = yard.finish("a");
    assert!(clients.iter().all(|client| client.has() == Some(residency) && client.claim.cold()));
    assert_eq!(clients[0].claim.waited(), secs(2.0));
    assert_eq!(yard.row(id).leases, 1000);
    let hit = yard.hit(id);
    assert_eq!((hit.has(), hit.claim.cold(), hit.claim.waited()), (Some(residency), false, Duration::ZERO));
    let stats = yard.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.joins, stats.loads), (1, 1, 999, 1));
    drop((clients, hit));
    assert_eq!(yard.row(id).leases, 0);
    assert_eq!(yard.state(id), LoadState::Ready);
}

#[test]
fn ray_evicted_before_return() {
    // Its waiters lease it before it could be a victim: also where it fills the memory and others wait for that.
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 10, &[]), yard.model("b", 10, &[]));
    let first = yard.ask(a);
    let second = yard.ask(b);
    let residency = yard.finish("a");
    assert_eq!(first.has(), Some(residency));
    assert!(yard.unloads().is_empty() && second.waits());
    assert_eq!(yard.state(b), LoadState::WaitingForSpace);
    drop(first);
    assert_eq!(yard.unloads(), [residency]);
    assert!(yard.begun().is_empty(), "its bytes are not free before it is gone");
    yard.cache.unloaded(residency, 0);
    assert_eq!(second.has(), None);
    let residency = yard.finish("b");
    assert_eq!(second.has(), Some(residency));
}

#[test]
fn try_acquire_counts_nothing_where_nothing_is_there() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    assert!(yard.cache.try_acquire(id, &Asked::default()).is_none());
    assert!(yard.begun().is_empty());
    yard.warm(id);
    assert!(yard.cache.try_acquire(id, &Asked::default()).is_some());
    assert!(yard.cache.try_acquire(ModelId(9), &Asked::default()).is_none());
    assert_eq!((yard.cache.stats().hits, yard.cache.stats().misses), (1, 1));
}

#[test]
fn the_last_who_leaves_a_queued_load_takes_it_along() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let first = yard.ask(a);
    let (one, two) = (yard.ask(b), yard.ask(b));
    drop(one);
    assert_eq!(yard.state(b), LoadState::Queued);
    drop(two);
    assert_eq!(yard.state(b), LoadState::Unloaded);
    assert_eq!(yard.cache.stats().cancelled, 1);
    yard.finish("a");
    assert!(yard.begun().is_empty());
    drop(first);
}

#[test]
fn a_load_that_runs_goes_on_when_all_who_waited_have_left() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let told = Arc::clone(&client.told);
    drop(client);
    assert!(yard.cancels().is_empty());
    yard.finish("a");
    assert!(told.lock().is_empty(), "who left is not told");
    yard.hit(id);
}

#[test]
fn one_of_many_who_leaves_takes_nothing_along() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let mut clients: Vec<_> = (0..10).map(|_| yard.ask(id)).collect();
    drop(clients.remove(3));
    drop(clients.remove(0));
    drop(clients.pop());
    yard.check();
    let residency = yard.finish("a");
    assert!(clients.iter().all(|client| client.has() == Some(residency)));
    assert_eq!(yard.row(id).leases, 7);
}

#[test]
fn a_preload_in_the_queue_stays_when_who_joined_it_leaves() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let first = yard.ask(a);
    let preload = yard.cache.preload(&[b], Cause::Preload, Priority::Normal);
    let told = watch(&preload);
    drop(preload);
    drop(yard.ask(b));
    yard.finish("a");
    yard.finish("b");
    assert!(matches!(done(&told), Some(Ok(()))));
    drop(first);
}

#[test]
fn the_time_of_who_asks_ends_the_wait_and_not_the_load() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let until = |seconds| Some(yard.cache.now() + secs(seconds));
    let short = yard.ask_as(id, &Asked { until: until(2.0), ..Asked::default() });
    let long = yard.ask_as(id, &Asked { until: until(9.0), ..Asked::default() });
    yard.pass(1.9);
    assert!(short.waits());
    yard.pass(0.2);
    assert_eq!(short.error().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(short.claim.waited(), secs(2.0));
    let residency = yard.finish("a");
    assert_eq!(long.has(), Some(residency));
    yard.pass(20.0);
    assert_eq!(long.has(), Some(residency), "who was served is not told again");
}

#[test]
fn live_requests_go_before_preloads_and_lift_them() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let ids: Vec<_> = ["a", "b", "c", "d"].map(|name| yard.model(name, 1, &[])).to_vec();
    let first = yard.ask(ids[0]);
    let preload = yard.cache.preload(&ids[1..3], Cause::Start, Priority::High);
    let low = yard.ask_as(ids[3], &Asked { priority: Priority::Low, ..Asked::default() });
    let upgraded = yard.ask(ids[2]);
    assert_eq!(yard.cache.progress(ids[2]).position, Some(0));
    assert_eq!(yard.cache.progress(ids[1]).position, Some(2));
    for name in ["a", "c", "d", "b"] {
        assert_eq!(yard.begun(), [name]);
        yard.finish(name);
    }
    assert!(preload.is_done());
    drop((first, low, upgraded));
}

#[test]
fn three_load_at_a_time() {
    let yard = Yard::new(None);
    let clients: Vec<_> =
        ["a", "b", "c", "d"].map(|name| yard.ask(yard.model(name, 1, &[]))).into_iter().collect();
    assert_eq!(yard.begun(), ["a", "b", "c"]);
    yard.finish("b");
    assert_eq!(yard.begun(), ["a", "c", "d"]);
    drop(clients);
}

#[test]
fn ollama_14578_hit_not_blocked_by_load() {
    let yard = Yard::new(12);
    let ids: Vec<_> = ["a", "b", "c", "d"].map(|name| yard.model(name, 3, &[])).to_vec();
    yard.warm(ids[0]);
    let loading: Vec<_> = ids[1..].iter().map(|id| yard.ask(*id)).collect();
    assert_eq!(yard.cache.stats().loading, 3);
    let hit = yard.hit(ids[0]);
    assert!(loading.iter().all(Client::waits));
    drop((hit, loading));
}

#[test]
fn llamacpp_28443_two_cold_one_slot() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(Some(10)) });
    let (a, b) = (yard.model("a", 8, &[]), yard.model("b", 8, &[]));
    let (one, two) = (yard.ask(a), yard.ask(b));
    let residency = yard.finish("a");
    assert_eq!(one.has(), Some(residency));
    drop(one);
    yard.let_go();
    let residency = yard.finish("b");
    assert_eq!(two.has(), Some(residency));
}

#[test]
fn modelmesh_341_cyclic_scan() {
    // A loop over one model more than there is room for: no failure, and no hit with the order of use.
    let yard = Yard::new(40);
    let ids: Vec<_> = (0..5).map(|at| yard.model(&format!("m{at}"), 10, &[])).collect();
    for id in ids.iter().cycle().take(100) {
        let client = yard.ask(*id);
        yard.finish_all();
        assert!(client.has().is_some());
    }
    let stats = yard.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.failures), (0, 100, 0));
    assert!(stats.hit_rate.abs() < f64::EPSILON);
}

#[test]
fn who_asks_for_what_there_is_not_is_told_so() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    assert_eq!(yard.ask(ModelId(5)).error().kind(), ErrorKind::ModelNotFound);
    let client = yard.ask(id);
    yard.cache.remove(id);
    yard.check();
    assert_eq!(client.error().kind(), ErrorKind::ModelNotFound);
    assert_eq!(yard.ask(id).error().kind(), ErrorKind::ModelNotFound);
    assert_eq!(yard.cache.find("a").unwrap_err().kind(), ErrorKind::ModelNotFound);
    assert_eq!(yard.cancels().len(), 1);
    let residency = yard.finish("a");
    assert_eq!(yard.unloads(), [residency], "what comes too late is let go");
}

#[test]
fn references_lead_to_versions_and_aliases() {
    let yard = Yard::new(None);
    let one = yard.register(LoadSpec::new("head", "9"));
    let two = yard.register(LoadSpec::new("head", "10"));
    assert_eq!(yard.cache.find("head").unwrap(), two);
    assert_eq!(yard.cache.find("head@9").unwrap(), one);
    assert!(yard.cache.alias("prod", "head@9").unwrap().is_done());
    assert_eq!(yard.cache.find("prod").unwrap(), one);
    assert_eq!(yard.cache.find("head@prod").unwrap(), one);
    assert!(yard.row(two).default && !yard.row(one).default);
    assert_eq!(*yard.row(one).aliases[0], *"prod");
    assert!(yard.cache.remove_alias("prod") && yard.cache.find("prod").is_err());
}

#[test]
fn a_tell_may_ask_again() {
    // It runs without the lock, and what it leads to is done after it.
    let yard = Yard::new(None);
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let cache = yard.cache.clone();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let told = move |_| *keep.lock() = Some(cache.acquire(b, &Asked::default(), Box::new(|_| ())));
    let claim = yard.cache.acquire(a, &Asked::default(), Box::new(told));
    yard.finish("a");
    assert_eq!(yard.begun(), ["b"]);
    yard.finish("b");
    assert!(kept.lock().as_ref().unwrap().residency().is_some());
    drop(claim);
}
