//! What users of other systems reported, by its number there. Each of them must not happen here.

use std::time::Duration;

use penstock::error::ErrorKind;
use penstock::flow::Priority;
use penstock::models::{CacheSettings, Cause, LoadSpec, LoadState, ModelId, Reason};

use super::world::{Phase, World};

fn limited(memory: u64) -> World {
    World::new(CacheSettings { memory: Some(memory), ..CacheSettings::default() })
}

fn load(world: &mut World, model: ModelId, size: u64) {
    let at = world.ask(model);
    let residency = world.loading(model).unwrap();
    world.loaded(residency, Some(size));
    world.give_back(at);
    assert_eq!(world.serving(model), Some(residency));
}

fn told(world: &World, at: usize) -> Option<Result<(), ErrorKind>> {
    world.askers[at]
        .told
        .lock()
        .first()
        .map(|told| told.as_ref().map(|_| ()).map_err(penstock::error::Error::kind))
}

/// A model that was just loaded was evicted before the request that had it loaded could use it.
#[test]
fn ray_evicted_before_return() {
    let mut world = limited(10);
    let (one, other) = (world.model("one", &[], Some(10)), world.model("other", &[], Some(10)));
    let first = world.ask(one);
    let second = world.ask(other);
    let loading = world.loading(one).unwrap();
    assert!(world.loading(other).is_none());
    world.loaded(loading, Some(10));
    assert_eq!(world.residents[&loading].phase, Phase::Loaded, "it is leased to who waited");
    assert_eq!(world.cache.progress(other).state, LoadState::WaitingForSpace);
    assert_eq!((told(&world, first), told(&world, second)), (Some(Ok(())), None));
    world.give_back(first);
    world.finish_unloads();
    world.finish_loads(Some(10));
    assert_eq!(told(&world, 0), Some(Ok(())));
}

/// A request for a model that was on its way out made the eviction wait for it, and itself for the eviction.
#[test]
fn ollama_17408_resurrected_victim() {
    let mut world = limited(10);
    let (old, new) = (world.model("old", &[], Some(10)), world.model("new", &[], Some(10)));
    load(&mut world, old, 10);
    let second = world.ask(new);
    let victim = world.in_phase(Phase::Unloading);
    assert_eq!(victim.len(), 1, "the only one that can leave");
    let third = world.ask(old);
    assert_eq!((told(&world, second), told(&world, third)), (None, None));
    world.unloaded(victim[0], 0);
    let loading = world.loading(new).unwrap();
    world.loaded(loading, Some(10));
    assert_eq!((told(&world, second), told(&world, third)), (Some(Ok(())), None));
    world.give_back(second);
    world.finish_unloads();
    let again = world.loading(old).unwrap();
    assert_ne!(again, victim[0], "what is half gone does not come back");
    world.loaded(again, Some(10));
    assert_eq!(told(&world, 0), Some(Ok(())));
    assert!(world.cache.health().stuck.is_empty());
}

/// Requests for a model that was loaded waited until another was.
#[test]
fn ollama_14578_hit_not_blocked_by_load() {
    let mut world = limited(100);
    let ready = world.model("ready", &[], Some(10));
    load(&mut world, ready, 10);
    for name in ["a", "b", "c", "d"] {
        let slow = world.model(name, &[], Some(20));
        world.ask(slow);
    }
    assert_eq!((world.in_phase(Phase::Loading).len(), world.cache.stats().queued), (3, 1));
    for _ in 0..100 {
        let at = world.ask(ready);
        assert!(world.askers[at].claim.at_once());
        world.give_back(at);
    }
}

/// A model that was loaded was refused for want of memory while another was being loaded.
#[test]
fn omlx_1970_resident_is_served_while_another_waits_for_space() {
    let mut world = limited(10);
    let (ready, large) = (world.model("ready", &[], Some(6)), world.model("large", &[], Some(8)));
    load(&mut world, ready, 6);
    let held = world.ask(ready);
    world.ask(large);
    assert_eq!(world.cache.progress(large).state, LoadState::WaitingForSpace);
    let at = world.ask(ready);
    assert!(world.askers[at].claim.at_once() && world.askers[held].claim.at_once());
}

/// Two cold requests at once, one slot: both hung.
#[test]
fn llamacpp_28443_two_cold_one_slot() {
    let mut world = World::new(CacheSettings { memory: Some(10), max_loads: 1, ..CacheSettings::default() });
    let models = ["one", "two"].map(|name| world.model(name, &[], Some(10)));
    let first = world.ask(models[0]);
    world.ask(models[1]);
    world.finish_loads(Some(10));
    world.give_back(first);
    world.finish_unloads();
    world.finish_loads(Some(10));
    assert_eq!(told(&world, 0), Some(Ok(())));
}

