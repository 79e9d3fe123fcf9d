//! Which models there are, what they are called, and which needs which.
//!
//! A reference is `name` (the alias of that name, else the highest version), `name@version`, `name@alias` (where the alias
//! leads to a version of that name) or `alias`. What a model requires are references, too: they are followed anew whenever it
//! is loaded, so they may name what is registered later, and move with their aliases.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use version::Version;

use super::ModelId;
use crate::error::{Error, ErrorKind, Result};

mod version;

/// Names in an error's text.
const NAMES_SHOWN: usize = 10;

/// A model as the graph knows it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is called, without its version.
    pub name: Arc<str>,
    /// Which of that name it is.
    pub version: Arc<str>,
    /// References to what must be loaded before it, in the order in which its loader gets them.
    pub requires: Vec<Arc<str>>,
}

/// All models by number, by name and by what they require.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Option<Node>>,
    names: BTreeMap<Arc<str>, BTreeMap<Version, ModelId>>,
    aliases: BTreeMap<Arc<str>, ModelId>,
}

impl Graph {
    /// No model at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model, or replaces the one of the same name and version, which keeps its number.
    ///
    /// # Errors
    ///
    /// `Config` for an empty name or version, one with an `@`, or a name that is an alias of another model's;
    /// `DependencyCycle`, with the path, where it would close a circle. Then nothing has changed.
    pub fn register(&mut self, node: Node) -> Result<ModelId> {
        self.check(&node)?;
        let version = Version::new(&node.version);
        let known = self.names.get(&node.name).and_then(|versions| versions.get(&version)).copied();
        let id = known.unwrap_or_else(|| ModelId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)));
        let name = Arc::clone(&node.name);
        let before = self.put(id, Some(node));
        self.names.entry(Arc::clone(&name)).or_default().insert(version.clone(), id);
        // A new edge begins or ends here, and so does every circle that it closes.
        let Some(cycle) = self.cycle_through(id) else { return Ok(id) };
        self.put(id, before);
        if known.is_none() {
            self.nodes.pop();
            self.forget(&name, &version);
        }
        Err(cycle)
    }

    /// Takes a model out, and the aliases that lead to it. Who requires it gets another version, or cannot be loaded.
    pub fn remove(&mut self, id: ModelId) -> Option<Node> {
        let node = self.nodes.get_mut(id.0 as usize)?.take()?;
        self.forget(&node.name, &Version::new(&node.version));
        self.aliases.retain(|_, target| *target != id);
        Some(node)
    }

    /// Has an alias lead to a model; returns where it led before.
    ///
    /// # Errors
    ///
    /// `Config` for an empty alias, one with an `@`, or the name of a model that `target` is no version of;
    /// `DependencyCycle` where models require the alias and `target` requires them. Then nothing has changed.
    pub fn set_alias(&mut self, alias: &str, target: ModelId) -> Result<Option<ModelId>> {
        let Some(node) = self.node(target) else {
            return Err(Error::new(ErrorKind::ModelNotFound, format!("alias '{alias}' leads to no model")));
        };
        plain("alias", alias)?;
        if self.names.contains_key(alias) && *node.name != *alias {
            let text = format!("alias '{alias}' is the name of a model and cannot lead to '{}'", node.name);
            return Err(Error::new(ErrorKind::Config, text));
        }
        let before = self.aliases.insert(alias.into(), target);
        let Some(cycle) = self.cycle_through(target) else { return Ok(before) };
        match before {
            Some(before) => self.aliases.insert(alias.into(), before),
            None => self.aliases.remove(alias),
        };
        Err(cycle)
    }

    /// Takes an alias away; returns where it led.
    pub fn remove_alias(&mut self, alias: &str) -> Option<ModelId> {
        self.aliases.remove(alias)
    }

    /// Every alias and where it leads.
    pub fn aliases(&self) -> impl Iterator<Item = (&Arc<str>, ModelId)> {
        self.aliases.iter().map(|(alias, id)| (alias, *id))
    }

    /// The model of that number.
    pub fn node(&self, id: ModelId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)?.as_ref()
    }

    /// Every model, in the order of numbers.
    pub fn ids(&self) -> impl Iterator<Item = ModelId> {
        let there = (0..).map(ModelId).zip(&self.nodes).filter(|(_, node)| node.is_some());
        there.map(|(id, _)| id)
    }

    /// The versions of a name, the lowest first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = ModelId> {
        self.names.get(name).into_iter().flat_map(BTreeMap::values).copied()
    }

    /// The model that a reference names.
    ///
    /// # Errors
    ///
    /// `ModelNotFound`, naming what there is.
    pub fn find(&self, reference: &str) -> Result<ModelId> {
        self.lookup(reference).ok_or_else(|| self.not_found(reference))
    }

    /// As it stands in texts: its name, with the version where there are several.
    pub fn label(&self, id: ModelId) -> Arc<str> {
        let Some(node) = self.node(id) else { return format!("model {}", id.0).into() };
        if self.names.get(&node.name).is_none_or(|versions| versions.len() < 2) {
            return Arc::clone(&node.name);
        }
        format!("{}@{}", node.name, node.version).into()
    }

    /// What a model requires itself, in the order of its spec; a model that it names twice stands there twice.
    ///
    /// # Errors
    ///
    /// `ModelNotFound`, naming the model and what it needs.
    pub fn requires(&self, id: ModelId) -> Result<Vec<ModelId>> {
        let Some(node) = self.node(id) else { return Ok(Vec::new()) };
        let find =
            |reference: &Arc<str>| self.lookup(reference).ok_or_else(|| self.missing(&[id], reference));
        node.requires.iter().map(find).collect()
    }

    /// `roots` and everything that they need, each once and after what it needs itself: the order of loading, and backwards
    /// that of unloading. The same for the same graph and roots.
    ///
    /// # Errors
    ///
    /// `ModelNotFound`, naming the chain, where one is not registered; `DependencyCycle` with its path.
    pub fn closure(&self, roots: &[ModelId]) -> Result<Vec<ModelId>> {
        let mut walk = Walk::default();
        for root in roots {
            self.visit(*root, &mut walk)?;
        }
        Ok(walk.done)
    }

    /// The models that require this one themselves, in the order of numbers.
    pub fn dependents(&self, id: ModelId) -> Vec<ModelId> {
        let needs = |other: &ModelId| {
            let requires = self.node(*other).map(|node| node.requires.as_slice()).unwrap_or_default();
            requires.iter().any(|reference| self.lookup(reference) == Some(id))
        };
        self.ids().filter(needs).collect()
    }

    /// How much is still to be done from the beginning of each load to the end of the last that needs it: its own `cost` and
    /// the longest chain of those in `order` that wait for it. In the order of `order`, which has dependencies first, as
    /// [`Graph::closure`] gives it.
    pub fn ranks(&self, order: &[ModelId], cost: impl Fn(ModelId) -> f64) -> Vec<f64> {
        let mut behind: HashMap<ModelId, f64, ahash::RandomState> =
            order.iter().map(|id| (*id, 0.0)).collect();
        let mut ranks: Vec<_> = order
            .iter()
            .rev()
            .map(|id| {
                let rank = cost(*id) + behind.get(id).copied().unwrap_or_default();
                let requires = self.node(*id).map(|node| node.requires.as_slice()).unwrap_or_default();
                for dependency in requires.iter().filter_map(|reference| self.lookup(reference)) {
                    if let Some(longest) = behind.get_mut(&dependency) {
                        *longest = longest.max(rank);
                    }
                }
                rank
            })
            .collect();
        ranks.reverse();
        ranks
    }

    fn check(&self, node: &Node) -> Result<()> {
        plain("name", &node.name)?;
        plain("version", &node.version)?;
        let leads = self.aliases.get(&node.name).and_then(|target| self.node(*target));
        match leads {
            Some(other) if other.name != node.name => {
                let text = format!("'{}' is an alias of '{}' and cannot name a model", node.name, other.name);
                Err(Error::new(ErrorKind::Config, text))
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, id: ModelId, node: Option<Node>) -> Option<Node> {
        let at = id.0 as usize;
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, None);
        }
        self.nodes.get_mut(at).and_then(|place| std::mem::replace(place, node))
    }

    fn forget(&mut self, name: &str, version: &Version) {
        let Some(versions) = self.names.get_mut(name) else { return };
        versions.remove(version);
        if versions.is_empty() {
            self.names.remove(name);
        }
    }

    fn lookup(&self, reference: &str) -> Option<ModelId> {
        let Some((name, which)) = reference.split_once('@') else {
            let alias = self.aliases.get(reference).copied();
            return alias.or_else(|| self.names.get(reference)?.values().next_back().copied());
        };
        let version = self.names.get(name)?.get(&Version::new(which)).copied();
        version.or_else(|| {
            let target = *self.aliases.get(which)?;
            (*self.node(target)?.name == *name).then_some(target)
        })
    }

    fn cycle_through(&self, id: ModelId) -> Option<Error> {
        // What is not registered yet may hide no circle.
        self.visit(id, &mut Walk { skips_missing: true, ..Walk::default() }).err()
    }

    /// Depth first, without recursion: a chain may be long.
    fn visit(&self, root: ModelId, walk: &mut Walk) -> Result<()> {
        if !walk.seen.insert(root) {
            return Ok(());
        }
        let mut path = vec![(root, 0)];
        while let Some((id, next)) = path.last_mut() {
            let requires = self.node(*id).map(|node| node.requires.as_slice()).unwrap_or_default();
            let Some(reference) = requires.get(*next) else {
                walk.done.push(*id);
                walk.finished.insert(*id);
                path.pop();
                continue;
            };
            *next += 1;
            match self.lookup(reference) {
                Some(dependency) if walk.seen.insert(dependency) => path.push((dependency, 0)),
                Some(dependency) if walk.finished.contains(&dependency) => {}
                Some(dependency) => return Err(self.cycle(&chain(&path), dependency)),
                None if walk.skips_missing => {}
                None => return Err(self.missing(&chain(&path), reference)),
            }
        }
        Ok(())
    }

    fn cycle(&self, chain: &[ModelId], closing: ModelId) -> Error {
        let circle = chain.iter().skip_while(|id| **id != closing).chain([&closing]);
        let path: Vec<_> = circle.map(|id| self.label(*id)).collect();
        Error::new(ErrorKind::DependencyCycle, format!("models require one another: {}", path.join(" -> ")))
    }

    fn missing(&self, chain: &[ModelId], reference: &Arc<str>) -> Error {
        let mut names: Vec<_> = chain.iter().map(|id| self.label(*id)).collect();
        names.push(Arc::clone(reference));
        let text = format!("{}, which is not registered", who_needs(&names));
        Error::new(ErrorKind::ModelNotFound, text)
    }

    fn not_found(&self, reference: &str) -> Error {
        let name = reference.split_once('@').map_or(reference, |(name, _)| name);
        let text = match self.names.get(name) {
            Some(versions) => {
                let there: Vec<_> = versions.keys().rev().map(Version::text).collect();
                format!("there is no '{reference}'; versions of '{name}' are {}", listed(&there))
            }
            None if self.names.is_empty() => format!("there is no model '{name}': none is registered"),
            None => {
                let mut there: Vec<_> =
                    self.names.keys().chain(self.aliases.keys()).map(AsRef::as_ref).collect();
                there.sort_by_key(|other| Reverse(alike(other, name)));
                there.dedup();
                format!("there is no model '{name}'; there are {}", listed(&there))
            }
        };
        Error::new(ErrorKind::ModelNotFound, text)
    }
}

/// A chain of models in words: "model 'head' needs 'encoder', which needs 'tokenizer'".
pub(super) fn who_needs(chain: &[Arc<str>]) -> String {
    let words = ["model ", " needs "].into_iter().chain(std::iter::repeat(", which needs "));
    let said: Vec<_> = chain.iter().zip(words).map(|(name, words)| format!("{words}'{name}'")).collect();
    said.concat()
}

/// What a walk has seen, what it is done with, and the latter in order.
#[derive(Default)]
struct Walk {
    seen: HashSet<ModelId, ahash::RandomState>,
    finished: HashSet<ModelId, ahash::RandomState>,
    done: Vec<ModelId>,
    skips_missing: bool,
}

fn chain(path: &[(ModelId, usize)]) -> Vec<ModelId> {
    path.iter().map(|(id, _)| *id).collect()
}

fn plain(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.contains('@') {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{what} '{text}' of a model is empty or contains '@'"),
        ));
    }
    Ok(())
}

/// How long the beginning is that two names have in common: who mistypes a name should see the right one.
fn alike(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
}

fn listed(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(|name| format!("'{name}'")).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
