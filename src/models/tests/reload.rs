//! Loading anew, registering anew, and aliases that move.

use super::*;

#[test]
fn the_old_one_serves_until_the_new_one_is_ready() {
    let yard = Yard::new(10);
    let id = yard.model("a", 4, &[]);
    yard.warm(id);
    let old = yard.row(id).serving.unwrap();
    let reload = yard.cache.reload(id);
    assert_eq!(yard.hit(id).has(), Some(old));
    assert_eq!(yard.used(), 8);
    let fresh = yard.finish("a");
    assert_eq!(yard.unloads(), [old]);
    assert_eq!(yard.hit(id).has(), Some(fresh));
    assert!(matches!(reload.result(), Some(Ok(()))));
    assert_eq!(yard.cache.stats().evictions.of(Reason::Reload), 1);
}

#[test]
fn a_new_one_that_fails_leaves_the_old_one_serving() {
    let yard = Yard::new(10);
    let id = yard.model("a", 4, &[]);
    yard.warm(id);
    let old = yard.row(id).serving.unwrap();
    let reload = yard.cache.reload(id);
    yard.fail("a", false);
    assert_eq!(reload.result().unwrap().unwrap_err().kind(), ErrorKind::LoadFailed);
    assert_eq!(yard.hit(id).has(), Some(old));
    assert_eq!(yard.state(id), LoadState::Ready);
    assert!(yard.row(id).reason.unwrap().contains("no such file"));
    assert_eq!(yard.used(), 4);
    yard.cache.reload(id);
    yard.finish("a");
    assert_eq!(yard.row(id).reason, None);
}

#[test]
fn where_both_do_not_fit_the_old_one_goes_first() {
    let yard = Yard::new(10);
    let id = yard.model("a", 6, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let reload = yard.cache.reload(id);
    assert!(yard.begun().is_empty());
    let client = yard.ask(id);
    assert!(client.waits());
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    let fresh = yard.finish("a");
    assert_eq!(client.has(), Some(fresh));
    assert!(reload.is_done());
}

#[test]
fn where_the_old_one_cannot_go_the_reload_is_refused() {
    let yard = Yard::new(10);
    let encoder = yard.model("encoder", 6, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    yard.warm(head);
    let reload = yard.cache.reload(encoder);
    assert_eq!(reload.result().unwrap().unwrap_err().kind(), ErrorKind::Capacity);
    yard.hit(head);
    yard.hit(encoder);
}

#[test]
fn a_reload_while_it_loads_follows_the_load() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let reload = yard.cache.reload(id);
    let first = yard.finish("a");
    assert_eq!(client.has(), Some(first));
    assert!(!reload.is_done());
    let second = yard.finish("a");
    assert!(reload.is_done());
    assert_ne!(first, second);
    drop(client);
    assert_eq!(yard.let_go(), 1);
    let client = yard.ask(id);
    assert_eq!(client.has(), Some(second));
}

#[test]
fn a_reload_after_a_load_that_fails_loads_all_the_same() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let reload = yard.cache.reload(id);
    yard.fail("a", false);
    assert_eq!(client.error().kind(), ErrorKind::LoadFailed);
    yard.finish("a");
    assert!(matches!(reload.result(), Some(Ok(()))));
}

#[test]
fn a_reload_in_the_queue_is_joined() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let (a, b) = (yard.model("a", 1, &[]), yard.model("b", 1, &[]));
    let client = yard.ask(a);
    let (one, two) = (yard.cache.reload(b), yard.cache.reload(b));
    yard.finish("a");
    yard.finish("b");
    assert!(one.is_done() && two.is_done() && yard.begun().is_empty());
    drop(client);
}

#[test]
fn vllm_42125_version_key() {
    // The same name and version, registered again: nothing of the old one is given to anybody.
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    yard.warm(id);
    let lease = yard.hit(id);
    let old = lease.has().unwrap();
    assert_eq!(yard.model("a", 2, &[]), id);
    let client = yard.ask(id);
    assert!(client.waits());
    let fresh = yard.finish("a");
    assert_eq!(client.has(), Some(fresh));
    assert_ne!(fresh, old);
    drop(lease);
    assert_eq!(yard.unloads(), [old]);
    let other = yard.register(LoadSpec { size: Some(1), ..LoadSpec::new("a", "2") });
    assert_ne!(other, id);
    assert!(yard.ask(other).waits(), "another version is another model");
}

#[test]
fn registering_anew_while_it_loads_loads_the_new_one_for_who_waits() {
    let yard = Yard::new(None);
    yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    let client = yard.ask(head);
    let old = yard.load("encoder");
    yard.model("encoder", 1, &[]);
    assert_eq!(yard.cancels(), [old.residency]);
    assert!(client.waits());
    let fresh = yard.finish("encoder");
    let load = yard.load("head");
    assert_eq!(load.requires, [fresh]);
    yard.cache.loaded(load.residency, None);
    yard.cache.loaded(old.residency, None);
    yard.check();
    assert_eq!(yard.unloads(), [old.residency]);
    assert!(client.has().is_some());
}

