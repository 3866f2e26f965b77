//! What is to be said of destinations before rules that name them are put in force.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use portdemux_common::entry::Action;

use crate::{
    error::Help as _,
    instance::Instance,
    interface::Interface,
    maps::targets,
    rules::{Destination, Ruleset, destination::Cpus},
};

/// Refuses rules whose destinations cannot be had.
///
/// # Errors
///
/// Says which rule names one, and why it cannot be had.
pub fn check(ruleset: &Ruleset) -> Result<()> {
    let mut kinds: Vec<Action> = Vec::new();
    let mut online: Option<Vec<u16>> = None;
    for rule in ruleset.rules() {
        let action = rule.to.action();
        if matches!(action, Action::Local | Action::Drop | Action::Reject) {
            continue;
        }
        if !kinds.contains(&action) {
            targets::probe(action)
                .with_context(|| {
                    format!(
                        "this kernel lacks {}, which to = \"{}\" needs (rule {})",
                        targets::feature(action),
                        rule.to,
                        rule.name
                    )
                })
                .help(|| "use another destination; nothing was changed".into())?;
            kinds.push(action);
        }
        let Some(cpus) = rule.to.cpus() else { continue };
        if online.is_none() {
            online = Some(online_cpus()?);
        }
        let is_offline = |cpu: &u16| online.as_ref().is_some_and(|online| !online.contains(cpu));
        if let Some(cpu) = cpus.numbers().find(is_offline) {
            return Err(anyhow::anyhow!(
                "CPU {cpu} is not online (rule {})",
                rule.name
            ))
            .help(|| "/sys/devices/system/cpu/online says which are; nothing was changed".into());
        }
    }
    Ok(())
}

/// The CPUs that are online.
fn online_cpus() -> Result<Vec<u16>> {
    const PATH: &str = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(PATH).with_context(|| format!("read {PATH}"))?;
    let cpus: Cpus = text
        .trim()
        .parse()
        .with_context(|| format!("understand {PATH}"))?;
    Ok(cpus.numbers().collect())
}

/// What is to be known before packets go where a ruleset says: what happens, and what to do about it.
///
/// # Errors
///
/// The kernel does not list its interfaces.
pub fn warnings(instance: &Instance, ruleset: &Ruleset) -> Result<Vec<(String, String)>> {
    let (mut names, mut has_cpus) = (BTreeSet::new(), false);
    for rule in ruleset.rules() {
        has_cpus |= rule.to.cpus().is_some();
        if let Destination::Interface(name) = &rule.to {
            names.insert(name);
        }
    }
    let mut warnings = Vec::new();
    if has_cpus && instance.maps.has_generic()? {
        warnings.push((
            "the program runs in generic mode, in which packets cannot be handed to other CPUs: they stay on \
             the one that they came by (no_cpu)"
                .into(),
            "attach in native mode where the driver can".into(),
        ));
    }
    if names.is_empty() {
        return Ok(warnings);
    }
    let present = instance.maps.neighbours()?;
    let known = instance.maps.interfaces();
    let support = instance.maps.xmit_support();
    let inputs = |other: &&Interface| known.iter().any(|(_, known)| known.index == other.index);
    let inputs: Vec<&Interface> = present.iter().filter(inputs).collect();
    for name in names {
        let Some(target) = present.iter().find(|interface| interface.name == *name) else {
            warnings.push((
                format!(
                    "{name} is not there: packets for it fall back as its rules say (no_interface)"
                ),
                format!(
                    "once it is there, it gets them: {} follow hears of it",
                    instance.paths.command()
                ),
            ));
            continue;
        };
        if !target.is_up {
            warnings.push((
                format!("{name} is down: what is sent there is lost"),
                format!("ip link set {name} up"),
            ));
        }
        if support.get(&target.index) == Some(&false) {
            warnings.push(takes_none(target));
        }
        if let Some(input) = inputs.iter().find(|input| input.mtu > target.mtu) {
            warnings.push((
                format!(
                    "packets of more than {} bytes from {} do not fit through {name} and are lost",
                    target.mtu, input.name
                ),
                format!("ip link set {name} mtu {}", input.mtu),
            ));
        }
        if let Some(input) = inputs.iter().find(|input| is_veth(input))
            && is_veth(target)
        {
            warnings.push((
                format!(
                    "{} is a veth, whose other end leaves checksums to be done: behind {name} they are wrong",
                    input.name
                ),
                "ethtool -K INTERFACE tx off at that other end".into(),
            ));
        }
    }
    Ok(warnings)
}

fn is_veth(interface: &Interface) -> bool {
    interface.driver.as_deref() == Some("veth")
}

/// What is to be known of an interface that takes no frames of other drivers. It is no error: it may take them
/// as soon as a program is attached to it, or to the other end of a veth.
fn takes_none(target: &Interface) -> (String, String) {
    let name = &target.name;
    if is_veth(target) {
        (
            format!(
                "{name} takes no frames as things are, and packets for it are lost (interface_takes_none): its \
                 other end has neither GRO nor an XDP program"
            ),
            "ethtool -K INTERFACE gro on at that other end".into(),
        )
    } else {
        (
            format!(
                "{name} takes no frames of other drivers as things are, and packets for it are lost \
                 (interface_takes_none)"
            ),
            "attach in generic mode, in which every interface takes them".into(),
        )
    }
}
