//! `portdemux save`: write the rules in force to a file.

use std::path::PathBuf;

use anyhow::Result;

use super::Context;
use crate::figures::grouped;

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
    let saved = context.save(args.file.as_deref())?;
    let rules = match saved.rules {
        1 => "1 rule".into(),
        count => format!("{} rules", grouped(count as u64)),
    };
    let (file, generation) = (saved.file.display(), saved.generation);
    let kept = if saved.replaced {
        format!("; what it said before is in {file}~")
    } else {
        String::new()
    };
    context
        .output
        .line(format!("{file}  generation {generation}, {rules}{kept}"));
    if let Some(event) = saved.besides {
        context.tell(event);
    }
    Ok(())
}
