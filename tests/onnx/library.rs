//! The library itself: where there is none, and where there is another.

use std::path::Path;

use penstock::error::ErrorKind;
use penstock::formats::onnx::{Interface, Library, Provider, SessionSettings};

use crate::support::{file, library, library_path, open_at};

/// One test, because what is loaded first stays.
#[test]
fn a_library_that_cannot_be_used_says_how_to_get_one_and_the_next_may_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").unwrap();
    let own = std::env::current_exe().unwrap();
    for (path, words) in [
        (folder.path().join("none.so"), "no such file"),
        (folder.path().to_owned(), "no such file"),
        (text, "could not be loaded"),
        (Path::new("libonnxruntime.so").to_owned(), "not absolute"),
        (own, ""),
    ] {
        // Another test may have loaded it by now; then that one is used.
        if let Err(error) = Library::load(&path) {
            assert_eq!(error.kind(), ErrorKind::Config);
            let said = [words, "pip install \"penstock[onnx]\"", path.to_str().unwrap()];
            assert!(said.iter().all(|words| error.message().contains(words)), "{error}");
        }
    }
    let Some(path) = library_path() else { return };
    let loaded = Library::load(&path).unwrap();
    assert_eq!(loaded.path(), path);
    assert!(Library::build_info().is_some());
    let again = Library::load(&folder.path().join("none.so")).unwrap();
    assert_eq!(again.path(), path, "a process has one");
}

#[test]
fn a_provider_that_is_not_there_is_named_with_those_that_are() {
    let open = |name: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let providers = vec![Provider { name: name.to_owned(), options }];
        let settings = SessionSettings { providers, ..SessionSettings::default() };
        open_at(&file("doubles"), &Interface::default(), &settings, 1)
    };
    if library().is_none() {
        return;
    }
    open("CPUExecutionProvider", &[]).unwrap().unwrap();
    for (name, options, words) in [
        ("CUDAExecutionProvider", &[][..], "has no 'CUDAExecutionProvider', only CPUExecutionProvider"),
        ("Unheard", &[], "'Unheard' is no provider that is known"),
        ("CPUExecutionProvider", &[("device_id", "1")], "no option 'device_id'"),
    ] {
        let error = open(name, options).unwrap().err().unwrap();
        assert!(error.kind() == ErrorKind::Config && error.message().contains(words), "{error}");
    }
}

#[test]
fn what_the_library_does_not_know_is_a_load_that_fails() {
    for (name, words) in [("unknown_operator", "Unheard"), ("unknown_opset", "99")] {
        let Some(opened) = open_at(&file(name), &Interface::default(), &SessionSettings::default(), 1) else {
            return;
        };
        let error = opened.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LoadFailed, "{error}");
        assert!(error.message().contains(words) && error.message().contains(name), "{error}");
    }
}

#[test]
fn threads_are_counted_within_reason() {
    for threads in [0, 2000] {
        let settings = SessionSettings { threads, ..SessionSettings::default() };
        let Some(opened) = open_at(&file("doubles"), &Interface::default(), &settings, 1) else { return };
        let error = opened.err().unwrap();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("threads"), "{error}");
    }
    for (threads, inter_threads, spin, arena) in
        [(2, 1, true, true), (1, 2, false, false), (2, 2, false, true)]
    {
        let settings = SessionSettings { threads, inter_threads, spin, arena, ..SessionSettings::default() };
        open_at(&file("doubles"), &Interface::default(), &settings, 1).unwrap().unwrap();
    }
}
