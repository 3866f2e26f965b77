//! `portdemux attach --wait`: attach to interfaces as they come.
//!
//! What is attached does not need this process. One that was looked at is left alone for as long as it is there:
//! who detaches it by hand means it.

use std::{collections::BTreeSet, io, time::Duration};

use anyhow::Result;
use portdemux_common::ids::Generation;

use super::Args;
use crate::{
    cli::Context,
    control::attach::AttachRequest,
    instance::Instance,
    interface::{self, Changes, Interface},
    rules::{AttachMode, Word as _},
    service,
};

/// How long nothing has to be heard of before it looks all the same.
const PAUSE: Duration = Duration::from_secs(1);

/// Attaches to what comes until the instance is removed.
///
/// # Errors
///
/// An interface cannot be attached. The others are.
pub(super) fn run(
    context: &Context,
    args: &Args,
    mut wanted: AttachRequest,
    changes: &Changes,
) -> Result<()> {
    let paths = &context.paths;
    // What was said so far does not wait for the end. Nobody has to read it.
    let _: io::Result<()> = context.output.release();
    let mut known = BTreeSet::new();
    let mut generation: Option<Generation> = None;
    let mut said = String::new();
    let mut fell_back = false;
    while paths.exists()? {
        if service::is_replaced() {
            return service::restart(&words(context, args));
        }
        // Another build may be taking the instance over.
        if let Ok(instance) = Instance::open(paths) {
            let now = instance.maps.generation();
            let is_changed = generation.replace(now) != Some(now);
            // Saved, the same rules are those of the file again.
            if args.interfaces.is_empty() && (is_changed || fell_back) {
                let in_force = context.in_force(&instance)?;
                fell_back = context.fell_back(&in_force);
                wanted = AttachRequest::new(&args.to(), in_force.ruleset.attach(), context)
                    .unwrap_or(wanted);
            }
            drop(instance);
            // What is said is said once the lock is free.
            context.output.hold();
            let attached = attach_new(context, &wanted, &mut known);
            let _: io::Result<()> = context.output.release();
            attached?;
            let mut status = status(&wanted, &known);
            if fell_back {
                let file = context.boot_file();
                status.insert_str(
                    0,
                    &format!("{} has a mistake: the rules before hold; ", file.display()),
                );
            }
            if said != status {
                service::notify(&format!("READY=1\nSTATUS={status}"));
                context.output.line(&status);
                said = status;
            }
        }
        let _: bool = changes.wait(PAUSE);
    }
    Ok(())
}

/// Attaches to those of the wanted interfaces that were not there before.
fn attach_new(
    context: &Context,
    wanted: &AttachRequest,
    known: &mut BTreeSet<(String, u32)>,
) -> Result<()> {
    let key = |interface: &Interface| (interface.name.clone(), interface.index);
    let present = wanted.find()?;
    known.retain(|known| present.iter().any(|present| key(present) == *known));
    let fresh: Vec<Interface> = present
        .into_iter()
        .filter(|present| !known.contains(&key(present)))
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let writer = context.open_to_change()?;
    let mut refused = Vec::new();
    for interface in &fresh {
        match context.attach_each(&writer, std::slice::from_ref(interface), wanted) {
            Ok(()) => {
                known.insert(key(interface));
            }
            // It may have gone again.
            Err(_) if is_gone(interface) => {}
            Err(error) => refused.push(error),
        }
    }
    context.renew(&writer);
    let Some(last) = refused.pop() else {
        return Ok(());
    };
    for error in refused {
        context.output.warn_of("not attached", &error);
    }
    Err(last)
}

fn is_gone(interface: &Interface) -> bool {
    interface::list().is_ok_and(|present| {
        let mut present = present.iter();
        present.all(|present| (present.index, &present.name) != (interface.index, &interface.name))
    })
}

/// What is attached, and what is waited for.
fn status(wanted: &AttachRequest, known: &BTreeSet<(String, u32)>) -> String {
    let is_there = |name: &&String| known.iter().any(|(known, _)| known == *name);
    let missing: Vec<&str> = wanted
        .names
        .iter()
        .filter(|name| !is_there(name))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        "attached to every interface".into()
    } else {
        format!("waiting for {}", missing.join(", "))
    }
}

/// The command line that goes on with the rules in force.
fn words(context: &Context, args: &Args) -> Vec<String> {
    let mut words = context.words();
    words.push("attach".into());
    words.extend(args.interfaces.iter().cloned());
    if let Some(mode) = args.mode.map(AttachMode::from) {
        words.extend(["--mode".into(), mode.name().to_owned()]);
    }
    words.extend(["--wait".into(), "--force".into()]);
    words
}
