//! The programs that hand packets to sockets, and how they come to run and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{
        CgroupAttachMode, SkLookup, SockOps,
        links::{FdLink, PinnedLink},
    },
};

use super::{
    features::{knows_interface, require, unified_root},
    guard::guard,
    joining,
};
use crate::{
    dataplane::{links::programs_with, objects, refused},
    error::{Help as _, Unavailable},
    image::Destinations,
    instance::{Instance, InstancePaths, Writer},
    interface,
    maps::{
        self, CPUS, Maps, TABLES, damage::is_damage, pins::unpin, possible_cpus,
        steering::GroupName, trusted::is_there,
    },
    rules::{Destination, destination::SocketName},
    sockets::take,
    syscalls,
};

/// The program that is asked for a socket.
pub const LOOK: &str = "portdemux_look";
/// The program that hears of sockets that begin to listen.
const HEAR: &str = "portdemux_hear";

/// How sockets are found again whose process was started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The kernel says when a TCP socket begins to listen.
    ByKernel,
    /// Nobody says so.
    No,
}

/// Sees to it that packets get to the sockets that a ruleset names, before it is in force. `destinations`
/// are all of that ruleset, by slot.
///
/// # Errors
///
/// The kernel lacks what it takes or refuses, and that is not to count as missing; whatever ruleset is in force
/// stays, and what it names.
pub fn begin(
    writer: &Writer,
    destinations: &Destinations,
    unavailable: &mut Unavailable<'_>,
) -> Result<()> {
    let wanted = named(destinations);
    if wanted.is_empty() {
        return Ok(());
    }
    let ready = require().and_then(|()| enter_namespace(writer));
    let is_ready = unavailable.judge(ready)?.is_some();
    let steering = &writer.maps.steering;
    for (&slot, &name) in &wanted {
        let group = if is_ready {
            unavailable.judge(steering.enter(&writer.paths.command(), name))?
        } else {
            steering.find(name)
        };
        // Without a group it is none, whatever had the slot before.
        steering.assign(slot, group);
    }
    if !is_ready {
        return Ok(());
    }
    let mut object = None;
    // First this one: whoever begins to listen from here on is heard of, and whoever listens already is
    // found after it.
    if !is_there(&sock_ops_pin(&writer.paths))? {
        unavailable.judge(attach_hearing(writer, &mut object))?;
    }
    let names: BTreeSet<&GroupName> = wanted.values().copied().collect();
    for name in names {
        if let SocketName::Address(address) = name
            && let Some(group) = steering.find(name)
        {
            let taken = joining::all_at(steering, group, *address)
                .with_context(|| format!("take what listens on {address}"));
            unavailable.judge(taken)?;
        }
    }
    unavailable.judge(guard(writer))?;
    if !is_current(writer) {
        unavailable.judge(attach_looking(writer, &mut object))?;
    }
    Ok(())
}

/// Makes a group for sockets that are given by hand, if there is none of that name.
///
/// # Errors
///
/// The kernel lacks what it takes, or there are too many groups.
pub fn register(writer: &Writer, name: &str) -> Result<u32> {
    require()?;
    enter_namespace(writer)?;
    writer
        .maps
        .steering
        .enter(&writer.paths.command(), &SocketName::Name(name.into()))
}

/// Takes a group away whose sockets were given by hand.
pub fn unregister(writer: &Writer, group: u32) {
    writer.maps.steering.forget(group);
}

/// Takes away what no rule in force needs: the programs if no rule names a socket, and of groups those that
/// were found by their address.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn end(writer: &Writer, destinations: &Destinations) -> Result<()> {
    let wanted: BTreeSet<&GroupName> = named(destinations).into_values().collect();
    if wanted.is_empty() {
        unpin(&sk_lookup_pin(&writer.paths))?;
        unpin(&sock_ops_pin(&writer.paths))?;
    }
    for (group, name) in writer.maps.steering.groups() {
        if matches!(name, SocketName::Address(_)) && !wanted.contains(&name) {
            writer.maps.steering.forget(group);
        }
    }
    Ok(())
}

