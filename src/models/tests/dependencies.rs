//! What models need: loaded first, held, and let go of last.

use super::*;

fn names(loads: &[Load]) -> Vec<&str> {
    loads.iter().map(|load| &*load.name).collect()
}

#[test]
fn a_node_begins_when_its_own_dependencies_are_ready() {
    let yard = Yard::new(None);
    yard.model("slow", 1, &[]);
    yard.model("quick", 1, &[]);
    yard.model("middle", 1, &["quick"]);
    let top = yard.model("top", 1, &["slow", "middle"]);
    let client = yard.ask(top);
    let mut first = yard.begun();
    first.sort();
    assert_eq!(first, ["quick", "slow"]);
    let quick = yard.finish("quick");
    let middle = yard.load("middle");
    assert_eq!(middle.requires, [quick], "no wave waits for the slow one");
    yard.cache.loaded(middle.residency, None);
    let slow = yard.finish("slow");
    let load = yard.load("top");
    assert_eq!(load.requires, [slow, middle.residency], "in the order of its spec");
    yard.cache.loaded(load.residency, None);
    assert_eq!(client.has(), Some(load.residency));
    yard.check();
}

#[test]
fn triton_7018_double_load_dag() {
    let yard = Yard::new(None);
    yard.model("tokenizer", 1, &[]);
    let (one, two) = (yard.model("one", 1, &["tokenizer"]), yard.model("two", 1, &["tokenizer"]));
    let clients = (yard.ask(one), yard.ask(two));
    let loads = yard.loads();
    assert_eq!(names(&loads), ["tokenizer"]);
    yard.cache.loaded(loads[0].residency, None);
    let loads = yard.loads();
    assert_eq!(loads.len(), 2);
    for load in &loads {
        yard.cache.loaded(load.residency, None);
    }
    assert_eq!(yard.used(), 3, "what is shared counts once");
    drop(clients);
}

#[test]
fn the_whole_tree_is_let_in_or_nothing_of_it() {
    let yard = Yard::new(10);
    yard.model("a1", 4, &[]);
    yard.model("b1", 4, &[]);
    let (a, b) = (yard.model("a", 5, &["a1"]), yard.model("b", 5, &["b1"]));
    let (one, two) = (yard.ask(a), yard.ask(b));
    assert_eq!(yard.begun(), ["a1"], "half of each would leave room for neither");
    assert_eq!(yard.cache.stats().bytes.reserved, 9);
    yard.finish("a1");
    yard.finish("a");
    assert!(one.has().is_some() && two.waits());
    drop(one);
    assert_eq!(yard.let_go(), 1, "the head first");
    assert_eq!(yard.let_go(), 1, "then what it needed");
    yard.finish("b1");
    yard.finish("b");
    assert!(two.has().is_some());
}

#[test]
fn a_dependency_is_no_victim_and_is_as_recent_as_what_needs_it() {
    let yard = Yard::new(10);
    yard.model("encoder", 3, &[]);
    let (head, other, third) =
        (yard.model("head", 3, &["encoder"]), yard.model("other", 3, &[]), yard.model("third", 3, &[]));
    yard.warm(head);
    yard.warm(other);
    yard.hit(head);
    yard.warm(third);
    assert_eq!(yard.state(other), LoadState::Unloaded);
    yard.warm(other);
    // The head goes before what it needs, and that was used with it.
    assert_eq!((yard.state(head), yard.state(third)), (LoadState::Unloaded, LoadState::Ready));
}

#[test]
fn unloading_goes_in_reverse_order() {
    let yard = Yard::new(None);
    let tokenizer = yard.model("tokenizer", 1, &[]);
    let encoder = yard.model("encoder", 1, &["tokenizer"]);
    let head = yard.model("head", 1, &["encoder", "tokenizer"]);
    yard.warm(head);
    let serving = |id| yard.row(id).serving.unwrap();
    let order = [head, encoder, tokenizer].map(serving);
    let told = yard.unload(tokenizer, true, None);
    for residency in order {
        assert_eq!(yard.unloads(), [residency]);
        assert!(done(&told).is_none());
        yard.cache.unloaded(residency, 0);
        yard.check();
    }
    assert!(well(&told));
    assert_eq!(yard.used(), 0);
}

