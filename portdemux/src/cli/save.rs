//! `portdemux save`: write the rules in force to a file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};

use super::{Context, output, told};
use crate::{
    bounded, change,
    clock::Clock,
    control::canonical,
    dataplane::mapped::catching,
    durable::{self, OldText},
    error::Help as _,
    figures::grouped,
    rules::edit,
    unconfirmed,
};

/// Write the rules in force to the file that they are applied from at boot
///
/// Comments stay, and so do the members of sets with their times; members whose time is past are left out. The
/// former file is kept beside it, with ~ at the end of its name.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux save
  portdemux --instance dmz save
  portdemux save rules.toml")]
pub(super) struct Args {
    /// The file [default: /etc/portdemux/INSTANCE.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let file = args.file.clone().unwrap_or_else(|| context.boot_file());
    durable::check(&file)
        .with_context(|| format!("write {}", file.display()))
        .help(|| {
            let command = context.command();
            format!("{command} export writes to standard output; nothing was written")
        })?;
    let writer = context.open_to_change()?;
    // Nobody has said yet that it stays.
    unconfirmed::refuse_while_one_waits(&writer)?;
    let written = change::written(&writer)?;
    if written.in_force.generation.0 == 0 {
        return Err(anyhow!("no rules are in force")).help(|| {
            let command = context.command();
            format!("{command} apply FILE puts some in force; nothing was written")
        });
    }
    if let Some(why) = written.in_force.lost {
        return Err(anyhow!("the text of the ruleset in force is lost ({why})"))
            .help(|| "apply the rules file again; nothing was written".into());
    }
    let text = edit::without_ended(&written.text, Clock::now().unix);
    // What a link leads to is replaced, not the link.
    let found = canonical(&file).with_context(|| format!("find {}", file.display()))?;
    let file = found.unwrap_or(file);
    let replaced = durable::replace(&file, &text, 0o644, OldText::Kept)
        .with_context(|| format!("write {}", file.display()))
        .help(|| {
            if bounded::says(&file, text.as_bytes()).unwrap_or(false) {
                "the file says so now, but a loss of power may undo that".into()
            } else {
                "the file says what it said before".into()
            }
        })?;
    if let Err(error) = catching(|| change::came_from(&writer, &file)) {
        output::warn_of(
            "the rules in force do not say that they stand in this file",
            &error,
        );
    }
    context
        .keep(Some(&file), &text)
        .into_iter()
        .for_each(told::tell);
    let rules = written.in_force.ruleset.rules().len();
    let rules = match rules {
        1 => "1 rule".into(),
        count => format!("{} rules", grouped(count as u64)),
    };
    let is_for_boot = context.is_boot_file(&file);
    let names_none = written.in_force.ruleset.attach().interfaces.is_empty();
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
    if is_for_boot && names_none {
        told::tell(context.no_interface(&writer));
    }
    Ok(())
}
