//! `portdemux save`: write the rules in force to a file.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

use super::Context;
use crate::{change, clock::Clock, error::Help as _, figures::grouped, rules::edit};

/// Write the rules in force to the file that they are applied from at boot
///
/// Comments stay, and so do the members of sets with their times; those whose time is past are left out.
/// What the file said before is kept beside it, with ~ at the end of its name.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux save
  portdemux --instance dmz save
  portdemux save rules.toml")]
pub(super) struct Args {
    /// The file; /etc/portdemux/INSTANCE.toml unless given
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let file = args.file.clone().unwrap_or_else(|| context.boot_file());
    let (lock, maps) = context.open_to_change()?;
    let places = &context.places;
    // Nobody has said yet that it stays.
    change::refuse_while_another_waits(places, &maps)?;
    let written = change::written(places, &maps)?;
    if written.in_force.generation.0 == 0 {
        return Err(anyhow!("no rules are in force"))
            .help(|| "portdemux apply FILE puts some in force; nothing was written".into());
    }
    if let Some(why) = written.in_force.lost {
        return Err(anyhow!("the text of the ruleset in force is lost ({why})"))
            .help(|| "apply the rules file again; nothing was written".into());
    }
    let text = edit::without_ended(&written.text, Clock::now().unix);
    let file = match fs::canonicalize(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file,
        // What a link leads to is replaced, not the link.
        found => found.with_context(|| format!("find {}", file.display()))?,
    };
    let replaced = replace(&file, &text)
        .with_context(|| format!("write {}", file.display()))
        .help(|| "the file says what it said before".into())?;
    change::came_from(places, &maps, &lock, &file)?;
    let rules = written.in_force.ruleset.rules().len();
    let rules = match rules {
        1 => "1 rule".into(),
        count => format!("{} rules", grouped(count as u64)),
    };
    let file = file.display();
    let generation = written.in_force.generation.0;
    let kept = if replaced {
        format!("; what it said before is in {file}~")
    } else {
        String::new()
    };
    context
        .output
        .line(format!("{file}  generation {generation}, {rules}{kept}"));
    Ok(())
}

/// Gives a file another text, as a whole or not at all, and keeps the old one. Says whether there was one that
/// differs.
fn replace(path: &Path, text: &str) -> io::Result<bool> {
    let old = match File::open(path) {
        Ok(file) => Some((io::read_to_string(&file)?, file.metadata()?.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if old.as_ref().is_some_and(|(old, _)| old == text) {
        return Ok(false);
    }
    let beside = |ending: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // Only the package makes it, and nobody has to have installed that.
    fs::create_dir_all(directory)?;
    let unfinished = beside(".new");
    let write = || -> io::Result<()> {
        remove(&unfinished)?;
        let mode = old.as_ref().map_or(0o644, |(_, old)| old.mode());
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if old.is_some() {
            let kept = beside("~");
            remove(&kept)?;
            fs::hard_link(path, &kept)?;
        }
        fs::rename(&unfinished, path)?;
        File::open(directory)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        // The error before is the one to tell.
        let _: io::Result<()> = remove(&unfinished);
    }
    written.map(|()| old.is_some())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_what_it_said_before() {
        let directory = std::env::temp_dir().join(format!("portdemux-save-{}", std::process::id()));
        let path = directory.join("below").join("rules.toml");
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(!replace(&path, "one").unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(replace(&path, "two").unwrap());
        assert!(!replace(&path, "two").unwrap(), "it says so already");
        assert!(replace(&path, "three").unwrap());
        let kept = path.with_extension("toml~");
        assert_eq!((read(&path), read(&kept)), ("three".into(), "two".into()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "nothing unfinished");
        fs::remove_dir_all(directory).unwrap();
    }
}
