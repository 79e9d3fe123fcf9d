//! Batches through a graph.

use std::sync::Arc;

use penstock::error::ErrorKind;
use penstock::formats::onnx::{Declared, Interface, SessionSettings};
use penstock::tensor::{Column, DType};
use proptest::prelude::*;

use crate::support::{as_floats, as_longs, bytes, file, floats, longs, open, open_at, raw, spares, texts};

#[test]
fn a_part_of_a_batch_is_run_where_it_lies() {
    let Some(sessions) = open("doubles", &Interface::default()) else { return };
    let numbers: Vec<f32> = (0_u8..30).map(f32::from).collect();
    let x = floats(&[3], &numbers);
    for range in [0..10, 0..1, 3..7, 9..10] {
        let y = sessions.run(&[&x], range.clone(), &spares()).unwrap();
        let expected: Vec<f32> =
            numbers[range.start * 3..range.end * 3].iter().map(|number| number * 2.0).collect();
        assert_eq!(as_floats(&y[0]), expected);
        assert!(y[0].holds(range.len()));
    }
    assert_eq!(as_floats(&x), numbers, "the batch is as it was");
}

#[test]
fn every_type_goes_in_and_comes_out() {
    let Some(sessions) = open("identities", &Interface::default()) else { return };
    let rows = 5;
    let columns: Vec<Column> = sessions
        .graph()
        .inputs()
        .iter()
        .map(|input| match DType::from_name(&input.name) {
            Some(DType::Bool) => bytes(DType::Bool, &[2], &[1, 0, 0, 1, 1, 1, 0, 0, 1, 0]),
            Some(dtype) => {
                let data: Vec<u8> = (0_u8..).take(rows * 2 * dtype.size()).collect();
                bytes(dtype, &[2], &data)
            }
            None => texts(&[2], &["", "a", "zwölf", "水", "\u{1f6b0}", " ", "b\nc", "x", "y", "z"]),
        })
        .collect();
    let inputs: Vec<&Column> = columns.iter().collect();
    let outputs = sessions.run(&inputs, 1..rows, &spares()).unwrap();
    for ((input, output), spec) in columns.iter().zip(&outputs).zip(sessions.graph().inputs()) {
        match (input, output) {
            (Column::Texts { texts: all, .. }, Column::Texts { texts, .. }) => {
                assert!(all.range(2..10).eq(texts.range(0..8)));
            }
            _ => assert_eq!(&raw(input)[raw(input).len() / rows..], raw(output), "{}", spec.name),
        }
    }
}

#[test]
fn texts_that_the_library_cannot_be_given_are_refused() {
    let only = |name: &str| Declared { name: name.to_owned(), elements: None, axes: None };
    let interface = Interface { outputs: Some(vec![only("string_out")]), ..Interface::default() };
    let Some(sessions) = open("identities", &interface) else { return };
    let columns: Vec<Column> = sessions
        .graph()
        .inputs()
        .iter()
        .map(|input| match DType::from_name(&input.name) {
            Some(dtype) => bytes(dtype, &[2], &vec![0; 2 * dtype.size()]),
            None => texts(&[2], &["fine", "not\0fine"]),
        })
        .collect();
    let fault = sessions.run(&columns.iter().collect::<Vec<_>>(), 0..1, &spares()).unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Item);
    assert!(fault.error.message().contains("input 'string'"), "{:?}", fault.error);
}

#[test]
fn a_truth_value_is_zero_or_one() {
    let Some(sessions) = open("identities", &Interface::default()) else { return };
    let columns: Vec<Column> = sessions
        .graph()
        .inputs()
        .iter()
        .map(|input| match DType::from_name(&input.name) {
            Some(dtype) => bytes(dtype, &[2], &vec![2; 2 * dtype.size()]),
            None => texts(&[2], &["", ""]),
        })
        .collect();
    let fault = sessions.run(&columns.iter().collect::<Vec<_>>(), 0..1, &spares()).unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Item);
    assert!(fault.error.message().contains("input 'bool'"), "{:?}", fault.error);
}

#[test]
fn what_the_graph_refuses_is_the_inputs_fault() {
    let Some(sessions) = open("lookup", &Interface::default()) else { return };
    let ids = longs(&[], &[0, 3, 4]);
    let rows = sessions.run(&[&ids], 0..2, &spares()).unwrap();
    assert_eq!(as_floats(&rows[0]), [0.0, 1.0, 6.0, 7.0]);
    let fault = sessions.run(&[&ids], 0..3, &spares()).unwrap_err();
    assert_eq!((fault.error.kind(), fault.out_of_memory), (ErrorKind::Item, false));
    assert!(fault.error.message().contains("out of data bounds"), "{:?}", fault.error);
    assert!(sessions.run(&[&ids], 0..1, &spares()).is_ok(), "the session goes on");
}

