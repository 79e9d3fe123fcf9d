//! Files: found, opened, mapped or read, compared with their digests.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Bytes that differ from their neighbours, and from those of another seed.
fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed).wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

/// Small, large, misaligned and empty tensors.
fn mixed() -> Vec<(String, &'static str, Vec<usize>, Vec<u8>)> {
    let tensor = |name: &str, dtype, shape: &[usize], length, seed| {
        (name.to_owned(), dtype, shape.to_vec(), bytes(length, seed))
    };
    vec![
        tensor("odd", "U8", &[3], 3, 1),
        tensor("scalar", "F64", &[], 8, 2),
        tensor("large", "F32", &[1500, 1000], 6_000_000, 3),
        tensor("empty", "F32", &[0, 7], 0, 4),
        tensor("packed", "F4", &[2, 3], 3, 5),
        tensor("half", "BF16", &[100_000], 200_000, 6),
        tensor("last", "I64", &[2], 16, 7),
    ]
}

fn file(tensors: &[(String, &'static str, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let tensors: Vec<Written<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), *dtype, shape.as_slice(), bytes.as_slice()))
        .collect();
    written(&tensors)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn load(path: &Path, settings: &Settings) -> Result<Vec<Tensor>, Error> {
    Weights::load(path, None, settings, &unwatched)
}

fn kind(result: Result<Vec<Tensor>, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn both_modes_give_what_the_file_holds() {
    let tensors = mixed();
    let folder = Folder::new(&[("m.safetensors", &file(&tensors))]);
    for settings in [
        reading(),
        mapping(),
        Settings { threads: 1.try_into().ok(), ..reading() },
        Settings { threads: 7.try_into().ok(), ..reading() },
    ] {
        let loaded = load(&folder.path("m.safetensors"), &settings).unwrap();
        assert_eq!(loaded.len(), tensors.len());
        for (tensor, (name, dtype, shape, bytes)) in loaded.iter().zip(&tensors) {
            assert_eq!((&tensor.name, tensor.dtype.name(), &tensor.shape), (name, *dtype, shape));
            assert!(tensor.bytes.as_slice() == bytes, "{name} under {settings:?}");
            if settings.mode == Mode::Read {
                assert!(tensor.bytes.is_aligned(tensor.dtype.alignment()), "{name}");
                assert!(bytes.len() < 4096 || tensor.bytes.is_aligned(ALIGNMENT), "{name}");
            }
        }
        let kind = if settings.mode == Mode::Map { RegionKind::Mapped } else { RegionKind::Read };
        let one = loaded[0].bytes.region();
        assert!(loaded.iter().all(|tensor| std::sync::Arc::ptr_eq(tensor.bytes.region(), one)));
        assert_eq!(one.kind(), kind);
    }
}

#[test]
fn tensors_outlive_what_they_came_from() {
    let tensors = mixed();
    let folder = Folder::new(&[("m.safetensors", &file(&tensors))]);
    for settings in [reading(), mapping()] {
        let mut loaded = load(&folder.path("m.safetensors"), &settings).unwrap();
        let last = loaded.pop().unwrap();
        drop(loaded);
        assert_eq!(last.bytes.as_slice(), tensors.last().unwrap().3);
        let copy = last.bytes.aligned_copy().unwrap();
        assert!(copy.is_aligned(ALIGNMENT) && copy.as_slice() == last.bytes.as_slice());
        drop(last);
        assert_eq!(copy.region().len(), 16);
    }
    // The inode lives as long as the map does.
    let mapped = load(&folder.path("m.safetensors"), &mapping()).unwrap();
    fs::remove_file(folder.path("m.safetensors")).unwrap();
    assert!(mapped[2].bytes.as_slice() == tensors[2].3);
}

#[test]
fn some_names_read_only_these() {
    let tensors = mixed();
    let folder = Folder::new(&[("m.safetensors", &file(&tensors))]);
    let path = folder.path("m.safetensors");
    let names = ["half", "odd", "half", "empty"].map(str::to_owned);
    for settings in [reading(), mapping()] {
        let loaded = Weights::load(&path, Some(&names), &settings, &unwatched).unwrap();
        let found: Vec<_> = loaded.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(found, ["half", "odd", "empty"]);
        assert!(loaded[0].bytes.as_slice() == tensors[5].3 && loaded[1].bytes.as_slice() == tensors[0].3);
        let most = if settings.mode == Mode::Map { usize::MAX } else { 201_000 };
        assert!(loaded[0].bytes.region().len() < most);
    }
    let error = Weights::load(&path, Some(&["none".to_owned()]), &reading(), &unwatched).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("m.safetensors' has no tensor 'none'"), "{}", error.message());
}

#[test]
fn open_weights_read_what_is_asked_for() {
    let tensors = mixed();
    let folder = Folder::new(&[("m.safetensors", &file(&tensors))]);
    for settings in [reading(), mapping()] {
        let weights =
            Weights::open(&folder.path("m.safetensors"), &settings, &|_, _| panic!("no work")).unwrap();
        assert_eq!((weights.len(), weights.nbytes()), (7, 6_200_030));
        let names: Vec<_> = weights.tensors().map(|found| found.entry.name.as_str()).collect();
        assert_eq!(names, ["odd", "scalar", "large", "empty", "packed", "half", "last"]);
        for (name, _, shape, bytes) in &tensors {
            let tensor = weights.tensor(name).unwrap();
            assert!(&tensor.shape == shape && tensor.bytes.as_slice() == bytes);
        }
        let rows = weights.rows("large", 7..1207).unwrap();
        assert!(rows.shape == [1200, 1000] && rows.bytes.as_slice() == &tensors[2].3[28_000..4_828_000]);
        assert_eq!(weights.get("half").unwrap().file, folder.path("m.safetensors"));
        assert_eq!(weights.rows("scalar", 0..0).unwrap_err().kind(), ErrorKind::Config);
        let shared = weights.rows("packed", 0..1).unwrap_err();
        assert!(shared.message().contains("12 bits"), "{}", shared.message());
        assert_eq!(weights.rows("empty", 0..0).unwrap().shape, [0, 7]);
        assert_eq!(weights.tensor("none").unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn digests_are_compared_in_every_mode() {
    let contents = file(&mixed());
    let folder = Folder::new(&[("m.safetensors", &contents)]);
    let path = folder.path("m.safetensors");
    let mut other = contents.clone();
    *other.last_mut().unwrap() ^= 1;
    for mode in [Mode::Auto, Mode::Map, Mode::Read] {
        let asking = |digest: &str| Settings {
            mode,
            sha256: Some(Checksums::One(digest.to_owned())),
            ..Settings::default()
        };
        let (right, wrong) = (asking(&sha256(&contents)), asking(&sha256(&other)));
        let names = ["odd".to_owned()];
        assert_eq!(load(&path, &right).unwrap().len(), 7);
        assert!(Weights::load(&path, Some(&names), &right, &unwatched).is_ok());
        assert!(Weights::open(&path, &right, &unwatched).unwrap().tensor("large").is_ok());
        assert_eq!(kind(load(&path, &wrong)), ErrorKind::ChecksumMismatch);
        assert_eq!(kind(Weights::load(&path, Some(&names), &wrong, &unwatched)), ErrorKind::ChecksumMismatch);
        let error = Weights::open(&path, &wrong, &unwatched).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
        assert!(error.message().contains(&sha256(&contents)) && error.message().contains(&sha256(&other)));
        assert_eq!(kind(load(&path, &asking("abc"))), ErrorKind::Config);
    }
    folder.write("none.safetensors", &written(&[]));
    let empty = Settings { sha256: Some(Checksums::One(sha256(&written(&[])))), ..reading() };
    assert!(load(&folder.path("none.safetensors"), &empty).unwrap().is_empty());
}

#[test]
fn whoever_watches_hears_of_all_bytes_and_may_stop() {
    let contents = file(&mixed());
    let folder = Folder::new(&[("m.safetensors", &contents)]);
    let path = folder.path("m.safetensors");
    let (most, last) = (AtomicU64::new(0), AtomicU64::new(0));
    let watch = |done: u64, total: u64| {
        assert!(done <= total && done >= last.swap(done, Ordering::Relaxed));
        most.store(total, Ordering::Relaxed);
        true
    };
    Weights::load(&path, None, &reading(), &watch).unwrap();
    assert_eq!((most.load(Ordering::Relaxed), last.load(Ordering::Relaxed)), (6_200_030, 6_200_030));
    for settings in [reading(), Settings { sha256: Some(Checksums::One(sha256(&contents))), ..mapping() }] {
        let error = Weights::load(&path, None, &settings, &|_, _| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoadFailed);
        assert!(error.message().contains("no longer wanted"), "{}", error.message());
    }
}

#[test]
fn several_files_are_one_set_of_weights() {
    let (a, b) = (
        written(&[("a", "U8", &[4], &[1; 4])]),
        written(&[("b", "U8", &[2], &[2; 2]), ("c", "U8", &[1], &[3])]),
    );
    let index = br#"{"metadata":{"total_size":7},"weight_map":{"c":"2.safetensors","a":"1.safetensors","b":"2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("m.safetensors.index.json", index),
        ("1.safetensors", &a),
        ("2.safetensors", &b),
        ("other.safetensors", b"garbage"),
    ];
    let folder = Folder::new(&files);
    for path in [folder.path(""), folder.path("m.safetensors.index.json")] {
        for settings in [reading(), mapping()] {
            let loaded = load(&path, &settings).unwrap();
            let found: Vec<_> =
                loaded.iter().map(|tensor| (tensor.name.as_str(), tensor.bytes.as_slice())).collect();
            assert_eq!(found, [("a", &[1, 1, 1, 1][..]), ("b", &[2, 2]), ("c", &[3])]);
            let weights = Weights::open(&path, &settings, &unwatched).unwrap();
            assert_eq!(weights.tensor("c").unwrap().bytes.as_slice(), [3]);
            assert!(weights.get("d").is_none());
            let chosen =
                Weights::load(&path, Some(&["c", "a"].map(str::to_owned)), &settings, &unwatched).unwrap();
            assert_eq!(chosen.iter().map(|tensor| tensor.name.as_str()).collect::<String>(), "ca");
        }
    }
    let digests = |index_digest: &str| {
        let each = [
            ("1.safetensors", sha256(&a)),
            ("2.safetensors", sha256(&b)),
            ("m.safetensors.index.json", index_digest.to_owned()),
        ];
        Some(Checksums::Each(each.into_iter().map(|(name, digest)| (name.to_owned(), digest)).collect()))
    };
    assert!(load(&folder.path(""), &Settings { sha256: digests(&sha256(index)), ..reading() }).is_ok());
    let wrong = Settings { sha256: digests(&sha256(&a)), ..reading() };
    assert_eq!(kind(load(&folder.path(""), &wrong)), ErrorKind::ChecksumMismatch);
    folder.write("2.safetensors", &a);
    assert_eq!(kind(load(&folder.path(""), &reading())), ErrorKind::UnsafeFormat);
    fs::remove_file(folder.path("2.safetensors")).unwrap();
    assert_eq!(kind(load(&folder.path(""), &reading())), ErrorKind::LoadFailed);
}

#[test]
fn links_stay_inside_their_directory() {
    let w = written(&[("w", "U8", &[1], &[7])]);
    let index = br#"{"weight_map":{"w":"w.safetensors"}}"#;
    let folder = Folder::new(&[
        ("outside/w.safetensors", &w),
        ("sharded/i.json", index),
        ("inside/i.json", index),
        ("inside/real/w.st", &w),
    ]);
    folder.link("../outside/w.safetensors", "sharded/w.safetensors");
    let error = load(&folder.path("sharded/i.json"), &reading()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PathEscape);
    assert!(error.message().contains("outside/w.safetensors"), "{}", error.message());
    // What the user names is followed; what a directory holds is not, where it leads out.
    assert_eq!(load(&folder.path("sharded/w.safetensors"), &reading()).unwrap().len(), 1);
    assert_eq!(kind(load(&folder.path("sharded"), &reading())), ErrorKind::PathEscape);
    folder.link("real/w.st", "inside/w.safetensors");
    assert_eq!(load(&folder.path("inside/i.json"), &reading()).unwrap().len(), 1);
    folder.link("inside", "linked");
    assert_eq!(load(&folder.path("linked"), &reading()).unwrap().len(), 1);
}

#[test]
fn the_cache_of_the_hub_is_understood() {
    let w = written(&[("w", "U8", &[1], &[7])]);
    let index = br#"{"weight_map":{"w":"w.safetensors"}}"#;
    let folder = Folder::new(&[
        ("models--org--name/blobs/1f", &w),
        ("models--org--name/blobs/2e", index),
        ("models--org--name/secret", &w),
        ("models--org--other/blobs/1f", &w),
    ]);
    let snapshot = "models--org--name/snapshots/abc";
    folder.link("../../blobs/1f", &format!("{snapshot}/w.safetensors"));
    folder.link("../../blobs/2e", &format!("{snapshot}/w.safetensors.index.json"));
    folder.link("../../../blobs/1f", &format!("{snapshot}/deep/w.safetensors"));
    for path in [snapshot.to_owned(), format!("{snapshot}/w.safetensors"), format!("{snapshot}/deep")] {
        assert_eq!(load(&folder.path(&path), &reading()).unwrap()[0].bytes.as_slice(), [7], "{path}");
    }
    for target in ["../../secret", "../../../models--org--other/blobs/1f"] {
        fs::remove_file(folder.path(snapshot).join("w.safetensors")).unwrap();
        folder.link(target, &format!("{snapshot}/w.safetensors"));
        assert_eq!(kind(load(&folder.path(snapshot), &reading())), ErrorKind::PathEscape, "{target}");
    }
}

#[test]
fn a_directory_says_which_file_is_meant() {
    let w = written(&[("w", "U8", &[1], &[7])]);
    let folder = Folder::new(&[
        ("one/w.safetensors", &w),
        ("one/.w.safetensors", &w),
        ("one/pytorch_model.bin.index.json", b"{}"),
        ("two/a.safetensors", &w),
        ("two/b.safetensors", &w),
        ("none/w.bin", &w),
    ]);
    assert_eq!(load(&folder.path("one"), &reading()).unwrap().len(), 1);
    let error = load(&folder.path("two"), &reading()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.message().contains("2 files") && error.message().contains("'a.safetensors'"),
        "{}",
        error.message()
    );
    assert_eq!(kind(load(&folder.path("none"), &reading())), ErrorKind::LoadFailed);
    assert_eq!(kind(load(&folder.path("nowhere"), &reading())), ErrorKind::LoadFailed);
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = Folder::new(&[]);
    let pipe = folder.path("pipe.safetensors");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(kind(load(&pipe, &reading())), ErrorKind::UnsafeFormat);
    assert_eq!(kind(load(&folder.path(""), &reading())), ErrorKind::UnsafeFormat);
    let pipe = folder.path("pipe.json");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(kind(load(&pipe, &reading())), ErrorKind::UnsafeFormat);
    assert!(load(Path::new("/dev/null"), &reading()).is_err());
    assert!(load(Path::new("/proc/self/mem"), &reading()).is_err());
}

#[test]
fn refusals_name_the_file() {
    let folder = Folder::new(&[("m.safetensors", b"garbage, of some length")]);
    let error = load(&folder.path("m.safetensors"), &reading()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeFormat);
    assert!(error.message().contains("m.safetensors': its header has"), "{}", error.message());
}

#[test]
fn a_file_that_changes_under_its_reader_is_told() {
    let tensors = mixed();
    let folder = Folder::new(&[("m.safetensors", &file(&tensors))]);
    let path = folder.path("m.safetensors");
    let weights = Weights::open(&path, &reading(), &unwatched).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(3_000_000).unwrap();
    let error = weights.tensor("large").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoadFailed);
    assert!(error.message().contains("became shorter while it was read"), "{}", error.message());
    // What is still there was written by somebody else.
    let error = weights.tensor("odd").unwrap_err();
    assert!(error.message().contains("changed while it was read"), "{}", error.message());
    assert_eq!(kind(load(&path, &reading())), ErrorKind::UnsafeFormat);
}

#[test]
fn a_file_that_changes_while_it_is_loaded_is_told() {
    let contents = file(&mixed());
    let folder = Folder::new(&[]);
    let path = folder.path("m.safetensors");
    let touch = |_: &Path| File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let replace = |path: &Path| {
        folder.write("new", &contents);
        fs::rename(folder.path("new"), path).unwrap();
    };
    for change in [&touch as &dyn Fn(&Path), &replace] {
        folder.write("m.safetensors", &contents);
        let watch = |done: u64, total: u64| {
            if done == total {
                change(&path);
            }
            true
        };
        let error = Weights::load(&path, None, &reading(), &watch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoadFailed);
        assert!(error.message().contains("changed while it was read"), "{}", error.message());
    }
}

#[test]
fn only_what_nobody_may_write_is_mapped_by_itself() {
    let folder = Folder::new(&[("m.safetensors", &file(&mixed()))]);
    let path = folder.path("m.safetensors");
    let kind = || load(&path, &Settings::default()).unwrap()[0].bytes.region().kind();
    assert_eq!(kind(), RegionKind::Read);
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    assert_eq!(kind(), RegionKind::Mapped);
    let weights = Weights::open(&path, &Settings::default(), &unwatched).unwrap();
    assert_eq!(weights.kind("odd"), Some(RegionKind::Mapped));
    assert_eq!(weights.kind("none"), None);
}

#[test]
fn metadata_of_several_files_are_told_together() {
    let shard = |name: &str, metadata: &str| {
        with_header(
            &format!(
                r#"{{"__metadata__":{metadata},"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#
            ),
            &[0],
        )
    };
    let index = br#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    let first = shard("a", r#"{"format":"pt"}"#);
    let second = shard("b", r#"{"format":"np","of":"2"}"#);
    let folder = Folder::new(&[("i.json", index), ("1.safetensors", &first), ("2.safetensors", &second)]);
    let weights = Weights::open(&folder.path("i.json"), &reading(), &unwatched).unwrap();
    let told: Vec<_> = weights.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(told, [("format", "pt"), ("of", "2")]);
}
