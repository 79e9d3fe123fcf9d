use proptest::prelude::*;

use super::*;

fn node(name: &str, version: &str, requires: &[&str]) -> Node {
    Node {
        name: name.into(),
        version: version.into(),
        requires: requires.iter().map(|&name| name.into()).collect(),
    }
}

fn graph(models: &[(&str, &[&str])]) -> Graph {
    let mut graph = Graph::new();
    for (name, requires) in models {
        graph.register(node(name, "1", requires)).unwrap();
    }
    graph
}

fn labels(graph: &Graph, ids: &[ModelId]) -> Vec<String> {
    ids.iter().map(|id| graph.label(*id).to_string()).collect()
}

fn closure(graph: &Graph, name: &str) -> Vec<String> {
    labels(graph, &graph.closure(&[graph.find(name).unwrap()]).unwrap())
}

#[test]
fn a_reference_without_a_version_is_the_alias_or_the_highest() {
    let mut graph = Graph::new();
    let ids = ["9", "10", "beta"].map(|version| graph.register(node("head", version, &[])).unwrap());
    assert_eq!(graph.find("head").unwrap(), ids[1]);
    assert_eq!(graph.find("head@9").unwrap(), ids[0]);
    assert_eq!(graph.set_alias("head", ids[2]).unwrap(), None);
    assert_eq!(graph.find("head").unwrap(), ids[2]);
    assert_eq!(graph.set_alias("prod", ids[0]).unwrap(), None);
    assert_eq!(graph.set_alias("prod", ids[1]).unwrap(), Some(ids[0]));
    assert_eq!(graph.find("prod").unwrap(), ids[1]);
    assert_eq!(graph.find("head@prod").unwrap(), ids[1]);
    assert_eq!(graph.versions("head").collect::<Vec<_>>(), [ids[2], ids[0], ids[1]]);
    graph.remove(ids[2]);
    assert_eq!(graph.find("head").unwrap(), ids[1], "its alias went with it");
    assert_eq!(graph.remove_alias("prod"), Some(ids[1]));
    assert_eq!(graph.find("prod").unwrap_err().kind(), ErrorKind::ModelNotFound);
}

#[test]
fn vllm_42125_version_key() {
    let mut graph = Graph::new();
    let first = graph.register(node("lora", "1", &[])).unwrap();
    let second = graph.register(node("lora", "2", &[])).unwrap();
    assert_ne!(first, second);
    assert_eq!(graph.register(node("lora", "1", &["base"])).unwrap(), first, "the same name and version");
    assert_eq!(graph.node(first).unwrap().requires.len(), 1);
    graph.remove(first);
    assert_ne!(graph.register(node("lora", "1", &[])).unwrap(), first, "a number is never used again");
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut graph = graph(&[("head", &[]), ("other", &[])]);
    let head = graph.find("head").unwrap();
    for (name, version) in [("", "1"), ("a@b", "1"), ("a", ""), ("a", "1@2")] {
        assert_eq!(graph.register(node(name, version, &[])).unwrap_err().kind(), ErrorKind::Config);
    }
    graph.set_alias("prod", head).unwrap();
    assert_eq!(graph.register(node("prod", "1", &[])).unwrap_err().kind(), ErrorKind::Config);
    for alias in ["", "a@b", "other"] {
        assert_eq!(graph.set_alias(alias, head).unwrap_err().kind(), ErrorKind::Config);
    }
    assert_eq!(graph.set_alias("new", ModelId(99)).unwrap_err().kind(), ErrorKind::ModelNotFound);
    assert_eq!(graph.ids().count(), 2);
}

#[test]
fn who_is_not_found_hears_what_there_is() {
    let graph = graph(&[("tokenizer", &[]), ("head", &["encoder"])]);
    let said = |reference: &str| graph.find(reference).unwrap_err().to_string();
    assert_eq!(said("headd"), "there is no model 'headd'; there are 'head', 'tokenizer'");
    assert_eq!(said("head@3"), "there is no 'head@3'; versions of 'head' are '1'");
    assert_eq!(Graph::new().find("x").unwrap_err().to_string(), "there is no model 'x': none is registered");
    let missing = graph.closure(&[graph.find("head").unwrap()]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::ModelNotFound);
    assert_eq!(missing.to_string(), "model 'head' needs 'encoder', which is not registered");
}