#[test]
fn who_waits_is_told_the_chain_and_siblings_are_free() {
    let yard = Yard::new(None);
    yard.model("tokenizer", 1, &[]);
    yard.model("encoder", 1, &["tokenizer"]);
    let (sibling, head) = (yard.model("sibling", 1, &[]), yard.model("head", 1, &["sibling", "encoder"]));
    let client = yard.ask(head);
    yard.fail("tokenizer", false);
    let error = client.error();
    assert_eq!(error.kind(), ErrorKind::LoadFailed);
    assert_eq!(
        error.message(),
        "model 'head' needs 'encoder', which needs 'tokenizer', which failed to load: ValueError: no such file"
    );
    assert_eq!(yard.used(), 1, "nothing is kept but what loads");
    yard.finish("sibling");
    assert_eq!(yard.state(sibling), LoadState::Ready, "it was paid for");
    yard.unload(sibling, false, None);
    assert_eq!(yard.let_go(), 1, "nobody holds it");
    // Remembered: the same is told at once, to whoever needs it.
    let error = yard.ask(head).error();
    assert!(error.message().contains("which needs 'tokenizer', which failed"), "{error}");
    assert!(error.wait_before_retry().is_some());
    assert!(yard.begun().is_empty());
}

#[test]
fn a_failed_dependency_takes_all_that_wait_for_it_along() {
    let yard = Yard::new(None);
    yard.model("encoder", 1, &[]);
    let heads: Vec<_> = (0..5).map(|at| yard.model(&format!("h{at}"), 1, &["encoder", "encoder"])).collect();
    let clients: Vec<_> = heads.iter().map(|id| yard.ask(*id)).collect();
    let preload = yard.cache.preload(&heads, Cause::Preload, Priority::Normal);
    yard.fail("encoder", false);
    for client in &clients {
        assert_eq!(client.error().kind(), ErrorKind::LoadFailed);
    }
    assert_eq!(preload.result().unwrap().unwrap_err().kind(), ErrorKind::LoadFailed);
    assert_eq!(yard.used(), 0);
}

#[test]
fn dependencies_inherit_the_priority_of_who_waits() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    yard.model("encoder", 1, &[]);
    let (busy, head, other) =
        (yard.model("busy", 1, &[]), yard.model("head", 1, &["encoder"]), yard.model("other", 1, &[]));
    let first = yard.ask(busy);
    let preload = yard.cache.preload(&[head, other], Cause::Preload, Priority::Normal);
    let client = yard.ask(head);
    for name in ["busy", "encoder", "head", "other"] {
        assert_eq!(yard.begun(), [name]);
        yard.finish(name);
    }
    drop((first, client, preload));
}

#[test]
fn the_longest_way_goes_first() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    for name in ["a", "b", "c"] {
        yard.model(name, 1, &[]);
    }
    yard.model("b2", 1, &["b"]);
    let top = yard.model("top", 1, &["a", "b2", "c"]);
    let client = yard.ask(top);
    assert_eq!(yard.begun(), ["b"]);
    drop(client);
}

#[test]
fn who_leaves_frees_the_tree_that_only_it_needed() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(Some(100)) });
    yard.model("x", 10, &[]);
    yard.model("y", 10, &[]);
    let (a, b) = (yard.model("a", 10, &["x", "y"]), yard.model("b", 10, &["y"]));
    let client = yard.ask(a);
    let other = yard.ask(b);
    assert_eq!(yard.begun(), ["x"], "{:?}", yard.begun());
    drop(client);
    yard.check();
    assert_eq!(yard.state(a), LoadState::Unloaded);
    yard.finish("x");
    yard.finish("y");
    yard.finish("b");
    assert!(other.has().is_some());
    assert_eq!(yard.used(), 30);
}

#[test]
fn cycles_are_refused_with_their_path() {
    let yard = Yard::new(None);
    yard.model("a", 1, &["b"]);
    yard.model("b", 1, &["c"]);
    let error = yard.cache.register(spec("c", 1, &["a"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DependencyCycle);
    assert!(error.message().contains("c -> a -> b -> c"), "{error}");
    assert!(yard.cache.find("c").is_err());
    let error = yard.ask(yard.cache.find("a").unwrap()).error();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.message().contains("'a' needs 'b', which needs 'c'"), "{error}");
    yard.check();
}
