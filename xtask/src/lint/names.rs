//! A name means one thing: no two types of a crate are called alike.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::{
    code,
    modules::{Modules, PACKAGES, of_package},
};
use crate::say;

/// What each verb of a command line has of its own, and hands to nobody: its arguments, its subcommands, its JSON.
const OF_A_VERB: [&str; 3] = ["Args", "Verb", "Report"];

/// Checks every package.
pub(super) fn check() -> Result<()> {
    let mut mistakes = Vec::new();
    for package in PACKAGES {
        mistakes
            .extend(doubles(&of_package(package)?).map(|double| format!("{package}: {double}")));
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    for mistake in &mistakes {
        say::line(mistake);
    }
    bail!("{} names of types mean several", mistakes.len());
}

/// The names that several types have, each with the modules of these.
fn doubles(modules: &Modules) -> impl Iterator<Item = String> {
    let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, text) in modules {
        for name in code::types(text) {
            homes.entry(name).or_default().push(module.join("::"));
        }
    }
    homes.retain(|name, homes| homes.len() > 1 && !OF_A_VERB.contains(name));
    let doubles = homes.into_iter();
    doubles.map(|(name, homes)| format!("{name} is a type of {}", homes.join(" and of ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_one_name_are_found_and_those_of_verbs_and_of_traits_are_none() {
        let modules = [
            (
                "a",
                "pub struct Flow<'f>(&'f u8); struct Args; impl Hook for Flow { type Rules = u8; }",
            ),
            (
                "b",
                "pub(crate) enum Flow { A } struct Args; type Rules = u8;",
            ),
            ("c", "// struct Flow;\nuse crate::b::Flow; trait Rule {}"),
        ];
        let modules = modules.map(|(module, text)| (vec![module.to_owned()], code::of(text)));
        let found: Vec<String> = doubles(&Modules::from(modules)).collect();
        assert_eq!(found, ["Flow is a type of a and of b"]);
    }
}
