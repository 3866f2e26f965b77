//! Programs on interfaces: attached and detached here; how they are loaded, replaced and refused stands
//! in files of their own.

mod loading;
mod refusing;
mod replacing;

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{
        XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use portdemux_common::{
    state::{self, Mode},
    wire::{ANY_MAC, mac_word},
};

pub(super) use self::replacing::{
    all_use, exchange, loaded, outdated, programs_with, renew, replace_all,
};
pub use self::{
    loading::{FLOW_PLAIN_PROGRAM, FLOW_PROGRAM, PLAIN_PROGRAM, PROGRAM, load},
    refusing::check_capabilities,
};
use self::{
    loading::{received, verified},
    refusing::{reason, refusal, refuse_foreign_program},
};
use super::egress;
use crate::{
    error::Help as _,
    instance::{
        Lock, Writer,
        pinned::{Pinned, left_in_trash, pinned, program_id},
    },
    interface::{self, Interface, XdpHook},
    maps::{ledger::padded, pins::unpin},
};

/// How long a program may take to leave an interface when its link is gone.
const PARTING: Duration = Duration::from_secs(3);

/// In which mode to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Native if the driver can, else generic.
    Auto,
    /// Native or not at all.
    Native,
    /// Generic.
    Generic,
}

/// How an interface came to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The program was attached.
    Attached {
        /// In which mode.
        mode: Mode,
        /// Why the driver could not take it, if that had been tried.
        refused: Option<String>,
    },
    /// The program on it was replaced without a moment in between.
    Replaced {
        /// In which mode it runs.
        mode: Mode,
    },
}

/// Attaches the program to an interface, or replaces the one that this instance has there.
///
/// What runs on the interface is asked for here: since it was listed, another process may have replaced that, as the
/// lock was that one's.
///
/// # Errors
///
/// Another XDP program is on the interface, the mode cannot be had, the kernel refuses.
pub fn attach(
    writer: &Writer,
    interface: &Interface,
    netns: u64,
    wish: Wish,
) -> Result<Attachment> {
    let present = interface::list()?;
    let is_same = |present: &&Interface| present.index == interface.index;
    let interface = present.iter().find(is_same).unwrap_or(interface);
    let mut entry = state::Interface {
        name: padded(&interface.name),
        version: padded(env!("CARGO_PKG_VERSION")),
        netns,
        index: interface.index,
        // What is asked for, until it is known.
        mode: match wish {
            Wish::Auto | Wish::Native => Mode::Native,
            Wish::Generic => Mode::Generic,
        } as u32,
        mac: interface.mac.map_or(ANY_MAC, mac_word),
    };
    let pinned = pinned(&writer.paths)?;
    let is_attached = |slot| {
        pinned
            .iter()
            .any(|link| link.slot == slot && link.carrier(&present).is_some())
    };
    let (slot, old) = writer.maps.slot_for(&entry, is_attached)?;
    writer.maps.enter_interface(slot, &entry);
    let result = attach_at(writer, interface, slot, wish);
    match (&result, old) {
        (Ok(Attachment::Attached { mode, .. } | Attachment::Replaced { mode }), _) => {
            entry.mode = *mode as u32;
            writer.maps.enter_interface(slot, &entry);
        }
        (Err(_), Some(old)) => writer.maps.enter_interface(slot, &old),
        (Err(_), None) => writer.maps.forget_interface(slot),
    }
    result
}

fn attach_at(
    writer: &Writer,
    interface: &Interface,
    slot: usize,
    wish: Wish,
) -> Result<Attachment> {
    let shape = writer.maps.shape();
    let mut object = verified(&writer.maps, slot)?;
    if shape.is_some() {
        // First, so that no flow that a packet of the peer may belong to goes unseen.
        egress::attach(&writer.paths, &mut object, slot, &interface.name)?;
    }
    let attached = attach_received(writer, &mut object, interface, slot, wish, shape.is_some());
    if attached.is_err() && matches!(replaceable(&writer.paths.link(slot), interface), Ok(None)) {
        egress::detach(&writer.paths, slot, Some(&interface.name))?;
    }
    attached
}

