//! The end of a cache.

use super::*;

fn close(yard: &Yard) -> Answer<()> {
    let told = Answer::default();
    let heard = Arc::clone(&told);
    yard.cache.close(Box::new(move || heard.lock().push(())));
    yard.check();
    told
}

#[test]
fn it_refuses_cancels_drains_and_unloads_in_reverse_order() {
    let yard = Yard::with(CacheSettings { max_loads: 1, ..settings(None) });
    let encoder = yard.model("encoder", 1, &[]);
    let head = yard.model("head", 1, &["encoder"]);
    yard.warm(head);
    let lease = yard.hit(head);
    let (loading, queued) = (yard.ask(yard.model("loading", 1, &[])), yard.ask(yard.model("queued", 1, &[])));
    let told = close(&yard);
    assert_eq!((loading.error().kind(), queued.error().kind()), (ErrorKind::Closed, ErrorKind::Closed));
    assert_eq!(yard.ask(head).error().kind(), ErrorKind::Closed);
    assert!(yard.cache.try_acquire(head, &Asked::default()).is_none());
    assert_eq!(yard.cache.register(spec("x", 1, &[])).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(yard.cache.alias("x", "head").unwrap_err().kind(), ErrorKind::Closed);
    let preload = yard.cache.preload(&[encoder], Cause::Preload, Priority::Normal);
    assert_eq!(preload.result().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(yard.cancels().len(), 1);
    let late = yard.finish("loading");
    assert_eq!(yard.unloads(), [late]);
    yard.cache.unloaded(late, 0);
    drop(lease);
    assert_eq!(yard.let_go(), 1);
    assert!(told.lock().is_empty());
    assert_eq!(yard.let_go(), 1);
    assert_eq!(told.lock().len(), 1);
    let again = close(&yard);
    assert_eq!((told.lock().len(), again.lock().len()), (1, 1));
    assert_eq!(yard.used(), 0);
    assert!(yard.cache.health().closing && !yard.cache.health().is_ready());
}

#[test]
fn a_load_that_hangs_does_not_hold_the_end_up_beyond_its_time_out() {
    let yard = Yard::new(None);
    let id = yard.model("a", 1, &[]);
    let client = yard.ask(id);
    let told = close(&yard);
    assert_eq!(client.error().kind(), ErrorKind::Closed);
    yard.pass(29.0);
    assert!(told.lock().is_empty());
    yard.pass(2.0);
    assert_eq!(told.lock().len(), 1);
    let late = yard.finish("a");
    assert_eq!(yard.unloads(), [late]);
    yard.cache.unloaded(late, 3);
    yard.cache.returned(late, 3);
    yard.check();
    assert_eq!((told.lock().len(), yard.used()), (1, 0));
}

#[test]
fn an_empty_cache_is_closed_at_once() {
    let yard = Yard::new(None);
    assert_eq!(close(&yard).lock().len(), 1);
}

#[test]
fn the_fallback_is_not_loaded_at_the_end() {
    let yard = Yard::new(None);
    yard.model("small", 1, &[]);
    let id = yard.register(LoadSpec { fallback: Some("small".into()), ..spec("a", 1, &[]) });
    let client = yard.ask(id);
    close(&yard);
    assert_eq!(client.error().kind(), ErrorKind::Closed);
}

#[test]
fn a_load_that_was_stuck_before_the_end_is_let_go_of_when_it_comes() {
    let yard = Yard::new(None);
    let a = yard.model("a", 1, &[]);
    let client = yard.ask(a);
    let late = yard.load("a");
    yard.pass(30.0);
    assert_eq!(client.error().kind(), ErrorKind::LoadTimeout);
    let told = close(&yard);
    assert_eq!(told.lock().len(), 1);
    yard.cache.loaded(late.residency, None);
    assert_eq!(yard.unloads(), [late.residency]);
    yard.cache.unloaded(late.residency, 0);
    yard.check();
    assert_eq!(yard.used(), 0);
}
