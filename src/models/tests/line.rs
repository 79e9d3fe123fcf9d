//! The one line for memory.

use super::*;

#[test]
fn a_large_load_is_not_starved_by_small_ones() {
    let yard = Yard::new(10);
    let smalls: Vec<_> = (0..20).map(|at| yard.model(&format!("s{at}"), 2, &[])).collect();
    let large = yard.model("large", 9, &[]);
    let mut leases: Vec<_> = smalls[..5].iter().map(|id| yard.ask(*id)).collect();
    yard.finish_all();
    let waiting = yard.ask(large);
    // One lease after the other ends and another small one is asked for: none of them overtakes.
    let mut later = Vec::new();
    for small in &smalls[5..10] {
        drop(leases.remove(0));
        later.push(yard.ask(*small));
        yard.let_go();
    }
    assert!(later.iter().all(Client::waits));
    let residency = yard.finish("large");
    assert_eq!(waiting.has(), Some(residency));
    drop(waiting);
    yard.finish_all();
    assert!(later.iter().all(|client| client.has().is_some()));
}

#[test]
fn who_needs_no_space_passes_the_line() {
    let yard = Yard::new(10);
    let (a, b, tiny) = (yard.model("a", 8, &[]), yard.model("b", 8, &[]), yard.model("tiny", 0, &[]));
    yard.warm(a);
    let lease = yard.hit(a);
    let waiting = yard.ask(b);
    let client = yard.ask(tiny);
    yard.finish("tiny");
    assert!(client.has().is_some() && waiting.waits());
    yard.hit(a);
    drop(lease);
}

#[test]
fn high_goes_before_normal_in_the_line_until_that_has_aged() {
    let yard = Yard::new(10);
    let (a, b, c) = (yard.model("a", 8, &[]), yard.model("b", 8, &[]), yard.model("c", 8, &[]));
    yard.warm(a);
    let lease = yard.hit(a);
    let normal = yard.ask(b);
    let high = yard.ask_as(c, &Asked { priority: Priority::High, ..Asked::default() });
    drop(lease);
    yard.let_go();
    assert_eq!(yard.begun(), ["c"]);
    yard.finish("c");
    drop(high);
    yard.let_go();
    yard.finish("b");
    let lease = normal;
    let normal = yard.ask(a);
    yard.pass(25.0);
    let high = yard.ask_as(c, &Asked { priority: Priority::High, ..Asked::default() });
    drop(lease);
    yard.let_go();
    assert_eq!(yard.begun(), ["a"], "it has waited for two classes");
    drop((normal, high));
}

#[test]
fn no_more_leave_than_must() {
    let yard = Yard::new(10);
    let smalls: Vec<_> = (0..5).map(|at| yard.model(&format!("s{at}"), 2, &[])).collect();
    for id in &smalls {
        yard.warm(*id);
    }
    let client = yard.ask(yard.model("middle", 3, &[]));
    assert_eq!(yard.unloads().len(), 2);
    yard.hit(smalls[4]);
    assert_eq!(yard.unloads().len(), 0, "what is about to be free is counted once");
    drop(client);
}

#[test]
fn who_stood_first_and_left_makes_way() {
    let yard = Yard::new(10);
    let (a, b, c) = (yard.model("a", 6, &[]), yard.model("b", 9, &[]), yard.model("c", 4, &[]));
    yard.warm(a);
    let lease = yard.hit(a);
    let first = yard.ask(b);
    let second = yard.ask(c);
    assert!(yard.begun().is_empty());
    drop(first);
    assert_eq!(yard.begun(), ["c"]);
    drop((lease, second));
}

#[test]
fn ollama_17408_resurrected_victim() {
    // A victim is asked for again while it leaves: it is loaded anew once its bytes are free, and nobody hangs.
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 8, &[]), yard.model("b", 8, &[]));
    yard.warm(a);
    let old = yard.row(a).serving.unwrap();
    let other = yard.ask(b);
    assert_eq!(yard.unloads(), [old]);
    let again = yard.ask(a);
    assert!(again.waits());
    yard.cache.unloaded(old, 0);
    let residency = yard.finish("b");
    assert_eq!(other.has(), Some(residency));
    drop(other);
    assert_eq!(yard.let_go(), 1);
    let fresh = yard.finish("a");
    assert_ne!(fresh, old);
    assert_eq!(again.has(), Some(fresh));
}

#[test]
fn what_waits_to_leave_is_not_torn_away_from_who_asks() {
    // The encoder is to make room, too, but its head is not gone yet: its own unload has not begun.
    let yard = Yard::new(10);
    let encoder = yard.model("encoder", 4, &[]);
    let head = yard.model("head", 4, &["encoder"]);
    let large = yard.model("large", 9, &[]);
    yard.warm(head);
    let (old, kept) = (yard.row(head).serving.unwrap(), yard.row(encoder).serving.unwrap());
    let waiting = yard.ask(large);
    assert_eq!(yard.unloads(), [old]);
    assert_eq!(yard.state(encoder), LoadState::Draining);
    let lease = yard.hit_or_revived(encoder);
    assert_eq!(lease.has(), Some(kept));
    yard.cache.unloaded(old, 0);
    assert!(yard.unloads().is_empty() && waiting.waits());
    drop(lease);
    assert_eq!(yard.unloads(), [kept]);
    yard.cache.unloaded(kept, 0);
    yard.finish("large");
    assert!(waiting.has().is_some());
    assert_eq!(yard.cache.stats().evictions.of(Reason::Space), 2);
}

#[test]
fn an_older_load_that_drains_is_not_waited_for_where_others_can_leave() {
    let yard = Yard::new(10);
    let (a, b) = (yard.model("a", 4, &[]), yard.model("b", 4, &[]));
    yard.warm(a);
    yard.warm(b);
    let lease = yard.hit(a);
    yard.unload(a, false, None);
    let client = yard.ask(a);
    assert_eq!(yard.let_go(), 1, "b makes room");
    yard.finish("a");
    assert!(client.has().is_some());
    drop(lease);
}