#[test]
fn an_alias_flips_when_its_new_target_is_loaded() {
    let yard = Yard::new(10);
    let one = yard.model("head", 3, &[]);
    let two = yard.register(LoadSpec { version: "2".into(), ..spec("head", 3, &[]) });
    assert!(yard.cache.alias("prod", "head@1").unwrap().is_done());
    yard.warm(one);
    let flip = yard.cache.alias("prod", "head@2").unwrap();
    assert_eq!(yard.cache.find("prod").unwrap(), one);
    yard.finish("head");
    assert!(flip.is_done());
    assert_eq!(yard.cache.find("prod").unwrap(), two);
    assert_eq!(yard.state(one), LoadState::Ready);
    let back = yard.cache.alias("prod", "head@1").unwrap();
    assert!(back.is_done(), "it is there already");
    assert_eq!(yard.cache.find("prod").unwrap(), one);
}

#[test]
fn an_alias_stays_where_its_new_target_fails() {
    let yard = Yard::new(10);
    let one = yard.model("head", 3, &[]);
    yard.register(LoadSpec { version: "2".into(), ..spec("head", 3, &[]) });
    yard.cache.alias("prod", "head@1").unwrap();
    yard.warm(one);
    let flip = yard.cache.alias("prod", "head@2").unwrap();
    yard.fail("head", false);
    assert_eq!(flip.result().unwrap().unwrap_err().kind(), ErrorKind::LoadFailed);
    assert_eq!(yard.cache.find("prod").unwrap(), one);
}

#[test]
fn where_both_targets_do_not_fit_the_alias_flips_at_once() {
    let yard = Yard::new(10);
    let one = yard.model("head", 6, &[]);
    let two = yard.register(LoadSpec { version: "2".into(), ..spec("head", 6, &[]) });
    yard.cache.alias("prod", "head@1").unwrap();
    yard.warm(one);
    let flip = yard.cache.alias("prod", "head@2").unwrap();
    assert_eq!(yard.cache.find("prod").unwrap(), two);
    assert_eq!(yard.let_go(), 1);
    yard.finish("head");
    assert!(flip.is_done());
}

#[test]
fn the_last_of_two_flips_wins() {
    let yard = Yard::new(None);
    let ids: Vec<_> = ["1", "2", "3"].map(|version| yard.register(LoadSpec::new("head", version))).to_vec();
    yard.cache.alias("prod", "head@1").unwrap();
    yard.warm(ids[0]);
    let (two, three) =
        (yard.cache.alias("prod", "head@2").unwrap(), yard.cache.alias("prod", "head@3").unwrap());
    for load in yard.loads().into_iter().rev() {
        yard.cache.loaded(load.residency, None);
    }
    assert!(two.is_done() && three.is_done());
    assert_eq!(yard.cache.find("prod").unwrap(), ids[2]);
}

#[test]
fn an_alias_of_the_models_own_name_keeps_the_default_until_it_flips() {
    let yard = Yard::new(None);
    let one = yard.model("head", 3, &[]);
    yard.warm(one);
    yard.cache.alias("head", "head@1").unwrap();
    let two = yard.register(LoadSpec { version: "2".into(), ..spec("head", 3, &[]) });
    assert_eq!(yard.cache.find("head").unwrap(), one, "a new version is not the default by being there");
    let flip = yard.cache.alias("head", "head@2").unwrap();
    assert_eq!(yard.cache.find("head").unwrap(), one);
    yard.finish("head");
    assert!(flip.is_done());
    assert_eq!(yard.cache.find("head").unwrap(), two);
}

#[test]
fn what_was_too_large_once_is_tried_again_by_reload() {
    let yard = Yard::new(10);
    let id = yard.model("a", 3, &[]);
    drop(yard.ask(id));
    yard.finish_with("a", Some(11));
    yard.let_go();
    let reload = yard.cache.reload(id);
    yard.finish_with("a", Some(5));
    assert!(matches!(reload.result(), Some(Ok(()))));
}

#[test]
fn registering_anew_what_nobody_waits_for_loads_nothing() {
    let yard = Yard::new(None);
    let id = yard.model("a", 3, &[]);
    drop(yard.ask(id));
    let old = yard.load("a");
    assert_eq!(yard.model("a", 3, &[]), id);
    assert!(yard.begun().is_empty());
    assert_eq!(yard.cancels(), [old.residency]);
    yard.cache.loaded(old.residency, None);
    yard.check();
    assert_eq!(yard.unloads(), [old.residency]);
}
