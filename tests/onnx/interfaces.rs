//! What a graph takes and gives, read from its file without the library.

use penstock::error::ErrorKind;
use penstock::formats::onnx::{Declared, Interface, Signature};

use crate::support::read;

fn declared(name: &str, elements: Option<&str>, axes: Option<&[i64]>) -> Declared {
    Declared { name: name.to_owned(), elements: elements.map(str::to_owned), axes: axes.map(<[i64]>::to_vec) }
}

fn outputs(wanted: Vec<Declared>) -> Interface {
    Interface { outputs: Some(wanted), ..Interface::default() }
}

fn shown(graph: &Signature) -> Vec<(String, &'static str, Vec<i64>)> {
    let all = graph.inputs().iter().chain(graph.outputs());
    all.map(|spec| (spec.name.clone(), spec.elements.name(), spec.shown_axes())).collect()
}

#[test]
fn the_batch_axis_is_left_out_and_open_axes_are_minus_one() {
    let graph = read("pair", &Interface::default()).unwrap();
    let expected = [
        ("a", "float32", vec![-1]),
        ("b", "float32", vec![-1]),
        ("sum", "float32", vec![-1]),
        ("length", "int64", vec![]),
    ];
    assert_eq!(shown(&graph), expected.map(|(name, elements, axes)| (name.to_owned(), elements, axes)));
}

#[test]
fn every_type_has_the_name_that_numpy_gives_it() {
    let graph = read("identities", &Interface::default()).unwrap();
    assert_eq!(graph.inputs().len(), 14);
    for input in graph.inputs() {
        assert_eq!(input.name, input.elements.name());
    }
}

#[test]
fn what_cannot_be_served_is_named_with_what_to_do() {
    for (name, words) in [
        ("fixed_one", vec!["input 'x'", "fixed batch of 1", "row_by_row"]),
        ("fixed_eight", vec!["input 'x'", "8", "dynamic first axis"]),
        ("fixed_output", vec!["output 'y'", "fixed batch of 1"]),
        ("scalar", vec!["input 'k'", "no axes"]),
        ("sequence", vec!["output 'parts'", "a sequence", "zipmap"]),
        ("unshaped", vec!["output 'y'", "declare its axes"]),
    ] {
        let error = read(name, &Interface::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        for word in words.into_iter().chain([name]) {
            assert!(error.message().contains(word), "{name}: {error}");
        }
    }
}

#[test]
fn outputs_can_be_chosen_and_declared() {
    let chosen = read("sequence", &outputs(vec![declared("y", None, None)])).unwrap();
    assert_eq!(chosen.outputs().len(), 1);
    let said = read("unshaped", &outputs(vec![declared("y", None, Some(&[3]))])).unwrap();
    assert_eq!(said.outputs()[0].shown_axes(), [3]);
    let reversed = vec![declared("length", None, None), declared("sum", None, None)];
    let reversed = read("pair", &outputs(reversed)).unwrap();
    assert_eq!(reversed.outputs().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["length", "sum"]);
    for (wanted, words) in [
        (vec![declared("z", None, None)], "no output 'z', only [\"sum\", \"length\"]"),
        (vec![declared("sum", None, None), declared("sum", None, None)], "declared twice"),
        (vec![], "no output is left"),
    ] {
        let error = read("pair", &outputs(wanted)).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn inputs_can_be_narrowed_and_not_contradicted() {
    let inputs = |wanted| Interface { inputs: Some(wanted), ..Interface::default() };
    let both =
        |axes: &[i64]| vec![declared("b", None, Some(axes)), declared("a", Some("float32"), Some(axes))];
    let graph = read("pair", &inputs(both(&[5]))).unwrap();
    assert_eq!(graph.inputs()[0].name, "b");
    assert_eq!(graph.inputs()[1].shown_axes(), [5]);
    for (wanted, words) in [
        (both(&[5, 5]), "the graph takes float32 of [-1]"),
        (vec![declared("a", None, None)], "input 'b' of the graph is not declared"),
        (vec![declared("a", Some("int8"), None), declared("b", None, None)], "is declared as int8"),
    ] {
        let error = read("pair", &inputs(wanted)).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains(words), "{error}");
    }
    let wider = read("doubles", &inputs(vec![declared("x", None, Some(&[-1]))])).unwrap_err();
    assert!(wider.message().contains("the graph takes float32 of [3]"), "{wider}");
}
