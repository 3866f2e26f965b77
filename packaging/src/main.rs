//! Writes the manual pages and completions of `portdemux` into a directory.

#![forbid(unsafe_code)]

mod man;

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap_complete::{Shell, generate_to};

const NAME: &str = "portdemux";

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).context("name a directory")?;
    let directory = PathBuf::from(directory);
    let make = |name: &str| -> Result<PathBuf> {
        let below = directory.join(name);
        fs::create_dir_all(&below).with_context(|| format!("create {}", below.display()))?;
        Ok(below)
    };
    let man = make("man")?;
    for (name, page) in man::pages(portdemux::cli::command())? {
        let path = man.join(format!("{name}.1"));
        fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    }
    let completions = make("completions")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = portdemux::cli::command();
        generate_to(shell, &mut command, NAME, &completions)
            .with_context(|| format!("write the completions for {shell}"))?;
    }
    Ok(())
}
