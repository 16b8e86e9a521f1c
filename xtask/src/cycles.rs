//! Import cycles between modules.
//!
//! Modules of one parent must not import each other in a cycle, whether directly or through files
//! below them. A module and its own ancestors are one unit: a parent may use its children, and they
//! may use what it declares. Checked are `use` declarations and paths with `crate::` or `super::`;
//! imports inside a macro or through a re-export are not detected.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::say,
    paths,
    source::{self, File, imports},
};

/// Fails if a crate of the workspace has a cycle.
pub(crate) fn check() -> Result<()> {
    let mut count = 0;
    for dir in crates()? {
        for cycle in of_crate(&dir)? {
            say(&format!("{}: import cycle: {cycle}", dir.display()));
            count += 1;
        }
    }
    ensure!(
        count == 0,
        "{count} import cycle(s) between modules: move what both sides need to a module below them"
    );
    Ok(())
}

/// The directories of all crates' root files: `src`, and each integration test of several files.
fn crates() -> Result<Vec<PathBuf>> {
    let mut crates = Vec::new();
    for package in subdirectories(paths::root())? {
        if !package.join("Cargo.toml").exists() {
            continue;
        }
        crates.push(package.join("src"));
        let tests = package.join("tests");
        if tests.is_dir() {
            crates.extend(subdirectories(&tests)?);
        }
    }
    crates.retain(|dir| dir.join("main.rs").exists() || dir.join("lib.rs").exists());
    let relative = |dir: &PathBuf| dir.strip_prefix(paths::root()).unwrap_or(dir).to_owned();
    Ok(crates.iter().map(relative).collect())
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut dirs = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    dirs.retain(|path| path.is_dir());
    dirs.sort();
    Ok(dirs)
}

fn of_crate(dir: &Path) -> Result<Vec<String>> {
    let graphs = graphs(&source::of_crate(dir)?);
    Ok(graphs.values().flat_map(Graph::cycles).collect())
}

type Module = Vec<String>;

/// Imports between the children of one module.
#[derive(Default)]
struct Graph {
    /// Importing child, imported child, and the file and line of one import.
    edges: BTreeMap<String, BTreeMap<String, String>>,
}

/// The graph of every module that has children, by the module.
fn graphs(files: &[File]) -> BTreeMap<Module, Graph> {
    let modules: BTreeSet<_> = files.iter().map(|file| file.module.clone()).collect();
    let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
    for file in files {
        for import in imports::of(
            &file.tokens,
            &file.module,
            &children(&modules, &file.module),
        ) {
            let imported = module_of(&modules, &import.path);
            let common = common_length(&file.module, imported);
            // An ancestor or a descendant.
            let (Some(from), Some(to)) = (file.module.get(common), imported.get(common)) else {
                continue;
            };
            let graph = graphs.entry(file.module[..common].to_vec()).or_default();
            let location = format!("{}:{}", file.path.display(), import.line);
            let imports = graph.edges.entry(from.clone()).or_default();
            imports.entry(to.clone()).or_insert(location);
        }
    }
    graphs
}

fn children(modules: &BTreeSet<Module>, parent: &[String]) -> BTreeSet<String> {
    let below = modules.iter().filter(|module| module.starts_with(parent));
    let children = below.filter_map(|module| module.get(parent.len()));
    children.cloned().collect()
}

/// The innermost module on a path.
fn module_of<'a>(modules: &BTreeSet<Module>, path: &'a [String]) -> &'a [String] {
    let is_module = |length: &usize| modules.contains(&path[..*length]);
    let length = (0..=path.len()).rev().find(is_module).unwrap_or(0);
    &path[..length]
}

fn common_length(left: &[String], right: &[String]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

impl Graph {
    /// One shortest cycle for each module that is the first by name on it.
    fn cycles(&self) -> Vec<String> {
        let mut reported = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.edges.keys() {
            let Some(cycle) = self.cycle(start) else {
                continue;
            };
            if reported.insert(cycle.iter().cloned().collect::<BTreeSet<_>>()) {
                cycles.push(self.describe(&cycle));
            }
        }
        cycles
    }

    /// The modules on a shortest path from `start` back to itself, `start` first (breadth-first search).
    fn cycle(&self, start: &String) -> Option<Vec<String>> {
        let mut paths = VecDeque::from([vec![start.clone()]]);
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop_front() {
            for next in self
                .edges
                .get(path.last()?)
                .into_iter()
                .flat_map(BTreeMap::keys)
            {
                if next == start {
                    return Some(path);
                }
                if seen.insert(next) {
                    paths.push_back([&path[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        None
    }

    /// `a -> b (a.rs:1) -> a (b.rs:2)`.
    fn describe(&self, cycle: &[String]) -> String {
        let mut steps = vec![cycle.first().cloned().unwrap_or_default()];
        let next = cycle.iter().skip(1).chain(cycle.first());
        for (from, to) in cycle.iter().zip(next) {
            let location = &self.edges[from][to];
            steps.push(format!("{to} ({location})"));
        }
        steps.join(" -> ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(sources: &[(&str, &str)]) -> Vec<String> {
        let file = |(module, source): &(&str, &str)| File {
            path: format!("{module}.rs").into(),
            module: module.split('/').map(str::to_owned).collect(),
            tokens: source.parse().unwrap(),
        };
        let files: Vec<_> = sources.iter().map(file).collect();
        graphs(&files).values().flat_map(Graph::cycles).collect()
    }

    #[test]
    fn a_cycle_is_reported_as_a_path() {
        let found = cycles(&[
            ("a", "use crate::b::B;"),
            ("b", "\nfn f() { crate::c::g() }"),
            ("c", "use crate::{a, d::D};"),
            ("d", ""),
        ]);
        assert_eq!(found, ["a -> b (a.rs:1) -> c (b.rs:2) -> a (c.rs:1)"]);
    }

    #[test]
    fn files_below_count_for_their_directory() {
        let found = cycles(&[
            ("a", ""),
            ("a/x", "use crate::b::y::Y;"),
            ("b", ""),
            ("b/y", "use crate::a::Z;"),
        ]);
        assert_eq!(found, ["a -> b (a/x.rs:1) -> a (b/y.rs:1)"]);
        let found = cycles(&[
            ("a", ""),
            ("a/x", "use super::y::Y;"),
            ("a/y", "use super::x;"),
        ]);
        assert_eq!(found, ["x -> y (a/x.rs:1) -> x (a/y.rs:1)"]);
    }

    #[test]
    fn parents_and_children_may_use_each_other() {
        let found = cycles(&[
            ("a", "use x::X;"),
            ("a/x", "use super::A;"),
            ("b", "use crate::a;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
