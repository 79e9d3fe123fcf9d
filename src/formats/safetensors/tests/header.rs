//! The header: each rule of the format, one test.

use super::*;

#[test]
fn safetensors_bf16() {
    let file = written(&[("w", "BF16", &[2, 3], &[1; 12]), ("scale", "F8_E8M0", &[5], &[2; 5])]);
    let header = parsed(&file).unwrap();
    let tensor = header.get("w").unwrap();
    assert_eq!((tensor.dtype, tensor.shape.as_slice(), tensor.nbytes()), (StoredType::BF16, &[2, 3][..], 12));
    assert_eq!(header.get("scale").unwrap().dtype, StoredType::F8_E8M0);
    assert_eq!(header.data_begin() + 17, file.len() as u64);
    assert!(header.get("v").is_none());
}

#[test]
fn every_type_takes_its_bits() {
    for dtype in StoredType::ALL {
        let bytes = vec![0; usize::try_from(dtype.bits()).unwrap()];
        let header = parsed(&written(&[("w", dtype.name(), &[2, 4], &bytes)])).unwrap();
        assert_eq!(header.get("w").unwrap().nbytes(), dtype.bits());
        assert_refused(&written(&[("w", dtype.name(), &[2, 5], &bytes)]), "tensor 'w'");
    }
}

#[test]
fn safetensors_unaligned() {
    // The writer of MLX pads nothing, and a tensor of bytes may push the next one to an odd address.
    let file = written(&[("odd", "U8", &[3], &[1, 2, 3]), ("w", "F64", &[1], &[0; 8])]);
    let header = parsed(&file).unwrap();
    assert_eq!(header.get("w").unwrap().begin, 3);
}

#[test]
fn safetensors_dup_key() {
    let entry = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    assert_refused(&with_header(&format!("{{{entry},{entry}}}"), &[0]), "");
    let escaped = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert_refused(&with_header(escaped, &[0, 0]), "the key 'w' twice");
    assert_refused(&with_header(r#"{"__metadata__":{"a":"1","a":"2"}}"#, &[]), "the key 'a' stands twice");
    assert_refused(
        &with_header(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]),
        "'__metadata__' stands twice",
    );
    let field = r#"{"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    assert_refused(&with_header(field, &[0]), "duplicate field `dtype`");
}

#[test]
fn safetensors_hole() {
    let entry = |name: &str, begin, end| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
    };
    let file = |entries: &[String], data| with_header(&format!("{{{}}}", entries.join(",")), data);
    assert_refused(
        &file(&[entry("a", 1, 2)], &[0; 2]),
        "bytes 0 to 1, in front of tensor 'a', belong to none",
    );
    assert_refused(&file(&[entry("a", 0, 1), entry("b", 2, 3)], &[0; 3]), "bytes 1 to 2");
    assert_refused(&file(&[entry("a", 0, 2), entry("b", 1, 3)], &[0; 3]), "within another that ends at 2");
    assert_refused(&file(&[entry("a", 0, 2), entry("b", 0, 2)], &[0; 2]), "within another");
    assert_refused(&file(&[entry("a", 0, 2)], &[0; 3]), "the rest belongs to none");
    // Order in the header is free, and tensors without bytes stand where they like between others.
    let free = file(&[entry("b", 2, 3), entry("none", 2, 2), entry("a", 0, 2), entry("end", 3, 3)], &[0; 3]);
    let order: Vec<_> = parsed(&free).unwrap().tensors().iter().map(|tensor| tensor.name.clone()).collect();
    assert_eq!(order, ["a", "none", "b", "end"]);
}

#[test]
fn safetensors_truncated() {
    let file = written(&[("w", "F32", &[4], &[0; 16])]);
    for length in 0..file.len() {
        assert_refused(&file[..length], "");
    }
    assert_refused(&file[..file.len() - 1], "it is truncated");
    assert_refused(&file[..20], "it is truncated");
    assert_refused(&file[..7], "it has 7 bytes");
}

#[test]
fn safetensors_huge_header() {
    for length in [MAX_HEADER + 1, u64::MAX, 1 << 63, u64::MAX - 7] {
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        assert_refused(&file, "more than 100000000");
        // Whatever the length of the file: nothing of that size is asked for.
        assert_eq!(Header::parse(&file, u64::MAX).unwrap_err().kind(), ErrorKind::UnsafeFormat);
    }
    assert_refused(&[&MAX_HEADER.to_le_bytes()[..], b"{}"].concat(), "only 2 follow");
}

#[test]
fn what_often_lies_where_weights_should_is_named() {
    for (file, what) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "Git LFS"),
        (b"PK\x03\x04archive/data.pkl", "zip archive"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}.", "a pickle"),
    ] {
        assert_refused(file, what);
    }
}