/// Nothing could leave, because all was pinned: the request hung.
#[test]
fn llamacpp_18373_all_pinned_errors() {
    let mut world = limited(10);
    let pinned = world.model("pinned", &[], Some(8));
    load(&mut world, pinned, 8);
    world.pin(pinned, true).unwrap();
    let other = world.model("other", &[], Some(5));
    let at = world.ask(other);
    let said = world.askers[at].told.lock()[0].clone().unwrap_err();
    assert_eq!(said.kind(), ErrorKind::Capacity);
    for word in ["other", "pinned", "5", "8", "10"] {
        assert!(said.message().contains(word), "'{word}' is missing: {said}");
    }
    world.pin(pinned, false).unwrap();
    world.ask(other);
    world.finish_unloads();
    assert!(world.loading(other).is_some());
}

/// Two ensembles that share a model, loaded at once, loaded it twice.
#[test]
fn triton_7018_double_load_dag() {
    let mut world = World::new(CacheSettings::default());
    let shared = world.model("shared", &[], Some(1));
    let one = world.model("one", &["shared"], Some(1));
    let other = world.model("other", &["shared"], Some(1));
    world.ask(one);
    world.ask(other);
    world.preload(&[shared, one, other], Cause::Preload, Priority::Normal);
    assert_eq!(world.in_phase(Phase::Loading).len(), 1);
    world.finish_loads(Some(1));
    assert_eq!(world.in_phase(Phase::Loading).len(), 2);
    world.finish_loads(Some(1));
    assert_eq!(world.cache.stats().loads, 3);
    assert!(world.askers.iter().all(|asker| asker.claim.residency().is_some()));
}

/// An explicit unload took a model away between its load and the request that had waited for it.
#[test]
fn triton_3583_unload_between_load_and_use() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    let at = world.ask(model);
    world.finish_loads(Some(1));
    let unloaded = world.unload(model, false, None);
    assert!(world.in_phase(Phase::Unloading).is_empty() && unloaded.lock().is_empty(), "it is in use");
    assert!(world.askers[at].claim.residency().is_some());
    let next = world.ask(model);
    world.give_back(at);
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[0], Ok(())));
    assert_ne!(told(&world, next - 1), Some(Ok(())), "who came later waits for another load");
}

/// A reload let go of the old model under those who still used it.
#[test]
fn mlserver_reload_drains_inflight() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    load(&mut world, model, 1);
    let old = world.ask(model);
    let before = world.askers[old].claim.residency().unwrap();
    world.reload(model);
    let meanwhile = world.ask(model);
    assert_eq!(
        world.askers[meanwhile].claim.residency(),
        Some(before),
        "the old one serves until the new one is there"
    );
    world.finish_loads(Some(1));
    let after = world.ask(model);
    assert_ne!(world.askers[after].claim.residency(), Some(before));
    assert_eq!(world.residents[&before].phase, Phase::Loaded, "two still use it");
    assert!(matches!(world.preloads[0].1.lock()[0], Ok(())));
    world.give_all_back();
    assert_eq!(world.residents[&before].phase, Phase::Unloading);
}

/// Each in turn, with room for one less than there are: every request failed after some rounds.
#[test]
fn modelmesh_341_cyclic_scan() {
    let mut world = limited(30);
    let models: Vec<_> = (0..4).map(|at| world.model(&format!("m{at}"), &[], Some(10))).collect();
    for round in 0..100 {
        let at = world.ask(models[round % 4]);
        world.finish_unloads();
        world.finish_loads(Some(10));
        assert!(world.askers[at].claim.residency().is_some(), "round {round}");
        world.give_back(at);
        world.pass(Duration::from_secs(1));
    }
    let stats = world.cache.stats();
    assert_eq!(stats.hits + stats.misses, 100);
    let hits = f64::from(u32::try_from(stats.hits).unwrap());
    assert!((stats.hit_rate - hits / 100.0).abs() < 1e-9);
    assert_eq!(stats.evictions.of(Reason::Space), stats.loads - 3);
}

