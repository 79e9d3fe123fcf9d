//! The index: what it may name, and that the files hold what it says.

use super::*;

fn refusal(text: &str) -> Error {
    Index::parse(text.as_bytes()).unwrap_err()
}

#[test]
fn index_json_path_escape() {
    for name in [
        "../w.safetensors",
        "..\\\\w.safetensors",
        "/etc/w.safetensors",
        "sub/w.safetensors",
        "./w.safetensors",
        "C:w.safetensors",
        "..safetensors",
        ".hidden.safetensors",
        "w\\u0000.safetensors",
        "w\\n.safetensors",
        "..",
        "/etc/passwd",
    ] {
        let error = refusal(&format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#));
        assert_eq!(error.kind(), ErrorKind::PathEscape, "{name}: {}", error.message());
    }
    for name in ["pytorch_model.bin", "", "w.safetensors.pkl", &format!("{}.safetensors", "x".repeat(250))] {
        assert_eq!(refusal(&format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#)).kind(), ErrorKind::UnsafeFormat);
    }
}

#[test]
fn an_index_is_what_the_hub_writes() {
    let text = r#"{
        "metadata": {"total_size": 16, "more": [1, -2, 3.5, true, null, {"a": {"b": "c"}}]},
        "weight_map": {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}
    }
    "#;
    let index = Index::parse(text.as_bytes()).unwrap();
    assert_eq!(index.weight_map().len(), 2);
    let files: Vec<_> = index.files().into_iter().collect();
    assert_eq!(files, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
}

#[test]
fn an_index_says_everything_once() {
    for text in [
        r#"{"weight_map":{"w":"a.safetensors","w":"b.safetensors"}}"#,
        r#"{"weight_map":{"w":"a.safetensors"},"weight_map":{}}"#,
        r#"{"weight_map":{"w":"a.safetensors"},"x":1,"x":2}"#,
        r#"{"weight_map":{"w":"a.safetensors"},"metadata":{"x":[{"y":1,"y":2}]}}"#,
    ] {
        assert!(refusal(text).message().contains("stands twice"), "{text}");
    }
}

#[test]
fn what_is_no_index_is_refused() {
    let deep = format!(r#"{{"x":{}{},"weight_map":{{}}}}"#, "[".repeat(5000), "]".repeat(5000));
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"weight_map":null}"#,
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":{"w":1}}"#,
        "{} x",
        &deep,
    ] {
        assert_eq!(refusal(text).kind(), ErrorKind::UnsafeFormat, "{text}");
    }
    assert!(Index::parse(b"\xff").is_err());
}

#[test]
fn files_are_few() {
    let text = |count: usize| {
        let files: Vec<_> = (0..count).map(|at| format!(r#""w{at}":"{at}.safetensors""#)).collect();
        format!(r#"{{"weight_map":{{{}}}}}"#, files.join(","))
    };
    assert_eq!(Index::parse(text(MAX_FILES).as_bytes()).unwrap().files().len(), MAX_FILES);
    let error = refusal(&text(MAX_FILES + 1));
    assert_eq!(error.kind(), ErrorKind::UnsafeFormat);
    assert!(error.message().contains("1001 files, more than 1000"), "{}", error.message());
}

#[test]
fn files_hold_what_their_index_says_and_no_more() {
    let index = Index::parse(br#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#).unwrap();
    let holding = |names: &[&str]| {
        let tensors: Vec<Written<'_>> = names.iter().map(|name| (*name, "U8", &[1][..], &[0][..])).collect();
        parsed(&written(&tensors)).unwrap()
    };
    assert!(index.check("1.safetensors", &holding(&["a"])).is_ok());
    for (names, reason) in [
        (&[][..], "does not hold tensor 'a'"),
        (&["a", "b"], "'b', which is in '2.safetensors' by the index"),
        (&["a", "c"], "'c', which is nowhere by the index"),
    ] {
        let error = index.check("1.safetensors", &holding(names)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeFormat);
        assert!(error.message().contains(reason), "{}", error.message());
    }
}