#[test]
fn several_inputs_and_outputs_with_open_axes() {
    let wanted = ["length", "sum"].map(|name| Declared { name: name.to_owned(), elements: None, axes: None });
    for outputs in [None, Some(wanted.to_vec())] {
        let Some(sessions) = open("pair", &Interface { outputs: outputs.clone(), ..Interface::default() })
        else {
            return;
        };
        for length in [1, 2, 7, 0] {
            let a = floats(&[length], &vec![1.5; 3 * length]);
            let b = floats(&[length], &vec![0.5; 3 * length]);
            let mut results = sessions.run(&[&a, &b], 0..3, &spares()).unwrap();
            if outputs.is_some() {
                results.reverse();
            }
            assert_eq!(as_floats(&results[0]), vec![2.0; 3 * length]);
            assert_eq!(as_longs(&results[1]), vec![i64::try_from(length).unwrap(); 3]);
        }
    }
}

#[test]
fn rows_that_do_not_fit_each_other_are_a_failure_and_no_crash() {
    let Some(sessions) = open("pair", &Interface::default()) else { return };
    let (a, b) = (floats(&[2], &[1.0; 4]), floats(&[3], &[1.0; 6]));
    let fault = sessions.run(&[&a, &b], 0..2, &spares()).unwrap_err();
    assert!(matches!(fault.error.kind(), ErrorKind::Model | ErrorKind::Item), "{:?}", fault.error);
    let fault = sessions.run(&[&a], 0..2, &spares()).unwrap_err();
    assert!(!fault.error.message().is_empty());
    let wrong = sessions.run(&[&longs(&[2], &[1; 4]), &b], 0..2, &spares()).unwrap_err();
    assert_eq!(wrong.error.kind(), ErrorKind::Internal);
}

#[test]
fn an_output_that_is_not_as_declared_is_the_models_fault() {
    let Some(sessions) = open("stacked", &Interface::default()) else { return };
    let fault = sessions.run(&[&floats(&[3], &[1.0; 6])], 0..2, &spares()).unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Output);
    let words = ["output 'y'", "(4, 3)", "float32 of shape [2]"];
    assert!(words.iter().all(|words| fault.error.message().contains(words)), "{:?}", fault.error);
}

#[test]
fn a_graph_with_a_batch_of_one_is_run_row_by_row() {
    let interface = Interface { row_by_row: true, ..Interface::default() };
    let Some(sessions) = open("fixed_one", &interface) else { return };
    let numbers: Vec<f32> = (0_u8..15).map(f32::from).collect();
    let y = sessions.run(&[&floats(&[3], &numbers)], 1..5, &spares()).unwrap();
    assert_eq!(as_floats(&y[0]), numbers[3..].iter().map(|number| number * 2.0).collect::<Vec<_>>());
    assert!(open_at(&file("fixed_eight"), &interface, &SessionSettings::default(), 1).unwrap().is_err());
}

#[test]
fn as_many_run_at_a_time_as_there_are_sessions_and_the_rest_wait() {
    let opened = open_at(&file("doubles"), &Interface::default(), &SessionSettings::default(), 2);
    let Some(sessions) = opened.map(|sessions| Arc::new(sessions.unwrap())) else { return };
    let threads: Vec<_> = (0_u8..8)
        .map(|number| {
            let sessions = Arc::clone(&sessions);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let x = floats(&[3], &[f32::from(number); 3]);
                    if number == 0 {
                        sessions.run_each(&[&x], 0..1, &spares()).unwrap();
                    }
                    let y = sessions.run(&[&x], 0..1, &spares()).unwrap();
                    assert_eq!(as_floats(&y[0]), [f32::from(number) * 2.0; 3]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    sessions.close();
    sessions.close();
    let fault = sessions.run(&[&floats(&[3], &[0.0; 3])], 0..1, &spares()).unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Closed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_rows_come_back_doubled(numbers in prop::collection::vec(-1e6_f32..1e6, 3..120), from in 0_usize..20) {
        let rows = numbers.len() / 3;
        let from = from % rows;
        let Some(sessions) = open("doubles", &Interface::default()) else { return Ok(()) };
        let y = sessions.run(&[&floats(&[3], &numbers[..rows * 3])], from..rows, &spares()).unwrap();
        let expected: Vec<f32> = numbers[from * 3..rows * 3].iter().map(|number| number + number).collect();
        prop_assert_eq!(as_floats(&y[0]), expected);
    }
}