#[test]
fn a_missing_model_is_named_with_its_whole_chain() {
    let graph = graph(&[("head", &["encoder"]), ("encoder", &["tokenizer@2"])]);
    let missing = graph.closure(&[graph.find("head").unwrap()]).unwrap_err().to_string();
    assert_eq!(missing, "model 'head' needs 'encoder', which needs 'tokenizer@2', which is not registered");
    let missing = graph.requires(graph.find("encoder").unwrap()).unwrap_err().to_string();
    assert_eq!(missing, "model 'encoder' needs 'tokenizer@2', which is not registered");
}

#[test]
fn a_circle_is_refused_with_its_path_by_whoever_closes_it() {
    let mut graph = graph(&[("a", &["missing", "b"]), ("b", &["c"])]);
    let cycle = graph.register(node("c", "1", &["a"])).unwrap_err();
    assert_eq!(cycle.kind(), ErrorKind::DependencyCycle);
    assert_eq!(cycle.to_string(), "models require one another: c -> a -> b -> c");
    assert!(graph.find("c").is_err(), "it left nothing behind");
    let itself = graph.register(node("d", "1", &["d"])).unwrap_err();
    assert_eq!(itself.to_string(), "models require one another: d -> d");
    let free = graph.register(node("c", "1", &[])).unwrap();
    assert!(graph.register(node("c", "1", &["a"])).is_err());
    assert!(graph.node(free).unwrap().requires.is_empty(), "the one that there was stays");
}

#[test]
fn an_alias_or_a_new_version_may_close_a_circle_too() {
    let mut graph = graph(&[("a", &[]), ("b", &["a"])]);
    let cycle = graph.register(node("a", "2", &["b"])).unwrap_err().to_string();
    assert_eq!(cycle, "models require one another: a@2 -> b -> a@2");
    let mut graph = Graph::new();
    let base = graph.register(node("base", "1", &[])).unwrap();
    graph.set_alias("live", base).unwrap();
    let top = graph.register(node("top", "1", &["live"])).unwrap();
    assert_eq!(graph.set_alias("live", top).unwrap_err().kind(), ErrorKind::DependencyCycle);
    assert_eq!(graph.find("live").unwrap(), base);
}

#[test]
fn a_circle_that_a_removal_leaves_is_found_when_it_is_walked() {
    let mut graph = graph(&[("b", &["a"])]);
    let high = graph.register(node("a", "2", &[])).unwrap();
    graph.register(node("a", "1", &["b"])).unwrap();
    graph.remove(high);
    let cycle = graph.closure(&[graph.find("b").unwrap()]).unwrap_err();
    assert_eq!(cycle.to_string(), "models require one another: b -> a -> b");
}

#[test]
fn dependencies_stand_before_who_needs_them_and_once() {
    let graph =
        graph(&[("one", &["encoder", "tokenizer"]), ("two", &["encoder"]), ("encoder", &["tokenizer"])]);
    let none: &[&str] = &[];
    assert_eq!(graph.closure(&[graph.find("one").unwrap()]).unwrap_err().kind(), ErrorKind::ModelNotFound);
    let mut graph = graph;
    graph.register(node("tokenizer", "1", none)).unwrap();
    assert_eq!(closure(&graph, "one"), ["tokenizer", "encoder", "one"]);
    let roots = ["two", "one"].map(|name| graph.find(name).unwrap());
    assert_eq!(labels(&graph, &graph.closure(&roots).unwrap()), ["tokenizer", "encoder", "two", "one"]);
    let encoder = graph.find("encoder").unwrap();
    assert_eq!(labels(&graph, &graph.dependents(encoder)), ["one", "two"]);
    assert_eq!(labels(&graph, &graph.requires(roots[1]).unwrap()), ["encoder", "tokenizer"]);
}