/// The sockets that rules name, by the slots of the destinations.
fn named(destinations: &Destinations) -> BTreeMap<u32, &GroupName> {
    let all = destinations.iter();
    all.filter_map(|(&slot, destination)| match destination {
        Destination::Socket(name) => Some((slot, name)),
        Destination::Local
        | Destination::Drop
        | Destination::Reject
        | Destination::Interface(_)
        | Destination::Cpus(_)
        | Destination::Xsk(_) => None,
    })
    .collect()
}

/// Whether the program that is asked for sockets is attached.
#[must_use]
pub fn is_steering(paths: &InstancePaths) -> bool {
    sk_lookup_pin(paths).exists()
}

/// How sockets are followed.
#[must_use]
pub fn followed(paths: &InstancePaths) -> Followed {
    if sock_ops_pin(paths).exists() {
        Followed::ByKernel
    } else {
        Followed::No
    }
}

/// Gives this binary's programs to an instance that hands packets to sockets.
///
/// # Errors
///
/// The kernel refuses.
pub fn refresh(writer: &Writer) -> Result<()> {
    if is_there(&sk_lookup_pin(&writer.paths))? {
        let mut object = None;
        if is_there(&sock_ops_pin(&writer.paths))? {
            attach_hearing(writer, &mut object)?;
        }
        attach_looking(writer, &mut object)?;
    }
    guard(writer)
}

/// Replaces the program that is asked for sockets, if it does not use the map of sources that is pinned
/// beside it.
///
/// # Errors
///
/// The kernel refuses.
pub(in crate::dataplane) fn renew(maps: &Maps) -> Result<()> {
    let pin = maps.directory.join(SK_LOOKUP);
    if is_there(&pin)? && !uses_sources(maps, &pin) {
        attach_at(&pin, maps, &mut None)?;
    }
    Ok(())
}

/// Whether the program that is asked for sockets runs and uses the maps that it should.
fn is_current(instance: &Instance) -> bool {
    sk_lookup_pin(&instance.paths).exists()
        && uses_sources(&instance.maps, &sk_lookup_pin(&instance.paths))
}

fn uses_sources(maps: &Maps, pin: &Path) -> bool {
    let uses = || -> Option<bool> {
        let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
        let program = link.info().ok()?.program_id();
        let map = MapInfo::from_pin(maps.directory.join(TABLES)).ok()?;
        Some(programs_with(map.id()).contains(&program))
    };
    uses().unwrap_or(false)
}

const SK_LOOKUP: &str = "looking";
const SOCK_OPS: &str = "hearing";

fn sk_lookup_pin(paths: &InstancePaths) -> PathBuf {
    paths.pins().join(SK_LOOKUP)
}

fn sock_ops_pin(paths: &InstancePaths) -> PathBuf {
    paths.pins().join(SOCK_OPS)
}

/// Sockets are those of one network namespace: that in which rules named the first of them.
fn enter_namespace(instance: &Instance) -> Result<()> {
    let here = interface::namespace()?;
    let (_, of_instance) = instance.maps.steering.netns();
    if of_instance != here {
        if is_there(&sk_lookup_pin(&instance.paths))? && is_alive(&instance.paths)? {
            return Err(anyhow::anyhow!(
                "the sockets of instance {} are in another network namespace",
                instance.paths.instance
            ))
            .help(|| {
                "run this there, or use an instance of its own here: --instance NAME; nothing was changed"
                    .into()
            });
        }
        unpin(&sk_lookup_pin(&instance.paths))?;
        unpin(&sock_ops_pin(&instance.paths))?;
    }
    let cookie = take::netns_cookie();
    instance.maps.steering.set_netns(cookie.unwrap_or(0), here);
    Ok(())
}

/// Whether the namespace is there that the program that is asked for sockets was attached to.
fn is_alive(paths: &InstancePaths) -> Result<bool> {
    let pin = sk_lookup_pin(paths);
    let link = match syscalls::open_pin(&pin).map_err(anyhow::Error::new) {
        Err(error) if is_damage(&error) => return Ok(false),
        link => link.with_context(|| format!("open {}", pin.display()))?,
    };
    // A link to a namespace that is gone holds no program that could be replaced by itself.
    let namespace = syscalls::link_namespace(&link);
    Ok(namespace.with_context(|| format!("look at the link {}", pin.display()))? != 0)
}

