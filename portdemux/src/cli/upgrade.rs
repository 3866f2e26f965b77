//! `portdemux upgrade`: make instances of older versions this version's.

use anyhow::Result;
use portdemux_common::ABI;

use super::{
    Context,
    attach::VERIFYING,
    output::{self, Progress},
};
use crate::{
    dataplane::links,
    error::NothingLoaded,
    figures::grouped,
    instance::{AbiDirectory, InstancePaths, Lock},
    upgrade::{self, Upgraded},
};

/// Take over what an older version runs, under traffic
///
/// The programs are exchanged under their links, each in one step: no packet goes past the rules, and none is lost.
/// Rules with their sets, counters, flows, sockets and an unconfirmed change stay. An instance of this version gets
/// this binary's programs. Where nothing is loaded it does nothing and succeeds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux upgrade
  portdemux upgrade --all    every instance, as after an upgrade of the package")]
pub(super) struct Args {
    /// Upgrade every instance
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let instances = if args.all {
        context.places.all()?
    } else {
        vec![context.places.clone()]
    };
    let mut failed = None;
    let mut is_any = false;
    for places in &instances {
        match one(context, places) {
            Ok(is_there) => is_any |= is_there,
            // The others are not kept waiting.
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    output::fail(&before);
                }
                is_any = true;
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !is_any {
        context.output.line("nothing is loaded: nothing to do");
    }
    Ok(())
}

/// Upgrades one instance, and says whether there is one.
fn one(context: &Context, paths: &InstancePaths) -> Result<bool> {
    if !paths.is_loaded()? {
        let error = paths.nothing_loaded();
        return if error.is::<NothingLoaded>() {
            Ok(false)
        } else {
            Err(error)
        };
    }
    links::check_capabilities()?;
    let _progress = Progress::of(VERIFYING);
    let lock = paths.lock_within(context.patience)?;
    let Some(upgraded) = upgrade::upgrade(&lock)? else {
        return Ok(false);
    };
    say(context, paths, &upgraded);
    Ok(true)
}

/// Says what became of an instance.
pub(super) fn say(context: &Context, paths: &InstancePaths, upgraded: &Upgraded) {
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {one}s", grouped(count as u64)),
    };
    let Upgraded {
        from,
        generation,
        rules,
        interfaces,
        ..
    } = upgraded;
    let instance = &paths.instance;
    let programs = format!(
        "generation {}, {}, programs on {}",
        generation.0,
        counted(*rules, "rule"),
        counted(*interfaces, "interface"),
    );
    context.output.line(if *from == ABI {
        format!("{instance}  this version's: {programs} renewed")
    } else {
        format!(
            "{instance}  taken over from ABI {from} to {ABI}: {programs} exchanged; counters, flows and sockets kept"
        )
    });
    if let Some(why) = &upgraded.lost {
        output::warn(
            format!(
                "the text of the rules of instance {instance} is lost ({why}); it was rebuilt from the kernel"
            ),
            Some("apply the rules file again"),
        );
    }
    for (warning, help) in &upgraded.warnings {
        output::warn(warning, Some(help));
    }
}

/// Takes an instance over that an older version made, and says so; does what is left of an upgrade that was begun.
pub(super) fn take_over(context: &Context, lock: &Lock) -> Result<()> {
    if lock.paths.as_found()?.directory == AbiDirectory::Own {
        return finish(lock);
    }
    if let Some(upgraded) = upgrade::upgrade(lock)? {
        say(context, &lock.paths, &upgraded);
    }
    Ok(())
}

/// Does what is left of an upgrade that was begun, and says so.
pub(super) fn finish(lock: &Lock) -> Result<()> {
    if let Some(from) = upgrade::finish(lock)? {
        output::note(format!(
            "the upgrade of instance {} from ABI {from} was interrupted; it is done",
            lock.paths.instance
        ));
    }
    Ok(())
}
