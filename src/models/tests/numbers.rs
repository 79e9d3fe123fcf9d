//! What the cache says about itself.

use super::*;

#[test]
fn rates_weigh_hits_by_bytes_and_by_what_a_load_costs() {
    let yard = Yard::new(None);
    let (a, b) = (yard.model("a", 30, &[]), yard.model("b", 10, &[]));
    for (id, name, seconds) in [(a, "a", 3.0), (b, "b", 1.0)] {
        let client = yard.ask(id);
        yard.pass(seconds);
        yard.finish(name);
        drop(client);
    }
    for _ in 0..3 {
        drop(yard.hit(a));
    }
    let stats = yard.cache.stats();
    assert!((stats.hit_rate - 3.0 / 5.0).abs() < 1e-9);
    assert!((stats.byte_hit_rate - 90.0 / 130.0).abs() < 1e-9);
    assert!((stats.cost_hit_rate - (1.0 - 4.0 / 13.0)).abs() < 1e-9);
    assert!((stats.load_seconds.sum - 4.0).abs() < 1e-9);
    assert!((stats.load_seconds.p95 - 3.0).abs() < 0.01);
    assert_eq!(stats.models.len(), 2);
    assert_eq!((stats.models[0].hits, stats.models[0].misses), (3, 1));
    assert_eq!(yard.cache.load_times().len(), 2);
}

#[test]
fn preloads_are_used_joined_or_wasted() {
    let yard = Yard::new(10);
    let ids: Vec<_> = ["a", "b", "c"].map(|name| yard.model(name, 3, &[])).to_vec();
    let preload = yard.cache.preload(&ids, Cause::Preload, Priority::Normal);
    let joined = yard.ask(ids[0]);
    yard.finish_all();
    yard.hit(ids[1]);
    yard.hit(ids[1]);
    yard.unload(ids[2], false, None);
    let stats = yard.cache.stats();
    assert_eq!(stats.preloads, Preloads { issued: 3, used: 2, wasted: 1, joined: 1 });
    drop((preload, joined));
}

#[test]
fn an_eviction_says_why_and_after_how_long() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 6, &[]), yard.model("b", 6, &[]));
    yard.warm(a);
    yard.pass(7.0);
    let client = yard.ask(b);
    yard.pass(2.0);
    let last = yard.cache.stats().models[0].last_eviction.unwrap();
    assert_eq!(last, LastEviction { reason: Reason::Space, age: secs(7.0), ago: secs(2.0) });
    yard.finish_all();
    assert!(yard.row(a).reason.unwrap().contains("another model needed its memory"));
    drop(client);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let refused = |settings| {
        let clock = TimeSource::system();
        Cache::new(settings, Arc::new(Recorder::default()), clock).map(drop).unwrap_err().kind()
    };
    assert_eq!(refused(CacheSettings { max_loads: 0, ..settings(None) }), ErrorKind::Config);
    assert_eq!(refused(settings(Some(0))), ErrorKind::Config);
    let yard = Yard::new(10);
    let zero = LoadSpec { timeout: Duration::ZERO, ..LoadSpec::new("a", "1") };
    assert_eq!(yard.cache.register(zero).unwrap_err().kind(), ErrorKind::Config);
    let large = LoadSpec { pinned: true, ..spec("a", 11, &[]) };
    assert_eq!(yard.cache.register(large).unwrap_err().kind(), ErrorKind::Capacity);
    assert!(yard.cache.index().is_empty());
}

#[tokio::test(start_paused = false)]
async fn the_task_that_keeps_it_does_what_is_due_and_beats() {
    let loader = Arc::new(Recorder::default());
    let cache =
        Cache::new(settings(None), Arc::clone(&loader) as Arc<dyn Loader>, TimeSource::system()).unwrap();
    assert!(cache.health().beating && cache.health().beat.is_none());
    cache.keep(&tokio::runtime::Handle::current());
    let id = cache.register(LoadSpec { timeout: Duration::from_millis(20), ..spec("a", 1, &[]) }).unwrap();
    let (send, told) = tokio::sync::oneshot::channel();
    let claim = cache.acquire(id, &Asked::default(), Box::new(move |result| drop(send.send(result))));
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::LoadTimeout);
    assert!(cache.health().beating && cache.health().beat.is_some());
    drop(claim);
}
