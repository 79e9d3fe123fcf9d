//! Bad input: each gets a typed error that names the model and the chain, and the cache stays right.

use std::time::Duration;

use penstock::error::{Error, ErrorKind};
use penstock::flow::Priority;
use penstock::models::{Asked, CacheSettings, Cause, LoadSpec, LoadState, Reason};

use super::world::{Phase, World};

fn said(world: &World, at: usize) -> Error {
    world.askers[at].told.lock().first().expect("nobody was told").clone().unwrap_err()
}

#[test]
fn a_loader_that_raises_is_tried_again_and_its_words_are_passed_on_along_the_chain() {
    let mut world = World::new(CacheSettings::default());
    let tokenizer = world.model("tokenizer", &[], Some(1));
    let encoder = world.model("encoder", &["tokenizer"], Some(1));
    let head = world.model("head", &["encoder"], Some(1));
    let waits = [world.ask(head), world.ask(encoder), world.ask(tokenizer)];
    let loading = world.loading(tokenizer).unwrap();
    world.failed(loading, true);
    assert!(world.askers.iter().all(|asker| asker.told.lock().is_empty()), "there is another attempt");
    world.pass(Duration::from_millis(500));
    assert_eq!(world.residents[&loading].attempt, 2);
    world.failed(loading, true);
    let texts = waits.map(|at| said(&world, at).to_string());
    assert!(
        texts[0].starts_with("model 'head' needs 'encoder', which needs 'tokenizer', which failed"),
        "{}",
        texts[0]
    );
    assert!(texts[1].starts_with("model 'encoder' needs 'tokenizer', which failed"), "{}", texts[1]);
    assert!(texts[2].starts_with("model 'tokenizer' failed"), "{}", texts[2]);
    assert!(texts.iter().all(|text| text.ends_with("ValueError: boom")));
    assert!(waits.iter().all(|at| said(&world, *at).kind() == ErrorKind::LoadFailed));
    assert_eq!(world.cache.progress(tokenizer).state, LoadState::Failed);
    let stats = world.cache.stats();
    assert_eq!((stats.failures, stats.retries, stats.queued, stats.bytes.used), (1, 1, 0, 0));
    assert_eq!(world.residents.len(), 1, "what needs it was never begun");
}

#[test]
fn a_failure_is_forgiven_by_a_reload_and_by_a_new_registration() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], None);
    let fail = |world: &mut World| {
        world.ask(model);
        let loading = world.loading(model).unwrap();
        world.failed(loading, false);
        world.ask(model);
        assert!(world.loading(model).is_none(), "it is remembered");
    };
    fail(&mut world);
    world.reload(model);
    assert!(world.loading(model).is_some());
    let loading = world.loading(model).unwrap();
    world.failed(loading, false);
    assert!(matches!(&world.preloads[0].1.lock()[0], Err(error) if error.kind() == ErrorKind::LoadFailed));
    world.model("model", &[], None);
    world.settle("registered anew");
    world.ask(model);
    assert!(world.loading(model).is_some());
}

#[test]
fn a_loader_that_hangs_takes_no_slot_and_keeps_its_memory() {
    let mut world = World::new(CacheSettings { max_loads: 1, memory: Some(10), ..CacheSettings::default() });
    let (stuck, other) = (world.model("stuck", &[], Some(4)), world.model("other", &[], Some(6)));
    let waits = [world.ask(stuck), world.ask(other)];
    assert!(world.loading(other).is_none());
    world.pass(Duration::from_secs(30));
    let error = said(&world, waits[0]);
    assert_eq!(error.kind(), ErrorKind::LoadTimeout);
    assert!(error.message().contains("'stuck'") && error.message().contains("30"), "{error}");
    assert!(world.loading(other).is_some(), "the slot is free");
    let stats = world.cache.stats();
    assert_eq!((stats.stuck, stats.timeouts, stats.bytes.reserved), (1, 1, 10));
    world.finish_loads(Some(4));
    assert_eq!(world.cache.stats().stuck, 0);
}

#[test]
fn who_lies_about_its_size_is_believed_what_is_measured() {
    let mut world = World::new(CacheSettings { memory: Some(20), ..CacheSettings::default() });
    let models = ["one", "two", "liar"].map(|name| world.model(name, &[], Some(5)));
    let held = world.ask(models[0]);
    world.finish_loads(Some(5));
    let at = world.ask(models[1]);
    world.finish_loads(Some(5));
    world.give_back(at);
    let waits = world.ask(models[2]);
    world.finish_loads(Some(15));
    assert!(world.askers[waits].claim.residency().is_some());
    assert_eq!(world.in_phase(Phase::Unloading).len(), 1, "what nobody uses makes room");
    assert_eq!(world.cache.stats().bytes.deficit, 5);
    let next = world.model("next", &[], Some(1));
    world.ask(next);
    assert!(world.loading(next).is_none(), "nothing begins before that is paid");
    world.finish_unloads();
    assert_eq!(world.cache.stats().bytes.deficit, 0);
    world.give_back(waits);
    world.finish_unloads();
    assert!(world.loading(next).is_some());
    assert!(world.askers[held].claim.residency().is_some());
}

