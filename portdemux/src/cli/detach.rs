//! `portdemux detach`: take the program off interfaces.

use anyhow::{Context as _, Result};

use super::{Context, output};
use crate::{
    dataplane::{links, maps, steering},
    error::{Help as _, NothingLoaded},
    instance::{Instance, InstancePaths},
    interface,
};

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
    links::check_capabilities()?;
    if args.all_instances {
        detach_all_instances(context)
    } else if args.all {
        detach_all(&context.paths, context)
    } else {
        detach(args, context)
    }
}

/// Removes every instance; one that does not go keeps no other.
fn detach_all_instances(context: &Context) -> Result<()> {
    let instances = context.paths.every_instance()?;
    if instances.is_empty() {
        context.output.line("no instance is loaded");
    }
    let mut failed = None;
    for slots in instances {
        let removed = detach_all(&slots, context);
        // Another command may have removed it meanwhile.
        if let Err(error) = removed
            && error.downcast_ref::<NothingLoaded>().is_none()
            && let Some(before) = failed.replace(error)
        {
            output::warn_of("not removed", &before);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn detach_all(paths: &InstancePaths, context: &Context) -> Result<()> {
    paths.refuse_newer()?;
    if !paths.exists()? && !paths.is_in_trash()? {
        return Err(NothingLoaded {
            instance: paths.instance.to_string(),
        }
        .into());
    }
    // What cannot be looked at goes all the same.
    let lock = paths.lock()?.found();
    let paths = &lock.paths;
    let pinned = links::pinned(paths)?;
    // Damaged maps name no interfaces; they go all the same.
    let mut names: Vec<String> = Instance::open(paths).map_or_else(
        |_| Vec::new(),
        |instance| {
            instance
                .maps
                .interfaces()
                .into_iter()
                .filter(|(slot, _)| pinned.iter().any(|link| link.slot == *slot))
                .map(|(_, interface)| maps::text(&interface.name))
                .collect()
        },
    );
    let in_trash = links::left_in_trash(paths)?.into_iter();
    names.extend(in_trash.filter_map(|(_, name)| name));
    links::remove_instance(&lock)?;
    for name in names {
        context.output.line(format!("{name}  detached"));
    }
    context.output.line(format!(
        "instance {} removed: rules and counters are gone",
        paths.instance
    ));
    Ok(())
}

fn detach(args: &Args, context: &Context) -> Result<()> {
    let writer = context.open_to_change()?;
    let slots = &context.paths;
    let netns = interface::namespace()?;
    let present = interface::list()?;
    let pinned = links::pinned(slots)?;
    let mut found = Vec::new();
    for name in &args.interfaces {
        // By the program that runs on it, so that an interface is found under its new name too.
        let by_program = pinned
            .iter()
            .find(|link| {
                link.carrier(&present)
                    .is_some_and(|carrier| carrier.name == *name)
            })
            .map(|link| link.slot);
        // Else by the name it had, in this network namespace or, if that is clear, in another.
        let by_name = || {
            let mut named = writer.maps.interfaces();
            named.retain(|(slot, known)| {
                maps::text(&known.name) == *name && pinned.iter().any(|link| link.slot == *slot)
            });
            match named[..] {
                [(slot, _)] => Some(slot),
                _ => named
                    .iter()
                    .find(|(_, known)| known.netns == netns)
                    .map(|&(slot, _)| slot),
            }
        };
        let slot = by_program.or_else(by_name);
        let slot = slot
            .filter(|slot| pinned.iter().any(|link| link.slot == *slot))
            .with_context(|| format!("{name} is not attached to instance {}", slots.instance))
            .help(|| {
                let command = context.command();
                format!("{command} status shows what is; nothing was changed")
            })?;
        found.push((name, slot));
    }
    let leaving: Vec<usize> = found.iter().map(|&(_, slot)| slot).collect();
    steering::guard_without(&writer, &leaving)?;
    for (name, slot) in found {
        links::detach(&writer, slot)?;
        context.output.line(format!("{name}  detached"));
    }
    // By now it is done, and this only says so.
    if links::pinned(slots).is_ok_and(|left| left.is_empty()) {
        context.output.line(format!(
            "Rules and counters are kept for the next attach; {} detach --all removes them",
            context.command()
        ));
    }
    Ok(())
}
