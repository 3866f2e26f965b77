//! `portdemux detach`: take the program off interfaces.

use anyhow::Result;

use super::Context;
use crate::error::NothingLoaded;

/// Take the program off interfaces
///
/// Rules and counters stay for the next attach. --all removes everything: programs, rules, counters, pins and
/// records, however damaged they are.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
portdemux detach [OPTIONS] IFACE...
       portdemux detach [OPTIONS] --all
       portdemux detach --all-instances",
    after_help = "\
Examples:
  portdemux detach eth0
  portdemux detach --all
  portdemux detach --all-instances"
)]
pub(super) struct Args {
    /// Interfaces to detach from
    #[arg(required_unless_present_any = ["all", "all_instances"], value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Detach from every interface, and remove rules and counters too
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
    /// Do what --all does for every instance
    #[arg(long, conflicts_with_all = ["interfaces", "all"])]
    all_instances: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if args.all_instances {
        return remove_all(context);
    }
    if args.all {
        return remove(context);
    }
    if context.detach(&args.interfaces)? {
        context.output.line(format!(
            "Rules and counters are kept for the next attach; {} detach --all removes them",
            context.command()
        ));
    }
    Ok(())
}

/// Removes every instance; one that does not go keeps no other.
fn remove_all(context: &Context) -> Result<()> {
    let instances = context.paths.every_instance()?;
    if instances.is_empty() {
        context.output.line("no instance is loaded");
    }
    let mut failed = None;
    for paths in instances {
        // Another command may have removed it meanwhile.
        if let Err(error) = remove(&context.at(paths))
            && error.downcast_ref::<NothingLoaded>().is_none()
            && let Some(before) = failed.replace(error)
        {
            context.output.warn_of("not removed", &before);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove(context: &Context) -> Result<()> {
    for name in context.remove()? {
        context.output.line(format!("{name}  detached"));
    }
    context.output.line(format!(
        "instance {} removed: rules and counters are gone",
        context.paths.instance
    ));
    Ok(())
}
