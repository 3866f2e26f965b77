//! The files and folders of a folder import downward only: no two of them reach one another.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Result, bail};

use self::known::KNOWN;
use super::{
    code,
    modules::{Modules, PACKAGES, of_package},
};
use crate::say;

/// Modules of one folder that reach one another by what they import.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Circle {
    folder: String,
    modules: BTreeSet<String>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules: Vec<&str> = self.modules.iter().map(String::as_str).collect();
        write!(f, "{}: {}", self.folder, modules.join(", "))
    }
}

/// Checks every package.
pub(super) fn check() -> Result<()> {
    let mut found = Vec::new();
    for package in PACKAGES {
        let modules = of_package(package)?;
        found.extend(circles(&format!("{package}/src"), &modules));
    }
    let known: Vec<Circle> = KNOWN
        .iter()
        .map(|(folder, modules, _)| Circle {
            folder: (*folder).to_owned(),
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
        })
        .collect();
    let mut mistakes = Vec::new();
    for circle in found.iter().filter(|circle| !known.contains(circle)) {
        mistakes.push(format!("{circle} import one another"));
    }
    for circle in known.iter().filter(|circle| !found.contains(circle)) {
        mistakes.push(format!("{circle} is listed as known, and is no circle"));
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    for mistake in &mistakes {
        say::line(mistake);
    }
    bail!("{} circles of modules", mistakes.len());
}

/// The circles among the modules of a crate, folder by folder.
fn circles(root: &str, modules: &Modules) -> Vec<Circle> {
    let mut imports: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, text) in modules {
        for path in code::paths(text) {
            let Some(imported) = resolve(module, &path, modules) else {
                continue;
            };
            let common = module.iter().zip(&imported);
            let common = common.take_while(|(one, other)| one == other).count();
            // Else one of the two is in the other.
            if let (Some(from), Some(to)) = (module.get(common), imported.get(common)) {
                let folder = imports.entry(module[..common].to_vec()).or_default();
                folder.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let mut circles = BTreeSet::new();
    for (folder, imports) in &imports {
        for module in imports.keys() {
            let reached = reach(module, imports);
            let modules: BTreeSet<String> = reached
                .iter()
                .filter(|other| reach(other, imports).contains(module))
                .cloned()
                .collect();
            if modules.len() > 1 {
                circles.insert(Circle {
                    folder: [&[root.to_owned()], &folder[..]].concat().join("/"),
                    modules,
                });
            }
        }
    }
    circles.into_iter().collect()
}

/// The module that a path leads to, or into.
fn resolve(module: &[String], path: &[String], modules: &Modules) -> Option<Vec<String>> {
    let mut words = path.iter().map(String::as_str).peekable();
    let mut found = match words.next()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        _ => module.split_last()?.1.to_vec(),
    };
    while words.next_if_eq(&"super").is_some() {
        found.pop();
    }
    for word in words {
        found.push(word.to_owned());
        if !modules.contains_key(&found) {
            found.pop();
            break;
        }
    }
    Some(found)
}

/// The modules that one imports, and those that these do.
fn reach(module: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut left = vec![module];
    while let Some(module) = left.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if reached.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[(&str, &str)]) -> Vec<String> {
        let modules = texts.iter().map(|(module, text)| {
            let module = module.split('/').filter(|name| !name.is_empty());
            (module.map(str::to_owned).collect(), code::of(text))
        });
        let circles = circles("src", &modules.collect());
        circles.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn modules_that_import_one_another_are_found_however_they_do() {
        let below = ("c", "use std::fs;");
        for (a, b) in [
            ("use super::b;", "use crate::a::A;"),
            ("use crate::{c, b::{B, c}};", "fn b() { super::a::a() }"),
            (
                "pub(crate) use super::{b::*, c};",
                "use super::{c::{C}, a as other};",
            ),
        ] {
            assert_eq!(found(&[("", ""), ("a", a), ("b", b), below]), ["src: a, b"]);
        }
        let longer = [
            ("a", "use super::b;"),
            ("b", "use super::c;"),
            ("c", "use super::a;"),
        ];
        assert_eq!(found(&longer), ["src: a, b, c"]);
    }

    #[test]
    fn a_circle_is_one_of_the_folder_that_it_is_in() {
        let texts = [
            ("f", "pub mod a; pub mod b; use self::a::A;"),
            ("f/a", "use super::b::B; use crate::g;"),
            ("f/b", "use crate::f::a;"),
            ("g", "use std::io;"),
        ];
        assert_eq!(found(&texts), ["src/f: a, b"]);
        let texts = [
            ("f", ""),
            ("f/a", "use crate::g::G;"),
            ("g", "use crate::f::a;"),
        ];
        assert_eq!(found(&texts), ["src: f, g"]);
    }

    #[test]
    fn what_goes_down_or_is_no_import_is_none() {
        let texts = [
            ("", "mod a; mod b; pub use a::A;"),
            ("a", "use super::{b, Root};"),
            (
                "b",
                "// use super::a;\nconst TEXT: &str = \"use super::a;\";\n#[cfg(test)]\nmod tests { use crate::a; }",
            ),
        ];
        assert!(found(&texts).is_empty());
    }
}
