//! What the random scripts have found, each as the shortest story of it.

use std::time::Duration;

use penstock::error::ErrorKind;
use penstock::flow::Priority;
use penstock::models::{CacheSettings, Cause, LoadState, PolicyKind};

use super::world::{Phase, World};

#[test]
fn a_load_that_everybody_left_is_not_begun_anew_by_a_registration() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], None);
    world.ask(model);
    world.give_all_back();
    assert_eq!(world.model("model", &[], None), model);
    world.settle("registered anew");
    world.finish_loads(None);
    world.finish_unloads();
    assert_eq!(world.cache.stats().queued, 0);
    assert_eq!(world.cache.progress(model).state, LoadState::Unloaded);
}

/// Who was larger than thought is not made to leave for that alone, but for the next who needs the room.
#[test]
fn who_overdrew_the_memory_leaves_for_the_next_in_line() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(5));
    let liar = world.model("liar", &["base"], Some(1));
    let next = world.model("next", &[], Some(4));
    world.preload(&[liar], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(5));
    world.finish_loads(Some(6));
    assert_eq!(world.cache.stats().bytes.deficit, 1);
    assert!(world.in_phase(Phase::Unloading).is_empty());
    let large = world.serving(liar).unwrap();
    let at = world.ask(next);
    assert_eq!(world.in_phase(Phase::Unloading), [large]);
    world.finish_unloads();
    world.finish_loads(Some(4));
    assert!(world.askers[at].claim.residency().is_some());
    assert!(world.serving(base).is_some(), "that was enough");
}

/// A model registered anew waited for its old load, which an idle model on top of it kept.
#[test]
fn what_needs_an_old_load_leaves_where_the_new_one_has_no_room() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(4));
    let head = world.model("head", &["base"], Some(4));
    world.preload(&[head], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    world.finish_loads(Some(4));
    world.model("base", &[], Some(4));
    world.settle("registered anew");
    let at = world.ask(base);
    for _ in 0..2 {
        world.finish_unloads();
    }
    world.finish_loads(Some(4));
    assert!(world.askers[at].claim.residency().is_some());
}

/// What drains because it broke, or was replaced, is kept by what was loaded on top of it: unloading it waited for that
/// without a word.
#[test]
fn unload_of_what_leaves_already_names_who_keeps_it() {
    let mut world = World::new(CacheSettings::default());
    let base = world.model("base", &[], Some(1));
    let head = world.model("head", &["base"], Some(1));
    world.preload(&[head], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(1));
    world.finish_loads(Some(1));
    let broken = world.serving(base).unwrap();
    world.dead(broken);
    let refused = world.unload(base, false, None);
    let error = refused.lock()[0].clone().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("head"), "{error}");
    let unloaded = world.unload(base, true, None);
    world.finish_unloads();
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
}

/// The answer about who may go for the next in line was thrown away by the debt, which asks for others first: the same
/// question was asked without end.
#[test]
fn a_question_that_was_answered_is_not_asked_again() {
    let policy = PolicyKind::Ranked;
    let mut world = World::new(CacheSettings { memory: Some(10), policy, ..CacheSettings::default() });
    let base = world.model("base", &[], Some(5));
    let liar = world.model("liar", &["base"], Some(1));
    let next = world.model("next", &[], Some(4));
    world.preload(&[liar], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(5));
    world.finish_loads(Some(6));
    world.ask(next);
    assert_eq!(world.questions.len(), 1);
    world.answer(0, vec![1.0]);
    assert!(world.questions.is_empty());
    assert_eq!(world.in_phase(Phase::Unloading).len(), 1);
    world.finish_unloads();
    assert!(world.loading(next).is_some() && world.serving(base).is_some());
}