#[test]
fn a_header_is_one_object_and_spaces() {
    assert!(parsed(&with_header("{}", &[])).unwrap().tensors().is_empty());
    assert!(parsed(&with_header("{}      ", &[])).is_ok());
    assert!(parsed(&with_header("{ \"__metadata__\" :\n{} }", &[])).is_ok());
    for text in [
        "",
        " ",
        " {}",
        "\n{}",
        "\u{feff}{}",
        "{}\n",
        "{}\0",
        "{}\t ",
        "{}{}",
        "{},",
        "[]",
        "{",
        "null",
        "{} x",
        "{}}",
    ] {
        assert_refused(&with_header(text, &[]), "its header");
    }
    let invalid = [&3_u64.to_le_bytes()[..], b"{\xff}"].concat();
    assert_refused(&invalid, "not UTF-8");
}

#[test]
fn an_entry_is_an_object_of_three_fields() {
    for (entry, reason) in [
        (r#"["U8",[1],[0,1]]"#, "expected an object"),
        ("null", "expected an object"),
        (r#"{"dtype":"U8","shape":[1]}"#, "missing field"),
        (r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"offset":0}"#, "unknown field"),
        (r#"{"dtype":"u8","shape":[1],"data_offsets":[0,1]}"#, "no type 'u8'"),
        (r#"{"dtype":8,"shape":[1],"data_offsets":[0,1]}"#, "invalid type"),
        (r#"{"dtype":"U8","shape":1,"data_offsets":[0,1]}"#, "list of at most 32"),
        (r#"{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}"#, "invalid value"),
        (r#"{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}"#, "invalid type"),
        (r#"{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}"#, "invalid type"),
        (r#"{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}"#, "invalid"),
        (r#"{"dtype":"U8","shape":[1],"data_offsets":[0]}"#, "tensor 'w'"),
        (r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}"#, "tensor 'w'"),
        (r#"{"dtype":"U8","shape":[1],"data_offsets":[1,0]}"#, "before it begins"),
        (r#"{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}"#, "invalid value"),
        (r#"{"dtype":"U8","shape":[2],"data_offsets":[0,1]}"#, "has 1 bytes and needs 2"),
        (r#"{"dtype":"F4","shape":[1],"data_offsets":[0,1]}"#, "does not end with a byte"),
        (r#"{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}"#, "overflows"),
        (r#"{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,1]}"#, "overflows"),
        (r#"{"dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0]}"#, "overflows"),
    ] {
        assert_refused(&with_header(&format!(r#"{{"w":{entry}}}"#), &[0]), reason);
    }
}

#[test]
fn dimensions_are_few() {
    let shape = |rank: usize| vec![1; rank];
    assert!(parsed(&written(&[("w", "U8", &shape(MAX_RANK), &[0])])).is_ok());
    assert_refused(&written(&[("w", "U8", &shape(MAX_RANK + 1), &[0])]), "more than 32 dimensions");
    let scalar = parsed(&written(&[("w", "F32", &[], &[0; 4])])).unwrap();
    assert!(scalar.get("w").unwrap().shape.is_empty());
    let empty = parsed(&written(&[("w", "F64", &[3, 0, 2], &[])])).unwrap();
    assert_eq!(empty.get("w").unwrap().nbytes(), 0);
}

#[test]
fn names_are_text_that_can_be_shown() {
    assert_refused(&written(&[("", "U8", &[1], &[0])]), "empty name");
    for name in ["a\0b", "a\nb", "\u{7f}", "\u{85}"] {
        assert_refused(&written(&[(name, "U8", &[1], &[0])]), "control character");
    }
    for name in ["encoder.layer.0.weight", "__metadata", "ключ", "a b", "../w", "w\"", "\u{1F600}"] {
        assert!(parsed(&written(&[(name, "U8", &[1], &[0])])).unwrap().get(name).is_some());
    }
    // A message does not grow with what a file says.
    let error = parsed(&written(&[(&"x".repeat(100_000), "U7", &[1], &[0])])).unwrap_err();
    assert!(error.message().len() < 500, "{}", error.message().len());
}

#[test]
fn metadata_are_texts_by_name() {
    let header = parsed(&with_header(r#"{"__metadata__":{"format":"pt","b":""}}"#, &[])).unwrap();
    assert_eq!(header.metadata().get("format").unwrap(), "pt");
    for metadata in ["null", "[]", r#""pt""#, r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{}}"#] {
        assert_refused(&with_header(&format!(r#"{{"__metadata__":{metadata}}}"#), &[]), "cannot be read");
    }
}
