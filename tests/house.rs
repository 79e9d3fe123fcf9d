//! The house as DESIGN.md draws it, read from the source: arrows point down, one room names Python, few files are unsafe.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, the lowest first. Rooms on one floor do not import one another.
const FLOORS: [&[&str]; 7] = [
    &["error"],
    &["flow", "tensor", "metrics", "runtime"],
    &["pool", "batch", "stream", "models", "formats", "process", "wire"],
    &["pipeline"],
    &["client", "serve"],
    &["gateway", "bench"],
    &["bindings"],
];

/// The files that may hold unsafe code, each with a reason of its own at its head.
const UNSAFE: [&str; 4] = [
    "bindings/bridge/calls.rs",
    "bindings/convert/arrays.rs",
    "bindings/inherited.rs",
    "formats/safetensors/region.rs",
];

/// The one file that may take the interpreter's lock or give it back.
const LOCK: [&str; 1] = ["bindings/bridge/lock.rs"];

/// The files that may use the standard library's locks.
const STANDARD_LOCKS: [&str; 1] = ["flow/monitor.rs"];

struct Source {
    /// Relative to `src`.
    path: String,
    /// Its code; what stands in comments is left out.
    code: String,
}

impl Source {
    /// The room that it belongs to; none for the front door.
    fn room(&self) -> Option<&str> {
        let room = self.path.split('/').next()?.trim_end_matches(".rs");
        (room != "lib").then_some(room)
    }

    /// How many modules stand above its code, the crate itself left out.
    fn depth(&self) -> usize {
        let file = self.path.rsplit('/').next().unwrap();
        self.path.split('/').count() - usize::from(file == "mod.rs")
    }

    /// The rooms that it names, by paths from the crate or by climbing out of its own room.
    fn neighbours(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            if !self.code[..at].ends_with(|before: char| is_name(before) || before == '$') {
                found.extend(first_names(&self.code[at + "crate::".len()..]));
            }
        }
        found.extend(self.code.lines().flat_map(|line| self.climbed(line)));
        found
    }

    /// What a line reaches with more `super`s than the file has modules above it.
    fn climbed(&self, line: &str) -> Vec<String> {
        // Code that is indented may stand in a module of its own, one deeper.
        let inner = usize::from(line.starts_with(' '));
        let climb = "super::".repeat(self.depth() + inner);
        line.find(&climb).map_or(Vec::new(), |at| first_names(&line[at + climb.len()..]))
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The first name of a path, or of each path in a group.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![path.chars().take_while(|letter| is_name(*letter)).collect()];
    };
    let (mut depth, mut paths) = (1, vec![String::new()]);
    for letter in group.chars() {
        depth = match letter {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
        match letter {
            _ if depth == 0 => break,
            ',' if depth == 1 => paths.push(String::new()),
            _ => paths.last_mut().unwrap().push(letter),
        }
    }
    paths.iter().map(|path| path.trim()).filter(|path| !path.is_empty()).flat_map(first_names).collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { path, code: without_comments(&fs::read_to_string(file).unwrap()) }
    };
    files.iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Line comments are the only ones that this crate has; the `//` of an address in a text is none.
fn without_comments(code: &str) -> String {
    let line = |line: &str| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..comment.map_or(line.len(), |(at, _)| at)].to_owned()
    };
    code.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn files_with(word: &str) -> BTreeSet<String> {
    sources().into_iter().filter(|source| source.code.contains(word)).map(|source| source.path).collect()
}

fn assert_only(word: &str, allowed: &[&str]) {
    let allowed: BTreeSet<_> = allowed.iter().map(|path| (*path).to_owned()).collect();
    let surplus: Vec<_> = files_with(word).difference(&allowed).cloned().collect();
    assert!(surplus.is_empty(), "'{word}' stands in {surplus:?}");
}

#[test]
fn every_room_stands_on_a_floor() {
    for source in sources() {
        if let Some(room) = source.room() {
            assert!(floor(room).is_some(), "src/{} stands on no floor of DESIGN.md", source.path);
        }
    }
}

#[test]
fn arrows_point_down_only() {
    let mut upward = Vec::new();
    let mut arrows = 0;
    for source in sources() {
        let Some(room) = source.room() else { continue };
        for neighbour in source.neighbours() {
            if neighbour == room {
                continue;
            }
            arrows += 1;
            let down = matches!((floor(&neighbour), floor(room)), (Some(below), Some(here)) if below < here);
            if !down {
                upward.push(format!("src/{} names {neighbour}", source.path));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
    assert!(arrows > 50, "only {arrows} arrows were found: the search is broken");
}

#[test]
fn bindings_alone_name_python() {
    for word in ["pyo3", "numpy"] {
        let elsewhere: Vec<_> =
            files_with(word).into_iter().filter(|path| !path.starts_with("bindings/")).collect();
        assert!(elsewhere.is_empty(), "'{word}' stands in {elsewhere:?}");
    }
    assert!(!files_with("pyo3").is_empty(), "the search is broken");
}

#[test]
fn unsafe_code_stands_in_the_listed_files_alone() {
    assert_only("unsafe_code", &UNSAFE);
    assert_only("unsafe ", &UNSAFE);
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn one_file_takes_the_interpreters_lock() {
    assert_only("disallowed_methods", &LOCK);
    for call in ["Python::attach(", "Python::try_attach(", ".detach("] {
        assert_only(call, &LOCK);
    }
}

#[test]
fn the_standard_librarys_locks_stand_in_the_listed_files_alone() {
    assert_only("disallowed_types", &STANDARD_LOCKS);
}

#[test]
fn the_search_sees_through_every_form_of_a_path() {
    let source = |path: &str, code: &str| Source { path: path.to_owned(), code: without_comments(code) };
    let named = |path: &str, code: &str| source(path, code).neighbours().into_iter().collect::<Vec<_>>();
    assert_eq!(named("a/b.rs", "use crate::flow::{Clock, Moment};"), ["flow"]);
    assert_eq!(
        named("a/b.rs", "use crate::{flow::Clock, error::{Error, Result},\n wire};"),
        ["error", "flow", "wire"]
    );
    assert_eq!(named("a/b.rs", "fn f(x: &crate::tensor::Rows) {} // crate::serve"), ["tensor"]);
    assert_eq!(named("a/b.rs", "let url = \"http://crate\"; crate::wire::oip();"), ["wire"]);
    assert!(named("a/b.rs", "use super::c; use mycrate::d; $crate::e;").is_empty());
    assert_eq!(named("a/b.rs", "use super::super::flow;"), ["flow"]);
    assert_eq!(named("a/mod.rs", "use super::flow;"), ["flow"]);
    assert_eq!(named("a.rs", "mod tests {\n    use super::*;\n    use super::super::flow;\n}"), ["flow"]);
    assert_eq!(source("a/b.rs", "").room(), Some("a"));
    assert_eq!(source("lib.rs", "").room(), None);
}