/// A model was loaded anew beside its old load, which what is loaded on top of that kept, though nobody had asked for it.
#[test]
fn what_is_loaded_brings_what_it_needs() {
    let mut world = World::new(CacheSettings { memory: Some(12), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(4));
    let middle = world.model("middle", &["base"], Some(4));
    let top = world.model("top", &["middle"], Some(4));
    world.preload(&[middle], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    world.finish_loads(Some(4));
    world.model("base", &[], Some(4));
    world.settle("registered anew");
    let at = world.ask(top);
    assert!(world.loading(base).is_none());
    world.finish_loads(Some(4));
    assert!(world.askers[at].claim.residency().is_some());
}

/// A load that was stuck when the cache closed served from then on.
#[test]
fn what_comes_after_the_end_is_unloaded() {
    let mut world = World::new(CacheSettings::default());
    let model = world.model("model", &[], Some(1));
    world.ask(model);
    world.pass(Duration::from_secs(31));
    world.close();
    assert_eq!(*world.closed.clone().unwrap().lock(), 1, "nobody can end it");
    world.finish_loads(Some(1));
    world.finish_unloads();
    assert_eq!(world.cache.stats().bytes.used, 0);
}

/// A dependency stood on an older load of another dependency, and kept it where there was room for one of them.
#[test]
fn what_stands_on_an_older_load_is_loaded_anew_where_there_is_no_room_for_both() {
    let mut world = World::new(CacheSettings { memory: Some(12), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(4));
    let middle = world.model("middle", &["base"], Some(4));
    let top = world.model("top", &["base", "middle"], Some(4));
    world.preload(&[middle], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    world.finish_loads(Some(4));
    let broken = world.serving(base).unwrap();
    world.dead(broken);
    world.preload(&[base], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    let at = world.ask(top);
    for _ in 0..4 {
        world.finish_unloads();
        world.finish_loads(Some(4));
    }
    assert!(world.askers[at].claim.residency().is_some());
}

/// A load that was stuck came, too large for the memory, beside the one that a reload had asked for: that was forgotten, and
/// stood in the queue without end.
#[test]
fn a_late_load_that_is_too_large_leaves_no_other_in_the_queue() {
    let mut world = World::new(CacheSettings { memory: Some(20), ..CacheSettings::default() });
    let model = world.model("model", &[], Some(11));
    world.ask(model);
    world.reload(model);
    world.pass(Duration::from_secs(31));
    world.finish_loads(Some(21));
    world.finish_unloads();
    world.finish_loads(Some(21));
    world.finish_unloads();
    let stats = world.cache.stats();
    assert_eq!((stats.queued, stats.bytes.used), (0, 0));
    assert!(world.preloads[0].0.is_done());
}

/// A load that was stuck came after its model and what it needs had been unloaded, and served.
#[test]
fn what_is_stuck_while_it_is_unloaded_serves_nobody_when_it_comes() {
    let mut world = World::new(CacheSettings::default());
    let base = world.model("base", &[], Some(1));
    let head = world.model("head", &["base"], Some(1));
    world.ask(head);
    world.finish_loads(Some(1));
    world.pass(Duration::from_secs(31));
    let refused = world.unload(base, false, None);
    assert_eq!(refused.lock()[0].clone().unwrap_err().kind(), ErrorKind::Config);
    let unloaded = world.unload(base, true, None);
    assert!(unloaded.lock().is_empty(), "what is stuck may look at it still");
    world.finish_loads(Some(1));
    assert_eq!(world.serving(head), None);
    world.finish_unloads();
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
}

/// What was being loaded on top of an older load, which leaves, was not found above what that needs.
#[test]
fn unload_finds_what_stands_on_an_older_load() {
    let mut world = World::new(CacheSettings::default());
    let base = world.model("base", &[], Some(1));
    let middle = world.model("middle", &["base"], Some(1));
    let top = world.model("top", &["middle"], Some(1));
    world.preload(&[top], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(1));
    world.finish_loads(Some(1));
    world.reload(middle);
    let newer = world.loading(middle).unwrap();
    world.loaded(newer, Some(1));
    let unloaded = world.unload(base, true, None);
    world.finish_loads(Some(1));
    for _ in 0..3 {
        world.finish_unloads();
    }
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
    assert_eq!(world.serving(top), None);
}

/// A model that waited for a victim on top of it, to make room itself, was pinned and left nevertheless.
#[test]
fn what_is_pinned_before_it_leaves_stays() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(4));
    let head = world.model("head", &["base"], Some(4));
    let next = world.model("next", &[], Some(6));
    world.preload(&[head], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    world.finish_loads(Some(4));
    world.ask(next);
    world.pin(base, true).unwrap();
    world.finish_unloads();
    assert!(world.serving(base).is_some() && world.in_phase(Phase::Unloading).is_empty());
    assert!(world.loading(next).is_some(), "that was enough");
}

/// The same, where it was unloaded by name before somebody asked for it again: it was spared, and who waited for its end was
/// never told.
#[test]
fn what_is_unloaded_by_name_is_not_spared() {
    let mut world = World::new(CacheSettings { memory: Some(10), ..CacheSettings::default() });
    let base = world.model("base", &[], Some(4));
    let head = world.model("head", &["base"], Some(4));
    let next = world.model("next", &[], Some(9));
    world.preload(&[head], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(4));
    world.finish_loads(Some(4));
    world.ask(next);
    let unloaded = world.unload(base, true, None);
    world.ask(base);
    for _ in 0..2 {
        world.finish_unloads();
    }
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
}

/// Whoever had a model unloaded waited for an older load of a dependent, which stood on something else.
#[test]
fn unload_waits_for_what_stands_on_it_alone() {
    let mut world = World::new(CacheSettings::default());
    let base = world.model("base", &[], Some(1));
    let middle = world.model("middle", &[], Some(1));
    let top = world.model("top", &["middle"], Some(1));
    world.preload(&[top], Cause::Preload, Priority::Normal);
    world.finish_loads(Some(1));
    world.finish_loads(Some(1));
    world.model("middle", &["base"], Some(1));
    world.settle("registered anew");
    world.ask(middle);
    let unloaded = world.unload(base, true, None);
    world.finish_loads(Some(1));
    world.finish_unloads();
    assert!(matches!(unloaded.lock()[..], [Ok(())]));
    assert!(world.serving(top).is_some());
}
