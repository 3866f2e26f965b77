//! The modules of a package, as they are read to be checked.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::code;
use crate::repository;

/// The packages whose modules are checked.
pub(super) const PACKAGES: [&str; 5] = [
    "portdemux",
    "portdemux-common",
    "portdemux-ebpf",
    "tests",
    "xtask",
];

/// The text of each module by its path; that of the crate's root is empty.
pub(super) type Modules = BTreeMap<Vec<String>, String>;

/// Reads the modules of a package.
pub(super) fn of_package(package: &str) -> Result<Modules> {
    let directory = repository::root().join(package).join("src");
    let roots = ["lib.rs", "main.rs"].map(|name| directory.join(name));
    let file = roots.iter().find(|file| file.exists());
    let file = file.with_context(|| format!("{package} has no root"))?;
    let mut modules = Modules::new();
    read(file, &directory, Vec::new(), &mut modules)?;
    Ok(modules)
}

/// Reads a module and those in it; `directory` is where their files are. What is only compiled for tests is none.
fn read(file: &Path, directory: &Path, module: Vec<String>, modules: &mut Modules) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let code = code::of(&text);
    for name in code::modules(&code) {
        let below = directory.join(name);
        let beside = below.with_extension("rs");
        let file = if beside.exists() {
            beside
        } else {
            below.join("mod.rs")
        };
        let own = [&module[..], &[name.to_owned()]].concat();
        read(&file, &below, own, modules)?;
    }
    modules.insert(module, code);
    Ok(())
}
