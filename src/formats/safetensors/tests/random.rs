//! Files at random: what a writer of ours writes comes back as it was, and what is broken is refused or still means the same.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::reference::agrees;
use super::*;

/// Tensors of any type and a small shape, by names of any kind.
fn tensors() -> impl Strategy<Value = Vec<(String, StoredType, Vec<usize>, Vec<u8>)>> {
    let shape = vec(0_usize..5, 0..4);
    let tensor = (select(&StoredType::ALL[..]), shape, any::<u8>());
    btree_map("[a-zA-Zé\"\\\\. ]{1,8}", tensor, 0..6).prop_map(|tensors| {
        tensors.into_iter().map(|(name, (dtype, shape, seed))| filled(name, dtype, shape, seed)).collect()
    })
}

fn filled(
    name: String,
    dtype: StoredType,
    mut shape: Vec<usize>,
    seed: u8,
) -> (String, StoredType, Vec<usize>, Vec<u8>) {
    let bits = |shape: &[usize]| shape.iter().product::<usize>() * usize::try_from(dtype.bits()).unwrap();
    if bits(&shape) % 8 != 0 {
        shape.push(4);
    }
    let bytes = (0..bits(&shape) / 8).map(|at| seed.wrapping_add(at.to_le_bytes()[0])).collect();
    (name, dtype, shape, bytes)
}

fn file(tensors: &[(String, StoredType, Vec<usize>, Vec<u8>)], spaces: usize) -> Vec<u8> {
    let tensors: Vec<Written<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), dtype.name(), shape.as_slice(), bytes.as_slice()))
        .collect();
    let tight = written(&tensors);
    let begin = usize::try_from(parsed(&tight).unwrap().data_begin()).unwrap();
    let header = String::from_utf8(tight[PREFIX..begin].to_vec()).unwrap() + &" ".repeat(spaces);
    with_header(&header, &tight[begin..])
}

/// A change to a file.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let telling = select(&b"{}[]\",:0129-+.eE \\\n\0\xff"[..]);
    prop_oneof![
        (any::<usize>(), telling.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), 1_usize..20).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<usize>(), vec(telling, 1..5)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 1_usize..60).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn changed(mut file: Vec<u8>, change: &Change) -> Vec<u8> {
    let length = file.len();
    let place = |at: usize| at % length.max(1);
    match change {
        Change::Set(at, byte) => file[place(*at)] = *byte,
        Change::Cut(at, count) => drop(file.drain(place(*at)..(place(*at) + count).min(length))),
        Change::Insert(at, bytes) => drop(file.splice(place(*at)..place(*at), bytes.iter().copied())),
        Change::Repeat(at, count) => {
            let piece = file[place(*at)..(place(*at) + count).min(length)].to_vec();
            file.splice(place(*at)..place(*at), piece);
        }
    }
    file
}

/// Has the length in front say what the header has after a change within it.
fn with_length(mut file: Vec<u8>, before: &[u8]) -> Vec<u8> {
    let data = before.len() - usize::try_from(parsed(before).unwrap().data_begin()).unwrap();
    if file.len() >= PREFIX + data {
        let length = (file.len() - PREFIX - data) as u64;
        file[..PREFIX].copy_from_slice(&length.to_le_bytes());
    }
    file
}

proptest! {
    #[test]
    fn what_is_written_comes_back(tensors in tensors(), spaces in 0_usize..9) {
        let file = file(&tensors, spaces);
        prop_assert!(agrees(&file));
        let header = parsed(&file).unwrap();
        for (name, dtype, shape, bytes) in &tensors {
            let tensor = header.get(name).unwrap();
            prop_assert_eq!((tensor.dtype, &tensor.shape, tensor.nbytes()), (*dtype, shape, bytes.len() as u64));
        }
    }

    #[test]
    fn what_is_broken_is_refused_or_means_the_same_to_all(
        tensors in tensors(),
        changes in vec(change(), 1..4),
        keep_length in any::<bool>(),
    ) {
        let whole = file(&tensors, 0);
        let mut broken = whole.clone();
        for change in changes.iter().filter(|_| !whole.is_empty()) {
            broken = changed(broken, change);
            if broken.len() < PREFIX {
                break;
            }
        }
        if !keep_length {
            broken = with_length(broken, &whole);
        }
        agrees(&broken);
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in vec(any::<u8>(), 0..200), length in any::<u64>()) {
        let _ = Header::parse(&bytes, length);
        let _ = Index::parse(&bytes);
        agrees(&with_header(&String::from_utf8_lossy(&bytes), &[]));
    }

    #[test]
    fn files_of_an_index_are_plain_names(name in "[./\\\\a:~ ]{0,12}(.safetensors)?") {
        let text = serde_json::json!({"weight_map": {"w": name}}).to_string();
        if Index::parse(text.as_bytes()).is_ok() {
            let path = std::path::Path::new(&name);
            prop_assert_eq!(path.components().count(), 1);
            prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), &name);
        }
    }

    #[test]
    fn rows_are_what_a_slice_of_the_tensor_is(
        length in 1_usize..40,
        width in 0_usize..9,
        from in 0_usize..40,
        to in 0_usize..40,
        mapped in any::<bool>(),
    ) {
        let bytes: Vec<u8> = (0..length * width * 2).map(|at| at.to_le_bytes()[0]).collect();
        let folder = Folder::new(&[("w.safetensors", &written(&[("o", "U8", &[1], &[9]), ("w", "I16", &[length, width], &bytes)]))]);
        let settings = if mapped { mapping() } else { reading() };
        let weights = Weights::open(&folder.path("w.safetensors"), &settings, &unwatched).unwrap();
        let found = weights.rows("w", from..to);
        if from <= to && to <= length {
            let tensor = found.unwrap();
            prop_assert_eq!(tensor.shape, [to - from, width]);
            prop_assert_eq!(tensor.bytes.as_slice(), &bytes[from * width * 2..to * width * 2]);
        } else {
            prop_assert_eq!(found.unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