#[test]
fn a_model_larger_than_the_memory_is_refused_before_or_after_it_was_measured() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let large = world.model("large", &[], Some(11));
    let at = world.ask(large);
    assert_eq!(said(&world, at).kind(), ErrorKind::Capacity);
    let liar = world.model("liar", &[], Some(1));
    let at = world.ask(liar);
    world.finish_loads(Some(11));
    let error = said(&world, at);
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("liar") && error.message().contains("11"), "{error}");
    assert_eq!(world.in_phase(Phase::Unloading).len(), 1);
    world.finish_unloads();
    let stats = world.cache.stats();
    assert_eq!((stats.bytes.used, stats.evictions.of(Reason::TooLarge)), (0, 1));
    let parts = world.model("parts", &["half"], Some(6));
    world.model("half", &[], Some(6));
    let at = world.ask(parts);
    assert_eq!(said(&world, at).kind(), ErrorKind::Capacity, "what it needs counts, too");
}

#[test]
fn an_unknown_dependency_and_a_circle_are_named() {
    let mut world = World::new(CacheSettings::default());
    let head = world.model("head", &["encoder"], None);
    let at = world.ask(head);
    assert_eq!(said(&world, at).kind(), ErrorKind::ModelNotFound);
    assert_eq!(said(&world, at).to_string(), "model 'head' needs 'encoder', which is not registered");
    let closing = LoadSpec { requires: vec!["head".into()], ..LoadSpec::new("encoder", "1") };
    let error = world.cache.register(closing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DependencyCycle);
    assert!(error.message().contains("encoder -> head -> encoder"), "{error}");
    let encoder = world.model("encoder", &[], None);
    world.ask(head);
    assert!(world.loading(encoder).is_some(), "now it is there");
}

#[test]
fn unload_during_load_tells_who_waits_and_lets_the_load_go() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    let at = world.ask(model);
    let loading = world.loading(model).unwrap();
    let unloaded = world.unload(model, false, None);
    assert_eq!(said(&world, at).kind(), ErrorKind::ModelNotReady);
    assert!(world.residents[&loading].cancelled);
    assert!(!world.cache.report(loading, "weights", Some(0.5)), "the loader hears of it");
    world.loaded(loading, Some(1));
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
    assert_eq!(world.cache.stats().bytes.used, 0);
}

#[test]
fn unload_of_what_others_need_is_refused_or_takes_them_first() {
    let mut world = World::new(CacheSettings::default());
    let encoder = world.model("encoder", &[], Some(1));
    let head = world.model("head", &["encoder"], Some(1));
    world.ask(head);
    world.finish_loads(Some(1));
    world.finish_loads(Some(1));
    world.give_all_back();
    let refused = world.unload(encoder, false, None);
    let error = refused.lock()[0].clone().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("head"), "{error}");
    let unloaded = world.unload(encoder, true, None);
    assert_eq!(
        world.in_phase(Phase::Unloading),
        [world.serving(head).unwrap_or(world.in_phase(Phase::Unloading)[0])]
    );
    world.finish_unloads();
    assert!(unloaded.lock().is_empty());
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
}

#[test]
fn leases_that_last_too_long_are_reported_and_drain_on() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    world.ask(model);
    world.finish_loads(Some(1));
    let unloaded = world.unload(model, false, Some(Duration::from_secs(10)));
    world.pass(Duration::from_secs(10));
    assert_eq!(unloaded.lock()[0].clone().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(world.cache.stats().bytes.draining, 1);
    world.give_all_back();
    world.finish_unloads();
    assert_eq!((world.cache.stats().bytes.used, unloaded.lock().len()), (0, 1));
}

#[test]
fn closing_with_loads_in_flight_tells_everybody_and_unloads_in_order() {
    let mut world = World::new(CacheSettings { max_loads: 2, ..CacheSettings::default() });
    let encoder = world.model("encoder", &[], Some(1));
    let top = world.model("head", &["encoder"], Some(1));
    let leased = world.ask(top);
    world.finish_loads(Some(1));
    world.finish_loads(Some(1));
    let waiting: Vec<_> = (0..4).map(|at| world.model(&format!("cold{at}"), &[], None)).collect();
    for model in &waiting {
        world.ask(*model);
    }
    world.preload(&waiting, Cause::Preload, Priority::Low);
    world.close();
    for at in 1..world.askers.len() {
        assert_eq!(said(&world, at).kind(), ErrorKind::Closed);
    }
    assert!(matches!(&world.preloads[0].1.lock()[0], Err(error) if error.kind() == ErrorKind::Closed));
    let late = world.ask(encoder);
    assert_eq!(said(&world, late).kind(), ErrorKind::Closed);
    world.finish_loads(None);
    world.finish_unloads();
    assert_eq!(*world.closed.clone().unwrap().lock(), 0, "one is leased");
    assert!(world.askers[leased].claim.residency().is_some());
    world.give_back(leased);
    world.finish_unloads();
    world.finish_unloads();
    assert_eq!(*world.closed.clone().unwrap().lock(), 1);
    assert_eq!(world.cache.stats().bytes.used, 0);
    world.close();
    assert_eq!(*world.closed.clone().unwrap().lock(), 1, "whoever closes again is told, too");
}

