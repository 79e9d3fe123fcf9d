//! Files that are no graphs, and weights in files beside them.

use std::fs;
use std::path::Path;

use penstock::error::{Error, ErrorKind};
use penstock::formats::onnx::{Graph, Interface, SessionSettings};

use crate::support::{as_floats, file, floats, open_at, read, spares};

fn refused(path: &Path) -> Error {
    Graph::read(path, &Interface::default(), None).unwrap_err()
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn what_is_no_graph_is_refused_without_the_library() {
    let whole = fs::read(file("identities")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
    for (bytes, words) in [
        (&b""[..], "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"\x18\x00\x00\x00ORTM and so on", "(.ort)"),
        (b"PK\x03\x04 a zip archive, for example of PyTorch", "no onnx model"),
        (&noise, "no onnx model"),
        (&whole[..whole.len() / 2], "cut off"),
        (b"\x08\x0a", "holds no graph"),
    ] {
        let (_folder, path) = written(bytes);
        let error = refused(&path);
        assert_eq!(error.kind(), ErrorKind::UnsafeFormat, "{error}");
        assert!(error.message().contains(words) && error.message().contains("model.onnx"), "{error}");
    }
}

#[test]
fn any_cut_and_any_flipped_bit_is_refused_or_read_and_never_a_panic() {
    let whole = fs::read(file("escape_nested")).unwrap();
    let (_folder, path) = written(&whole);
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&path);
    }
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let _ = Graph::read(&path, &Interface::default(), None);
    }
}

#[test]
fn graphs_inside_of_graphs_without_end_are_refused() {
    // A graph, whose node has an attribute, which is a graph…: lengths from the inside out.
    let mut inside = Vec::new();
    let wrap = |tag: u8, inside: &[u8]| {
        let mut outside = vec![tag << 3 | 2];
        let mut length = inside.len();
        while length >= 0x80 {
            outside.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        outside.push(length.to_le_bytes()[0]);
        outside.extend_from_slice(inside);
        outside
    };
    for _ in 0..20_000 {
        // AttributeProto.g, NodeProto.attribute, GraphProto.node
        inside = wrap(1, &wrap(5, &wrap(6, &inside)));
    }
    let mut model = vec![0x08, 0x0a];
    model.extend_from_slice(&wrap(7, &inside));
    let (_folder, path) = written(&model);
    let error = refused(&path);
    assert!(error.kind() == ErrorKind::UnsafeFormat && error.message().contains("recursion"), "{error}");
}

#[test]
fn what_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    for (path, words) in
        [(folder.path().join("none.onnx"), "No such file"), (folder.path().into(), "no regular file")]
    {
        let error = refused(&path);
        assert!(error.kind() == ErrorKind::LoadFailed && error.message().contains(words), "{error}");
    }
}

#[test]
fn a_file_that_is_not_the_promised_one_is_refused() {
    use sha2::{Digest, Sha256};
    let digest = |bytes: &[u8]| {
        let hex = |text: String, byte: &u8| text + &format!("{byte:02X}");
        Sha256::digest(bytes).iter().fold(String::new(), hex)
    };
    let path = file("doubles");
    let own = digest(&fs::read(&path).unwrap());
    Graph::read(&path, &Interface::default(), Some(&own)).unwrap();
    let other = digest(b"another");
    let error = Graph::read(&path, &Interface::default(), Some(&other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert!(error.message().contains(&own.to_lowercase()) && error.message().contains(&other), "{error}");
}

#[test]
fn weights_outside_of_the_directory_are_refused() {
    for name in ["escape", "escape_absolute", "escape_sparse", "escape_nested", "escape_address"] {
        let error = read(name, &Interface::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PathEscape, "{name}: {error}");
    }
}

#[test]
fn a_link_out_of_the_directory_is_refused_and_one_inside_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir_all(&model).unwrap();
    let path = model.join("model.onnx");
    fs::copy(file("external"), &path).unwrap();
    fs::write(folder.path().join("secret"), [0; 12]).unwrap();
    std::os::unix::fs::symlink("../secret", model.join("weights.bin")).unwrap();
    let error = refused(&path);
    assert!(error.kind() == ErrorKind::PathEscape && error.message().contains("weights.bin"), "{error}");

    fs::remove_file(model.join("weights.bin")).unwrap();
    fs::write(model.join("other"), [0; 12]).unwrap();
    std::os::unix::fs::symlink("other", model.join("weights.bin")).unwrap();
    assert_eq!(Graph::read(&path, &Interface::default(), None).unwrap().signature().size(), 136 + 12);

    fs::remove_file(model.join("weights.bin")).unwrap();
    fs::create_dir(model.join("weights.bin")).unwrap();
    assert_eq!(refused(&path).kind(), ErrorKind::PathEscape, "a directory");
}

#[test]
fn the_cache_of_hugging_face_links_into_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let of_model = folder.path().join("models--org--name");
    let (snapshot, blobs) = (of_model.join("snapshots/abc"), of_model.join("blobs"));
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    fs::copy(file("external"), blobs.join("1")).unwrap();
    fs::write(blobs.join("2"), [0; 12]).unwrap();
    std::os::unix::fs::symlink("../../blobs/1", snapshot.join("model.onnx")).unwrap();
    std::os::unix::fs::symlink("../../blobs/2", snapshot.join("weights.bin")).unwrap();
    Graph::read(&snapshot.join("model.onnx"), &Interface::default(), None).unwrap();
    fs::remove_file(snapshot.join("weights.bin")).unwrap();
    fs::write(folder.path().join("secret"), [0; 12]).unwrap();
    fs::write(of_model.join("secret"), [0; 12]).unwrap();
    for elsewhere in ["../../../secret", "../../secret"] {
        std::os::unix::fs::symlink(elsewhere, snapshot.join("weights.bin")).unwrap();
        assert_eq!(refused(&snapshot.join("model.onnx")).kind(), ErrorKind::PathEscape, "{elsewhere}");
        fs::remove_file(snapshot.join("weights.bin")).unwrap();
    }
}

#[test]
fn weights_beside_the_graph_are_used() {
    for (name, weights) in [
        ("external", "weights.bin"),
        ("external_dotted", "weights.bin"),
        ("external_in_folder", "folder/weights.bin"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::copy(file(name), &path).unwrap();
        let missing = refused(&path);
        assert!(
            missing.kind() == ErrorKind::LoadFailed && missing.message().contains("weights.bin"),
            "{missing}"
        );
        let at = folder.path().join(weights);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let numbers: Vec<u8> = [2.0_f32, 3.0, 4.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        fs::write(&at, &numbers).unwrap();
        let open = || open_at(&path, &Interface::default(), &SessionSettings::default(), 2);
        let Some(sessions) = open() else { return };
        let sessions = sessions.unwrap();
        // What is on disk afterwards is nobody's concern.
        fs::write(&at, []).unwrap();
        let x = floats(&[3], &[1.0; 3]);
        for _ in 0..2 {
            let y = sessions.run(&[&x], 0..1, &spares()).unwrap();
            assert_eq!(as_floats(&y[0]), [2.0, 3.0, 4.0]);
        }
        let cut = open().unwrap().err().unwrap();
        assert_eq!(cut.kind(), ErrorKind::LoadFailed, "{cut}");
    }
}
