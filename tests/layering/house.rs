//! All source files together: which module a path leads to, and so who imports whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Path, Source, child};

/// Renamings that a path may lead through; more is a circle of them.
const MOST_ALIASES: usize = 16;

pub struct House {
    pub sources: Vec<Source>,
    /// Every module, with its file.
    modules: BTreeMap<Path, String>,
    aliases: BTreeMap<(Path, String), Path>,
}

/// What a path names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// In our modules: as it is written, as the names that modules give by `use` lead on, and last
    /// where it is.
    pub ours: Vec<Path>,
    /// In a crate, or in no module (`Vec::new`).
    pub elsewhere: Option<Path>,
}

impl House {
    /// Of files with their text. What exists in tests only is left out.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sources: Vec<Source> = files
            .into_iter()
            .map(|(file, text)| Source::parse(file, text))
            .collect();
        let tests: BTreeSet<Path> = sources
            .iter()
            .flat_map(|source| source.test_modules.iter().cloned())
            .collect();
        sources.retain(|source| {
            let module = source.module();
            !(1..=module.len()).any(|end| tests.contains(&module[..end]))
        });
        let (mut modules, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        for source in &sources {
            for module in source.modules.iter().cloned().chain([source.module()]) {
                modules.insert(module, source.file.clone());
            }
            for (module, name, path) in &source.aliases {
                aliases.insert((module.clone(), name.clone()), path.clone());
            }
        }
        Self {
            sources,
            modules,
            aliases,
        }
    }

    /// What `path`, written in `module`, names.
    pub fn resolve(&self, module: &Path, path: &[String]) -> Named {
        let mut named = Named::default();
        self.follow(module, path, &mut named, MOST_ALIASES);
        named
    }

    fn follow(&self, module: &Path, path: &[String], named: &mut Named, left: usize) {
        let Some((first, behind)) = path.split_first() else {
            return;
        };
        let (mut at, mut rest, mut imported_here) = (module.clone(), path, false);
        match first.as_str() {
            "" => return named.elsewhere = Some(behind.to_vec()),
            "crate" | "satwatch" => (at, rest) = (Path::new(), behind),
            "self" => rest = behind,
            "super" => {
                let levels = path.iter().take_while(|word| *word == "super").count();
                at.truncate(at.len().saturating_sub(levels));
                rest = &path[levels..];
            }
            name if self.modules.contains_key(&child(module, name)) => {}
            name if self.alias(module, name).is_some() => imported_here = true,
            _ => return named.elsewhere = Some(path.to_vec()),
        }
        while let Some((name, behind)) = rest.split_first() {
            let inner = child(&at, name);
            if self.modules.contains_key(&inner) {
                (at, rest) = (inner, behind);
                continue;
            }
            let Some(target) = self.alias(&at, name).filter(|_| left > 0) else {
                break;
            };
            if !imported_here {
                named.ours.push([at.clone(), rest.to_vec()].concat());
            }
            let target = [target, behind].concat();
            return match self.begins_in_a_module(&at, &target) {
                true => self.follow(&at, &target, named, left - 1),
                false => named.elsewhere = Some(target),
            };
        }
        named.ours.push([at, rest.to_vec()].concat());
    }

    fn alias(&self, module: &Path, name: &str) -> Option<&[String]> {
        let path = self.aliases.get(&(module.clone(), name.to_owned()));
        path.map(Vec::as_slice)
    }

    /// Whether the path of a `use` does; otherwise its first word is a crate.
    fn begins_in_a_module(&self, module: &Path, path: &[String]) -> bool {
        path.first().is_some_and(|first| {
            ["crate", "satwatch", "self", "super"].contains(&first.as_str())
                || self.modules.contains_key(&child(module, first))
        })
    }

    /// Circles of more than two files that import each other. An import leads to the file where
    /// the thing is, whoever gives it on. The children of a module are parts of it: that it uses
    /// them is no import.
    pub fn circles(&self) -> Vec<Vec<&str>> {
        let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for source in &self.sources {
            let here = source.module();
            for (module, path) in &source.paths {
                let named = self.resolve(module, path);
                let Some(target) = named.ours.last().and_then(|full| self.module_of(full)) else {
                    continue;
                };
                let (Some(file), false) = (self.modules.get(target), target.starts_with(&here))
                else {
                    continue;
                };
                arrows.entry(&source.file).or_default().insert(file);
            }
        }
        let reach: BTreeMap<&str, BTreeSet<&str>> = arrows
            .keys()
            .map(|file| (*file, reachable(&arrows, file)))
            .collect();
        let mut circles = BTreeSet::new();
        for (file, seen) in &reach {
            let circle: Vec<&str> = seen
                .iter()
                .filter(|other| reach.get(*other).is_some_and(|back| back.contains(file)))
                .copied()
                .collect();
            if circle.len() > 2 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// The module that a full path leads into.
    fn module_of<'a>(&self, full: &'a [String]) -> Option<&'a [String]> {
        let heads = (1..=full.len()).rev().map(|end| &full[..end]);
        heads
            .into_iter()
            .find(|head| self.modules.contains_key(*head))
    }
}

/// All that can be reached from a file by imports.
fn reachable<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for target in arrows.get(file).into_iter().flatten() {
            if seen.insert(*target) {
                open.push(target);
            }
        }
    }
    seen
}
