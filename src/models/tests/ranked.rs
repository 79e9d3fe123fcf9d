//! Victims that the loader ranks.

use super::*;

fn yard() -> (Yard, Vec<ModelId>) {
    let yard = Yard::with(CacheSettings { policy: PolicyKind::Ranked, ..settings(Some(30)) });
    let ids: Vec<_> = (0..5).map(|at| yard.model(&format!("m{at}"), 10, &[])).collect();
    for id in &ids[..3] {
        yard.warm(*id);
    }
    (yard, ids)
}

fn question(yard: &Yard) -> Ranking {
    let asked = yard.loader.asked.lock().pop();
    let Some(Order::Rank(question)) = asked else { panic!("nothing was asked, but {asked:?}") };
    question
}

#[test]
fn the_lowest_goes_first() {
    let (yard, ids) = yard();
    let client = yard.ask(ids[3]);
    assert!(yard.unloads().is_empty());
    let question = question(&yard);
    let models: Vec<_> = question.candidates.iter().map(|candidate| candidate.model).collect();
    assert_eq!(models, ids[..3]);
    assert_eq!((question.candidates[0].bytes, question.candidates[0].uses), (10, 1));
    yard.cache.ranked(question.question, vec![2.0, 1.0, 3.0]);
    yard.check();
    assert_eq!(yard.state(ids[1]), LoadState::Draining);
    assert_eq!(yard.let_go(), 1);
    yard.finish("m3");
    assert!(client.has().is_some());
}

#[test]
fn who_is_leased_meanwhile_does_not_go() {
    let (yard, ids) = yard();
    let client = yard.ask(ids[3]);
    let question = question(&yard);
    let lease = yard.hit(ids[1]);
    yard.cache.ranked(question.question, vec![2.0, 1.0, f64::NAN]);
    assert_eq!(yard.state(ids[2]), LoadState::Draining, "what is no number is the lowest");
    drop((client, lease));
}

#[test]
fn it_is_asked_again_where_the_answer_is_of_no_use() {
    let (yard, ids) = yard();
    let client = yard.ask(ids[3]);
    let first = question(&yard);
    let leases: Vec<_> = ids[..3].iter().map(|id| yard.hit(*id)).collect();
    yard.cache.ranked(first.question, vec![1.0]);
    assert!(yard.loader.asked.lock().is_empty(), "nobody could leave");
    drop(leases);
    let second = question(&yard);
    assert_ne!(first.question, second.question);
    yard.cache.ranked(first.question, vec![1.0, 1.0, 1.0]);
    assert!(yard.unloads().is_empty(), "an old answer says nothing");
    yard.cache.ranked(second.question, Vec::new());
    assert_eq!(yard.let_go(), 1);
    drop(client);
}
