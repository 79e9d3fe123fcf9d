//! The library, the graphs of `tests/onnx/graphs`, and columns to run them with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock::error::Result;
use penstock::formats::onnx::{Graph, Interface, Library, Opening, SessionSettings, Sessions, Signature};
use penstock::tensor::{Column, ColumnSpec, DType, Shape, Spares, Texts};

/// Where the library is. A machine of developers may be without; one of CI may not.
pub(crate) fn library_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PENSTOCK_ONNXRUNTIME") {
        return Some(path.into());
    }
    let found = find(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib"));
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no onnxruntime: set PENSTOCK_ONNXRUNTIME to its library"
        );
        eprintln!("not tested, because there is no onnxruntime: set PENSTOCK_ONNXRUNTIME to its library");
    }
    found
}

fn find(lib: &Path) -> Option<PathBuf> {
    let inside =
        |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let capi = |python: PathBuf| python.join("site-packages/onnxruntime/capi");
    inside(lib.to_owned()).flat_map(|python| inside(capi(python))).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    })
}

/// The library, loaded.
pub(crate) fn library() -> Option<Arc<Library>> {
    library_path().map(|path| Library::load(&path).unwrap())
}

/// The file of a graph.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/graphs").join(format!("{name}.onnx"))
}

/// What a graph's file says.
pub(crate) fn read(name: &str, interface: &Interface) -> Result<Arc<Signature>> {
    Ok(Arc::clone(Graph::read(&file(name), interface, None)?.signature()))
}

/// Sessions of the graph at `path`; none where there is no library.
pub(crate) fn open_at(
    path: &Path,
    interface: &Interface,
    settings: &SessionSettings,
    count: usize,
) -> Option<Result<Sessions>> {
    let library = library()?;
    let open = || {
        let graph = Arc::new(Graph::read(path, interface, None)?);
        let mut opening = Opening::new(&library, &graph, settings, interface.row_by_row)?;
        let sessions = (0..count).map(|_| opening.open()).collect::<Result<Vec<_>>>()?;
        Ok(Sessions::new(graph.signature(), sessions))
    };
    Some(open())
}

/// A session of a graph by name.
pub(crate) fn open(name: &str, interface: &Interface) -> Option<Sessions> {
    open_at(&file(name), interface, &SessionSettings::default(), 1).map(Result::unwrap)
}

pub(crate) fn spares() -> Arc<Spares> {
    Spares::new(1 << 20)
}

/// Rows of numbers from their bytes.
pub(crate) fn bytes(dtype: DType, row: &[usize], data: &[u8]) -> Column {
    let spec = ColumnSpec::Numbers { dtype, shape: Shape::from_slice(row) };
    let mut column = Column::new(&spec, &spares());
    if let Column::Numbers { memory, .. } = &mut column {
        memory.extend(data);
    }
    column
}

pub(crate) fn floats(row: &[usize], data: &[f32]) -> Column {
    bytes(DType::Float32, row, &data.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>())
}

pub(crate) fn longs(row: &[usize], data: &[i64]) -> Column {
    bytes(DType::Int64, row, &data.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>())
}

pub(crate) fn texts(row: &[usize], data: &[&str]) -> Column {
    let mut texts = Texts::default();
    for text in data {
        texts.push(text.as_bytes());
    }
    Column::Texts { shape: Shape::from_slice(row), texts }
}

/// The bytes of a column of numbers.
pub(crate) fn raw(column: &Column) -> &[u8] {
    match column {
        Column::Numbers { memory, .. } => memory.as_slice(),
        other => panic!("no numbers: {other:?}"),
    }
}

pub(crate) fn as_floats(column: &Column) -> Vec<f32> {
    raw(column).chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn as_longs(column: &Column) -> Vec<i64> {
    raw(column).chunks_exact(8).map(|bytes| i64::from_ne_bytes(bytes.try_into().unwrap())).collect()
}
