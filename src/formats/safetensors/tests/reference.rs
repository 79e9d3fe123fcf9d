//! Against the format's own crate: what is accepted here is accepted there, and says the same.

use safetensors::SafeTensors;

use super::*;

/// Makes sure that both see the same tensors in a file; true where it was accepted here.
pub(super) fn agrees(file: &[u8]) -> bool {
    let Ok(header) = parsed(file) else { return false };
    let reference = SafeTensors::deserialize(file).unwrap();
    let (_, told) = SafeTensors::read_metadata(file).unwrap();
    assert_eq!(reference.len(), header.tensors().len());
    for tensor in header.tensors() {
        let view = reference.tensor(&tensor.name).unwrap();
        let data = &file[usize::try_from(header.data_begin()).unwrap()..];
        let bytes = &data[usize::try_from(tensor.begin).unwrap()..usize::try_from(tensor.end).unwrap()];
        assert_eq!(format!("{:?}", view.dtype()), tensor.dtype.name());
        assert_eq!(view.shape(), tensor.shape);
        assert_eq!(view.data(), bytes);
    }
    let metadata = told.metadata().clone().unwrap_or_default();
    assert_eq!(metadata.len(), header.metadata().len());
    assert!(metadata.iter().all(|(key, value)| header.metadata().get(key) == Some(value)));
    true
}

#[test]
fn both_know_the_same_types() {
    for dtype in StoredType::ALL {
        let bytes = vec![7; usize::try_from(dtype.bits()).unwrap()];
        assert!(agrees(&written(&[("w", dtype.name(), &[8], &bytes)])), "{dtype:?}");
    }
}

#[test]
fn what_the_reference_writes_is_read() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("b", view(Dtype::BF16, &[2, 2], &[1; 8])),
        ("a", view(Dtype::F64, &[1], &[2; 8])),
        ("empty", view(Dtype::I64, &[0, 4], &[])),
        ("bytes", view(Dtype::U8, &[3], &[3; 3])),
    ];
    let metadata = std::collections::HashMap::from([("format".to_owned(), "np".to_owned())]);
    assert!(agrees(&serialize(tensors, Some(metadata)).unwrap()));
}

/// What the head of `header.rs` lists, and nothing else is known to differ.
#[test]
fn stricter_than_the_reference() {
    let stricter = [
        with_header(
            r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            &[0],
        ),
        with_header(r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}"#, &[0]),
        with_header(r#"{"w":["U8",[1],[0,1]]}"#, &[0]),
        with_header(r#"{"__metadata__":null}"#, &[]),
        with_header(" {}", &[]),
        with_header("{}\n", &[]),
        written(&[("", "U8", &[1], &[0])]),
        written(&[("a\tb", "U8", &[1], &[0])]),
        written(&[("w", "U8", &[1; MAX_RANK + 1], &[0])]),
        written(&[("w", "U8", &[0, usize::MAX], &[])]),
    ];
    for file in stricter {
        assert!(SafeTensors::deserialize(&file).is_ok(), "{}", String::from_utf8_lossy(&file));
        assert!(parsed(&file).is_err(), "{}", String::from_utf8_lossy(&file));
    }
}
