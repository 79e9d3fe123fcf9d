//! Weights that lie in files beside a graph's: found, and read, only inside of its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::proto::{Attribute, Graph, Model, Node, SparseTensor, Tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::links::may_hold;

/// A file of external data.
#[derive(Debug)]
pub(super) struct External {
    path: PathBuf,
    pub(super) size: u64,
}

impl External {
    /// Those of a model whose file is at `path`, each once, by the name that the model calls it.
    ///
    /// # Errors
    /// [`ErrorKind::PathEscape`] for one outside of the model's directory; [`ErrorKind::LoadFailed`] for one that is not
    /// there.
    pub(super) fn all_of(path: &Path, model: &Model) -> Result<BTreeMap<String, Self>> {
        let mut locations = Locations::default();
        model.graph.iter().for_each(|graph| locations.of_graph(graph));
        for function in &model.functions {
            locations.of_nodes(&function.node);
            locations.of_attributes(&function.attribute_proto);
        }
        if locations.found.is_empty() {
            return Ok(BTreeMap::new());
        }
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = directory.canonicalize().map_err(|error| unread(path, directory, error))?;
        let find = |location: &str| Ok((location.to_owned(), Self::find(path, &directory, location)?));
        locations.found.iter().map(|location| find(location)).collect()
    }

    fn find(model: &Path, directory: &Path, location: &str) -> Result<Self> {
        let escapes = |why: &str| {
            let message = format!("'{}' keeps weights in '{location}', which {why}", model.display());
            Error::new(ErrorKind::PathEscape, message)
        };
        let inside = Path::new(location)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || location.contains(['\0', '\\']) || !inside {
            return Err(escapes("is no path below its directory"));
        }
        if location.contains("_ORT_MEM_ADDR_") {
            return Err(escapes("the library would take for an address in memory"));
        }
        let named = directory.join(location);
        let path = named.canonicalize().map_err(|error| unread(model, &named, error))?;
        if !may_hold(directory, &path) {
            return Err(escapes("is a link out of its directory"));
        }
        let known = std::fs::metadata(&path).map_err(|error| unread(model, &path, error))?;
        if !known.is_file() {
            return Err(escapes("is no regular file"));
        }
        Ok(Self { path, size: known.len() })
    }

    /// What is in it.
    pub(super) fn read(&self) -> Result<Arc<[u8]>> {
        let bytes = std::fs::read(&self.path).map_err(|error| unread(&self.path, &self.path, error))?;
        Ok(Arc::from(bytes))
    }
}

fn unread(model: &Path, what: &Path, error: std::io::Error) -> Error {
    let message = format!("'{}': '{}' cannot be read: {error}", model.display(), what.display());
    Error::with_source(ErrorKind::LoadFailed, message, error)
}

/// The names of files that tensors of a model lie in.
#[derive(Default)]
struct Locations {
    found: BTreeSet<String>,
}

impl Locations {
    fn of_graph(&mut self, graph: &Graph) {
        graph.initializer.iter().for_each(|tensor| self.of_tensor(tensor));
        graph.sparse_initializer.iter().for_each(|tensor| self.of_sparse(tensor));
        self.of_nodes(&graph.node);
    }

    fn of_nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.of_attributes(&node.attribute);
        }
    }

    /// Graphs inside of graphs are no deeper than the decoder allows: 100 messages.
    fn of_attributes(&mut self, attributes: &[Attribute]) {
        for attribute in attributes {
            attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.of_tensor(tensor));
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            sparse.for_each(|tensor| self.of_sparse(tensor));
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.of_graph(graph));
        }
    }

    fn of_sparse(&mut self, tensor: &SparseTensor) {
        tensor.values.iter().chain(&tensor.indices).for_each(|tensor| self.of_tensor(tensor));
    }

    fn of_tensor(&mut self, tensor: &Tensor) {
        let locations = tensor.external_data.iter().filter(|entry| entry.key == "location");
        self.found.extend(locations.map(|entry| entry.value.clone()));
    }
}