/// Attaches the program that sees what an interface receives.
fn attach_received(
    writer: &Writer,
    object: &mut Ebpf,
    interface: &Interface,
    slot: usize,
    wish: Wish,
    tracks: bool,
) -> Result<Attachment> {
    let pin = writer.paths.link(slot);
    let program = received(object, tracks)?;
    if let Some(mode) = replaceable(&pin, interface)? {
        if let (Wish::Native, Mode::Generic) | (Wish::Generic, Mode::Native) = (wish, mode) {
            return Err(anyhow::anyhow!(
                "{} is attached in {} mode, which cannot change while it is attached",
                interface.name,
                mode_name(mode)
            ))
            .help(|| format!("{} detach {} first", writer.paths.command(), interface.name));
        }
        program
            .attach_to_link(open_link(&pin)?)
            .with_context(|| format!("replace the program on {}", interface.name))?;
        return Ok(Attachment::Replaced { mode });
    }

    // A link that is left from an interface that vanished is no use to the one that is there now.
    unpin(&pin)?;
    refuse_foreign_program(&writer.paths, interface)?;
    if matches!(wish, Wish::Generic) {
        writer.maps.leave_cpus()?;
    }
    let (id, mode, refused) = match wish {
        Wish::Generic => (
            program.attach_to_if_index(interface.index, XdpMode::Skb),
            Mode::Generic,
            None,
        ),
        Wish::Native => (
            program.attach_to_if_index(interface.index, XdpMode::Driver),
            Mode::Native,
            None,
        ),
        Wish::Auto => match program.attach_to_if_index(interface.index, XdpMode::Driver) {
            Ok(id) => (Ok(id), Mode::Native, None),
            Err(error) => {
                let why = reason(&error);
                writer.maps.leave_cpus()?;
                (
                    program.attach_to_if_index(interface.index, XdpMode::Skb),
                    Mode::Generic,
                    Some(why),
                )
            }
        },
    };
    let id = id.map_err(|error| refusal(&writer.paths, &error, interface, mode))?;
    let link: FdLink = program
        .take_link(id)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the kernel has no bpf_link for XDP (5.9 and newer have)"))?;
    link.pin(&pin)
        .with_context(|| format!("pin {}", pin.display()))?;
    Ok(Attachment::Attached { mode, refused })
}

fn open_link(pin: &Path) -> Result<XdpLink> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("open {}", pin.display()))?;
    XdpLink::try_from(FdLink::from(link))
        .with_context(|| format!("{} is no XDP link", pin.display()))
}

/// Takes the program off the interface at a slot, if there is one, and frees nothing else.
///
/// # Errors
///
/// The pin cannot be removed, or something else holds the link.
pub fn detach(writer: &Writer, slot: usize) -> Result<()> {
    let pin = writer.paths.link(slot);
    let program = program_id(&pin)?;
    let present = interface::list()?;
    let carrier = carriers(&[Pinned { slot, program }], &present).next();
    egress::detach(&writer.paths, slot, carrier)?;
    match fs::remove_file(&pin) {
        Ok(()) => wait_until_gone(program.as_slice()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", pin.display())),
    }
}

/// Waits until none of these programs, whose links are gone, is on an interface of this network
/// namespace.
///
/// The kernel takes a program off some time after the pin of its link was removed: when a grace
/// period is over and a work queue comes to it (Linux `kernel/bpf/inode.c`, `bpf_free_inode`;
/// `kernel/bpf/syscall.c`, `bpf_link_put`).
///
/// # Errors
///
/// One stays, as where something else holds its link; or the interfaces cannot be listed.
pub fn wait_until_gone(programs: &[u32]) -> Result<()> {
    let deadline = Instant::now() + PARTING;
    loop {
        let present = interface::list()?;
        let staying = present.iter().find_map(|interface| {
            let mut on_it = interface.programs.iter();
            let program = on_it.find(|program| programs.contains(&program.id))?;
            Some((interface, program.id))
        });
        let Some((interface, id)) = staying else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let name = &interface.name;
            return Err(anyhow::anyhow!(
                "the kernel does not take program {id} off {name} although its link is removed"
            ))
            .help(|| {
                format!(
                    "something else holds the link: bpftool link show, bpftool net show dev {name}"
                )
            });
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the interfaces of these links, as far as they are in this network namespace, are called today.
fn carriers<'a>(pinned: &[Pinned], present: &'a [Interface]) -> impl Iterator<Item = &'a str> {
    pinned
        .iter()
        .filter_map(|link| Some(link.carrier(present)?.name.as_str()))
}

/// Removes an instance, with its programs and all that is pinned, however damaged that is.
///
/// # Errors
///
/// A pin or a record cannot be removed; something else holds a link.
pub fn remove_instance(lock: &Lock) -> Result<()> {
    let (pinned, present) = (pinned(&lock.paths)?, interface::list()?);
    let in_trash = left_in_trash(&lock.paths)?;
    lock.remove()?;
    let names = in_trash.iter().filter_map(|(_, name)| name.as_deref());
    egress::detach_filters(carriers(&pinned, &present).chain(names));
    let programs = pinned.iter().filter_map(|link| link.program);
    let programs: Vec<u32> = programs
        .chain(in_trash.iter().map(|&(program, _)| program))
        .collect();
    wait_until_gone(&programs)
}

/// The name of a mode.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}

/// The mode of the link at `pin`, if it still holds a program on this very interface.
fn replaceable(pin: &Path, interface: &Interface) -> Result<Option<Mode>> {
    let program = program_id(pin)?;
    Ok(program.and_then(|program| mode_of(program, interface)))
}

/// The mode in which a program runs on an interface, if it does.
#[must_use]
pub fn mode_of(program: u32, interface: &Interface) -> Option<Mode> {
    let mut programs = interface.programs.iter();
    let found = programs.find(|found| found.id == program)?;
    Some(match found.hook {
        XdpHook::Generic => Mode::Generic,
        XdpHook::Native | XdpHook::Offload => Mode::Native,
    })
}