#[test]
fn a_thousand_who_ask_for_a_cold_model_are_one_load() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    for _ in 0..1000 {
        world.ask(model);
    }
    world.finish_loads(Some(1));
    assert!(world.askers.iter().all(|asker| asker.claim.residency().is_some()));
    let stats = world.cache.stats();
    assert_eq!((stats.loads, stats.misses, stats.joins, stats.hits), (1, 1, 999, 0));
}

#[test]
fn the_last_who_leaves_takes_a_queued_load_with_him_and_lets_a_running_one_end() {
    let mut world = World::new(CacheSettings { max_loads: 1, ..CacheSettings::default() });
    let (running, queued) = (world.model("running", &[], Some(1)), world.model("queued", &[], Some(1)));
    world.ask(running);
    world.ask(queued);
    world.ask(queued);
    world.give_back(2);
    assert_eq!(world.cache.stats().queued, 1);
    world.give_all_back();
    assert_eq!(world.cache.stats().queued, 0);
    assert!(!world.residents[&world.loading(running).unwrap()].cancelled);
    world.finish_loads(Some(1));
    assert!(world.serving(running).is_some() && world.loading(queued).is_none());
    world.preload(&[queued], Cause::Preload, Priority::Normal);
    assert!(world.loading(queued).is_some());
}

#[test]
fn who_has_no_time_left_is_told_and_the_others_wait_on() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    let until = Some(world.now() + Duration::from_secs(1));
    let hurried = world.ask_as(model, &Asked { until, ..Asked::default() });
    let patient = world.ask(model);
    world.pass(Duration::from_secs(2));
    assert_eq!(said(&world, hurried).kind(), ErrorKind::DeadlineExceeded);
    world.finish_loads(Some(1));
    assert!(world.askers[patient].claim.residency().is_some());
}

#[test]
fn a_fallback_is_given_where_the_model_cannot_be_had() {
    let mut world = World::new(CacheSettings::default());
    let small = world.model("small", &[], Some(1));
    let large = LoadSpec { fallback: Some("small".into()), retries: 0, ..LoadSpec::new("large", "1") };
    let large = world.cache.register(large).unwrap();
    let at = world.ask(large);
    let loading = world.loading(large).unwrap();
    world.failed(loading, true);
    assert!(world.askers[at].told.lock().is_empty());
    world.finish_loads(Some(1));
    assert_eq!(world.askers[at].claim.model(), small);
    assert_eq!(world.askers[at].claim.residency(), world.serving(small));
    let again = world.ask(large);
    assert_eq!(world.askers[again].claim.model(), small, "while the failure is remembered, at once");
}

#[test]
fn a_reload_that_fails_leaves_the_old_one_serving() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    world.ask(model);
    world.finish_loads(Some(1));
    world.give_all_back();
    let before = world.serving(model);
    world.reload(model);
    let loading = world.loading(model).unwrap();
    world.failed(loading, false);
    assert_eq!(world.serving(model), before);
    let at = world.ask(model);
    assert!(world.askers[at].claim.at_once());
    let row = world.cache.index().into_iter().find(|row| row.model == model).unwrap();
    assert_eq!(row.state, LoadState::Ready);
    assert!(row.reason.is_some_and(|reason| reason.contains("boom")), "the failure is reported");
}

#[test]
fn where_old_and_new_do_not_fit_the_old_one_goes_first() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let model = world.model("model", &[], Some(8));
    world.ask(model);
    world.finish_loads(Some(8));
    world.give_all_back();
    world.reload(model);
    assert!(world.loading(model).is_none());
    assert_eq!(world.in_phase(Phase::Unloading).len(), 1);
    let at = world.ask(model);
    world.finish_unloads();
    world.finish_loads(Some(8));
    assert!(world.askers[at].claim.residency().is_some());
    assert!(matches!(world.preloads[0].1.lock()[..], [Ok(())]));
}

#[test]
fn only_what_is_leased_in_the_way_means_waiting_but_not_forever() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let (held, other) = (world.model("held", &[], Some(8)), world.model("other", &[], Some(8)));
    world.ask(held);
    world.finish_loads(Some(8));
    let at = world.ask(other);
    world.pass(Duration::from_secs(179));
    assert!(world.askers[at].told.lock().is_empty());
    world.pass(Duration::from_secs(2));
    let error = said(&world, at);
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("other"), "{error}");
    assert_eq!(world.cache.stats().bytes.reserved, 0);
}
