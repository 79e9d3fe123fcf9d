//! The shape of the data: flat or nested, and nothing in between.

use super::{body_of, bytes, in_memory, parse, refusal, spec, texts};
use crate::error::ErrorKind;

const ANY: [i64; 4] = [-1; 4];

/// The numbers of `data` for this shape, its batch axis included; none where it is refused.
fn read(shape: &[usize], data: &str) -> Option<Vec<i32>> {
    let inputs = [spec("x", "int32", &ANY[1..shape.len()])];
    let request = match parse(&body_of("int32", &format!("{shape:?}"), data), &inputs) {
        Ok(request) => request,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Item);
            return None;
        }
    };
    assert_eq!(request.count, shape[0]);
    let numbers = bytes(&request.rows.columns()[0]).chunks_exact(4);
    Some(numbers.map(|number| i32::from_ne_bytes(number.try_into().unwrap())).collect())
}

#[test]
fn nested_and_flat_data_are_the_same() {
    let six = Some(vec![1, 2, 3, 4, 5, 6]);
    for (shape, data) in [
        (&[6][..], "[1,2,3,4,5,6]"),
        (&[2, 3], "[1,2,3,4,5,6]"),
        (&[2, 3], "[[1,2,3],[4,5,6]]"),
        (&[3, 2], " [ [1, 2] ,\n[3,4],\t[5,6] ] "),
        (&[1, 2, 3], "[[[1,2,3],[4,5,6]]]"),
        (&[3, 1, 2], "[[[1,2]],[[3,4]],[[5,6]]]"),
        (&[6, 1, 1], "[1,2,3,4,5,6]"),
        (&[1, 1, 2, 3], "[[[[1,2,3],[4,5,6]]]]"),
    ] {
        assert_eq!(read(shape, data), six, "{data} as {shape:?}");
    }
}

#[test]
fn data_of_another_shape_is_refused() {
    for (shape, data) in [
        (&[6][..], "[1,2,3,4,5]"),
        (&[6], "[1,2,3,4,5,6,7]"),
        (&[6], "[[1,2,3,4,5,6]]"),
        (&[6], "[[1],[2],[3],[4],[5],[6]]"),
        (&[2, 3], "[[1,2,3],[4,5]]"),
        (&[2, 3], "[[1,2,3],[4,5,6,7]]"),
        (&[2, 3], "[[1,2],[3,4],[5,6]]"),
        (&[2, 3], "[[1,2,3],4,5,6]"),
        (&[2, 3], "[1,2,3,[4,5,6]]"),
        (&[2, 3], "[[1,2,3],[4,5,[6]]]"),
        (&[2, 3], "[[1,2,3],[]]"),
        (&[2, 3], "[[[1,2,3],[4,5,6]]]"),
        (&[2, 3], "[]"),
        (&[2, 3], "[[],[]]"),
        (&[2, 3, 1], "[[1,2,3],[4,5,6]]"),
        (&[1, 2, 3], "[[1,2,3,4,5,6]]"),
        (&[1, 2, 3], "[[1,2,3],[4,5,6]]"),
        (&[1, 1], "[[1],[]]"),
    ] {
        assert_eq!(read(shape, data), None, "{data} as {shape:?}");
    }
}

#[test]
fn data_that_is_no_list_is_refused() {
    for data in ["1", "null", "true", "\"1\"", "{}", "{\"0\":1}", "[{}]", "[null]", "[[null]]"] {
        assert_eq!(read(&[1], data), None, "{data}");
        assert_eq!(read(&[1, 1], data), None, "{data}");
    }
}

#[test]
fn rows_without_elements_are_rows() {
    for (shape, data) in
        [(&[2, 0][..], "[]"), (&[2, 0], "[[],[]]"), (&[1, 2, 0], "[[[],[]]]"), (&[2, 0, 3], "[[],[]]")]
    {
        assert_eq!(read(shape, data), Some(Vec::new()), "{data} as {shape:?}");
    }
    for (shape, data) in
        [(&[2, 0][..], "[[1],[]]"), (&[2, 0], "[1]"), (&[2, 0], "[[]]"), (&[2, 0, 3], "[[[]],[]]")]
    {
        assert_eq!(read(shape, data), None, "{data} as {shape:?}");
    }
}

#[test]
fn strings_nest_as_numbers_do() {
    let inputs = [spec("x", "string", &[2])];
    for data in [r#"["a","","b","ü"]"#, r#"[["a",""],["b","ü"]]"#] {
        let request = parse(&body_of("string", "[2,2]", data), &inputs).unwrap();
        let found = texts(&request.rows.columns()[0]);
        assert_eq!(found, [b"a", &b""[..], b"b", "ü".as_bytes()]);
    }
    assert!(parse(&body_of("string", "[2,2]", r#"[["a"],["b","c","d"]]"#), &inputs).is_err());
}

#[test]
fn nesting_without_end_is_refused_and_the_stack_holds() {
    let inputs = [spec("x", "float32", &[-1])];
    for depth in [100, 129, 10_000, 1_000_000] {
        let open = "[".repeat(depth);
        let closed = format!("{open}{}", "]".repeat(depth));
        refusal(&body_of("float32", "[1,1]", &open), &inputs);
        refusal(&body_of("float32", "[1,1]", &closed), &inputs);
        refusal(&open, &inputs);
        refusal(&closed, &inputs);
        refusal(&format!("{{\"inputs\":{closed}}}"), &inputs);
        refusal(&format!("{{\"id\":{closed}}}"), &inputs);
        refusal(&"{\"a\":".repeat(depth), &inputs);
    }
}

#[test]
fn what_is_not_looked_at_may_be_as_deep_as_it_likes() {
    let inputs = [spec("x", "float32", &[])];
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let body = body_of("float32", "[1]", "[1]").replacen(
        '{',
        &format!("{{\"extra\":{deep},\"parameters\":{{\"a\":{deep}}},"),
        1,
    );
    let request = parse(&body, &inputs).unwrap();
    assert_eq!(bytes(&request.rows.columns()[0]), in_memory!([1_f32]));
}