#[test]
fn a_chain_may_be_long() {
    let mut graph = Graph::new();
    let mut last = graph.register(node("0", "1", &[])).unwrap();
    for at in 1..20_000 {
        last = graph.register(node(&at.to_string(), "1", &[])).unwrap();
    }
    for at in (1..20_000).rev() {
        let needs = (at - 1).to_string();
        let known = graph.find(&at.to_string()).unwrap();
        graph.nodes[known.0 as usize].as_mut().unwrap().requires = vec![needs.as_str().into()];
    }
    let order = graph.closure(&[last]).unwrap();
    assert_eq!(order.len(), 20_000);
    let longest = *graph.ranks(&order, |_| 1.0).first().unwrap();
    assert!((longest - 20_000.0).abs() < f64::EPSILON, "{longest}");
}

#[test]
fn ranks_are_the_longest_way_to_the_end() {
    let graph = graph(&[("slow", &[]), ("quick", &[]), ("middle", &["slow"]), ("top", &["middle", "quick"])]);
    let order = graph.closure(&[graph.find("top").unwrap()]).unwrap();
    let cost = |id| if graph.label(id).as_ref() == "slow" { 10.0 } else { 1.0 };
    let ranks = graph.ranks(&order, cost);
    assert_eq!(labels(&graph, &order), ["slow", "middle", "quick", "top"]);
    assert_eq!(ranks, [12.0, 2.0, 2.0, 1.0]);
}

/// Edges between ten models; about half of the drawn graphs have a circle.
fn edges() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..10_u8, 0..10_u8), 0..16)
}

fn reaches(edges: &[(u8, u8)], from: u8, to: u8) -> bool {
    let mut seen = vec![from];
    let mut next = 0;
    while let Some(at) = seen.get(next).copied() {
        next += 1;
        for (_, end) in edges.iter().filter(|(start, _)| *start == at) {
            if *end == to {
                return true;
            }
            if !seen.contains(end) {
                seen.push(*end);
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Models registered one after the other, in any order: refused exactly where an edge closes a circle.
    #[test]
    fn circles_are_found_and_nothing_else(edges in edges()) {
        let mut graph = Graph::new();
        let mut kept: Vec<(u8, u8)> = Vec::new();
        for model in 0..10_u8 {
            let own: Vec<_> = edges.iter().filter(|(start, _)| *start == model).copied().collect();
            let requires: Vec<_> = own.iter().map(|(_, end)| end.to_string()).collect();
            let requires: Vec<_> = requires.iter().map(String::as_str).collect();
            // What its place holder keeps out of reach: an edge to what is not registered yet counts once it is.
            let with = [kept.as_slice(), own.as_slice()].concat();
            let registered = |end: u8| end <= model && (end == model || graph.find(&end.to_string()).is_ok());
            let live: Vec<_> = with.iter().copied().filter(|(_, end)| registered(*end)).collect();
            let closes = reaches(&live, model, model);
            let result = graph.register(node(&model.to_string(), "1", &requires));
            prop_assert_eq!(result.is_err(), closes, "{} of {:?}", model, edges);
            if result.is_ok() {
                kept = with;
            }
        }
        // Whatever was let in can be put into an order, unless something is missing.
        for id in graph.ids() {
            match graph.closure(&[id]) {
                Ok(order) => {
                    for (at, id) in order.iter().enumerate() {
                        let needs = graph.requires(*id).unwrap();
                        prop_assert!(needs.iter().all(|other| order[..at].contains(other)));
                    }
                    let ranks = graph.ranks(&order, |id| f64::from(id.0) + 1.0);
                    for (at, id) in order.iter().enumerate() {
                        let waiting = order.iter().zip(&ranks).filter(|(other, _)| graph.requires(**other).unwrap().contains(id));
                        let longest = waiting.map(|(_, rank)| *rank).fold(0.0, f64::max);
                        prop_assert!((ranks[at] - longest - f64::from(id.0) - 1.0).abs() < 1e-9);
                    }
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::ModelNotFound),
            }
        }
    }
}