/// Prepares the programs for an instance's sockets.
///
/// # Errors
///
/// The kernel refuses, or the maps are damaged.
pub fn load(maps: &Maps) -> Result<Ebpf> {
    let pins = &maps.directory;
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_pin_path(name, pins.join(name));
    }
    let cpus = u32::try_from(possible_cpus()?)?;
    objects::prepared(
        loader.map_max_entries(CPUS, cpus).override_global(
            "KNOWS_INTERFACE",
            &u32::from(knows_interface()),
            true,
        ),
        objects::SOCKETS,
        "the program for lookups",
    )
}

/// Whether the kernel takes the programs for an instance's sockets.
///
/// # Errors
///
/// It does not.
pub(in crate::dataplane) fn check(maps: &Maps) -> Result<()> {
    let mut object = load(maps)?;
    let program: &mut SkLookup = object
        .program_mut(LOOK)
        .context("the object has no program for lookups")?
        .try_into()?;
    refused::load("the program for lookups", || program.load())
}

fn loaded<'a>(maps: &Maps, object: &'a mut Option<Ebpf>) -> Result<&'a mut Ebpf> {
    if object.is_none() {
        *object = Some(load(maps)?);
    }
    object.as_mut().context("the programs for sockets")
}

fn attach_looking(instance: &Instance, object: &mut Option<Ebpf>) -> Result<()> {
    attach_at(&sk_lookup_pin(&instance.paths), &instance.maps, object)
}

/// Attaches the program that is asked for sockets, or replaces the one that is there in one step.
fn attach_at(pin: &Path, maps: &Maps, object: &mut Option<Ebpf>) -> Result<()> {
    let program: &mut SkLookup = loaded(maps, object)?
        .program_mut(LOOK)
        .context("the object has no program for lookups")?
        .try_into()?;
    refused::load("the program for lookups", || program.load())?;
    if is_there(pin)? {
        let link = syscalls::open_pin(pin).with_context(|| format!("open {}", pin.display()))?;
        match syscalls::update_link(&link, program.fd()?) {
            Ok(()) => return Ok(()),
            // The namespace that it was for is gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => unpin(pin)?,
            Err(error) => return Err(error).context("replace the program for lookups"),
        }
    }
    let namespace = "/proc/thread-self/ns/net";
    let namespace = File::open(namespace).with_context(|| format!("open {namespace}"))?;
    let id = program
        .attach(namespace)
        .context("attach to the socket lookups of this network namespace")?;
    let link = FdLink::from(program.take_link(id)?);
    link.pin(pin)
        .with_context(|| format!("pin {}", pin.display()))?;
    Ok(())
}

/// Attaches the program that hears of sockets, if the kernel and its control groups have what it takes.
///
/// Where they have not, TCP sockets are looked for as those of UDP are.
fn attach_hearing(instance: &Instance, object: &mut Option<Ebpf>) -> Result<()> {
    let pin = sock_ops_pin(&instance.paths);
    let Some(root) = unified_root() else {
        return Ok(());
    };
    if instance.maps.steering.netns().0 == 0 {
        return Ok(());
    }
    let program: &mut SockOps = loaded(&instance.maps, object)?
        .program_mut(HEAR)
        .context("the object has no program for sockets that listen")?
        .try_into()?;
    if program.load().is_err() {
        return Ok(());
    }
    if is_there(&pin)? {
        let link = syscalls::open_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        match syscalls::update_link(&link, program.fd()?) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => unpin(&pin)?,
            Err(error) => return Err(error).context("replace the program for sockets that listen"),
        }
    }
    let root = File::open(&root).with_context(|| format!("open {}", root.display()))?;
    let Ok(id) = program.attach(root, CgroupAttachMode::Single) else {
        return Ok(());
    };
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&pin)
        .with_context(|| format!("pin {}", pin.display()))?;
    Ok(())
}