/// A model that took more than was thought evicted itself, the only one there was.
#[test]
fn modelmesh_511_underprediction_does_not_evict_only_model() {
    let mut world = limited(100);
    let model = world.model("model", &[], Some(10));
    let at = world.ask(model);
    world.finish_loads(Some(95));
    assert_eq!(told(&world, at), Some(Ok(())));
    world.give_back(at);
    world.pass(Duration::from_mins(1));
    assert_eq!(world.cache.progress(model).state, LoadState::Ready);
    let at = world.ask(model);
    assert!(world.askers[at].claim.at_once());
}

/// A failure was remembered for as long as the process lived.
#[test]
fn vera_134_failure_expires() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    let at = world.ask(model);
    let loading = world.loading(model).unwrap();
    world.failed(loading, false);
    assert_eq!(told(&world, at), Some(Err(ErrorKind::LoadFailed)));
    let at = world.ask(model);
    let said = world.askers[at].told.lock()[0].clone().unwrap_err();
    assert_eq!(said.kind(), ErrorKind::LoadFailed);
    assert!(said.wait_before_retry().is_some_and(|wait| wait <= Duration::from_secs(5)), "{said:?}");
    assert!(world.loading(model).is_none());
    world.pass(Duration::from_secs(5));
    let at = world.ask(model);
    world.finish_loads(Some(1));
    assert_eq!(told(&world, at), Some(Ok(())));
}

/// A load that ended after its time-out left the model "not ready" forever.
#[test]
fn roboflow_2947_late_completion_sets_ready() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    let at = world.ask(model);
    let loading = world.loading(model).unwrap();
    world.pass(Duration::from_secs(31));
    assert_eq!(told(&world, at), Some(Err(ErrorKind::LoadTimeout)));
    assert!(world.residents[&loading].cancelled);
    assert_eq!(world.cache.health().stuck, [model]);
    let again = world.ask(model);
    assert_eq!(told(&world, again), Some(Err(ErrorKind::LoadTimeout)), "it is remembered");
    world.pass(Duration::from_secs(30));
    world.ask(model);
    assert_eq!(world.in_phase(Phase::Loading).len(), 1, "none beside the one that is stuck");
    world.loaded(loading, Some(1));
    assert_eq!(world.serving(model), Some(loading));
    assert!(world.cache.health().stuck.is_empty());
    let at = world.ask(model);
    assert!(world.askers[at].claim.at_once());
}

/// A request that came while its model was being unloaded hung.
#[test]
fn lswap_946_request_during_ttl_unload() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    load(&mut world, model, 1);
    world.unload(model, false, None);
    assert_eq!(world.in_phase(Phase::Unloading).len(), 1);
    let at = world.ask(model);
    world.finish_unloads();
    world.finish_loads(Some(1));
    assert_eq!(told(&world, at), Some(Ok(())));
}

/// A model registered anew under its old name was served from what had been loaded before.
#[test]
fn vllm_42125_version_key() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    load(&mut world, model, 1);
    let held = world.ask(model);
    let before = world.askers[held].claim.residency();
    assert_eq!(world.model("model", &[], Some(1)), model);
    world.settle("registered anew");
    let at = world.ask(model);
    assert!(!world.askers[at].claim.at_once());
    world.finish_loads(Some(1));
    assert_ne!(world.askers[at].claim.residency(), before);
    let second = world.cache.register(LoadSpec::new("model", "2")).unwrap();
    assert_eq!(world.cache.find("model").unwrap(), second);
    assert_eq!(world.cache.find("model@1").unwrap(), model);
    let at = world.ask(second);
    assert!(!world.askers[at].claim.at_once(), "another version is another model");
}

/// Small models that came later took the memory that a large one waited for, again and again.
#[test]
fn modelmesh_large_load_is_not_starved() {
    let mut world = limited(10);
    let small: Vec<_> = (0..10).map(|at| world.model(&format!("small{at}"), &[], Some(5))).collect();
    let large = world.model("large", &[], Some(10));
    load(&mut world, small[0], 5);
    load(&mut world, small[1], 5);
    let held = [world.ask(small[0]), world.ask(small[1])];
    let waits = world.ask(large);
    for model in &small[2..] {
        world.ask(*model);
    }
    world.give_back(held[1]);
    world.finish_unloads();
    assert!(world.in_phase(Phase::Loading).is_empty(), "what is free is kept for who stands first");
    world.give_back(held[0]);
    world.finish_unloads();
    let loading = world.loading(large).expect("both have left");
    world.loaded(loading, Some(10));
    assert!(
        world.askers.iter().any(|asker| asker.model == large && asker.claim.residency() == Some(loading))
    );
    let _ = waits;
}
