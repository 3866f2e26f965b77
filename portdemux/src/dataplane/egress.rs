//! The program that sees what an interface sends.

use std::io;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
    util::KernelVersion,
};

use crate::{
    dataplane::refused,
    error::Help as _,
    instance::InstancePaths,
    maps::{damage::is_damage, pins::unpin},
};

/// The program's name in its object.
pub const PROGRAM: &str = "portdemux_sent";

/// The first kernel with links for traffic control (`BPF_TCX_EGRESS`).
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// Where the filter stands among those of the qdisc, before Linux 6.6: late, and always at the same place,
/// so that it can be replaced there in one step.
const PRIORITY: u16 = 0xc0de;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches the program, which is loaded, to the interface of this name, which is in this network namespace, or
/// replaces the one that is there.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn attach(
    paths: &InstancePaths,
    object: &mut Ebpf,
    slot: usize,
    name: &str,
) -> Result<()> {
    let program: &mut SchedClassifier = object
        .program_mut(PROGRAM)
        .context("the object has no program for what is sent")?
        .try_into()?;
    let failure = || format!("attach to what {name} sends");
    if !has_links() {
        return attach_filter(program, name).with_context(failure);
    }
    let pin = paths.egress(slot);
    let replaced = PinnedLink::from_pin(&pin)
        .map_err(anyhow::Error::new)
        .and_then(|link| Ok(SchedClassifierLink::try_from(FdLink::from(link))?))
        .and_then(|link| Ok(program.attach_to_link(link).map(drop)?));
    match replaced {
        Ok(()) => return Ok(()),
        // A link that is left from an interface that vanished is of no use.
        Err(error) if is_damage(&error) || is_link_to_nothing(&error) => unpin(&pin)?,
        Err(error) => return Err(error).with_context(failure),
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program
        .attach_with_options(name, TcAttachType::Egress, order)
        .with_context(failure)
        .help(|| format!("see what is there with `bpftool net show dev {name}`"))?;
    let link: FdLink = program
        .take_link(id)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the kernel made no link for it"))?;
    link.pin(&pin)
        .with_context(|| format!("pin {}", pin.display()))?;
    Ok(())
}

/// Loads the program.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn load(program: &mut Program) -> Result<()> {
    let program: &mut SchedClassifier = program.try_into()?;
    refused::load("the program for what is sent", || program.load())
}

/// Whether an error says that the interface of a link is gone.
fn is_link_to_nothing(error: &anyhow::Error) -> bool {
    let mut codes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    codes.any(|error| error.raw_os_error() == Some(libc::ENOLINK))
}

/// Whether the kernel has links for traffic control.
pub(super) fn has_links() -> bool {
    !KernelVersion::current().is_ok_and(|version| version < TCX_SINCE)
}

/// Before Linux 6.6: a filter of the qdisc `clsact`, which stays until it is taken off.
fn attach_filter(program: &mut SchedClassifier, name: &str) -> Result<()> {
    // One that is there already is as good.
    let _ = tc::qdisc_add_clsact(name);
    let old = SchedClassifierLink::attached(name, TcAttachType::Egress, PRIORITY, HANDLE, None)?;
    let id = if let Ok(id) = program.attach_to_link(old) {
        id
    } else {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        program.attach_with_options(name, TcAttachType::Egress, options)?
    };
    // Dropped, it would take the filter off.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Takes the program off the interface at a place, if it is there; `carrier` is what that is called today,
/// if it is in this network namespace.
///
/// # Errors
///
/// The pin cannot be removed.
pub(super) fn detach(paths: &InstancePaths, slot: usize, carrier: Option<&str>) -> Result<()> {
    detach_filters(carrier);
    unpin(&paths.egress(slot))
}

/// Takes the program off interfaces of this network namespace, where no link holds it.
pub(super) fn detach_filters<'a>(carriers: impl IntoIterator<Item = &'a str>) {
    if has_links() {
        return;
    }
    for carrier in carriers {
        // One that is not there is what is wanted.
        let _ = tc::qdisc_detach_program(carrier, TcAttachType::Egress, PROGRAM);
    }
}
