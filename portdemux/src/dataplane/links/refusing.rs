//! Why a program cannot be attached.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::programs::{ProgramError, loaded_programs};
use portdemux_common::state::Mode;

use super::{FLOW_PLAIN_PROGRAM, FLOW_PROGRAM, PARTING, PLAIN_PROGRAM, PROGRAM, mode_name};
use crate::{
    capabilities::{self, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON},
    dataplane::refused,
    error::{Advice, Help as _},
    instance::{InstanceName, InstancePaths, pinned::program_id},
    interface::{self, Interface},
};

/// Checks up front that this kernel can have the programs and this process may load and attach them.
///
/// # Errors
///
/// Names what the kernel lacks, or the capabilities that the process does.
pub fn check_capabilities() -> Result<()> {
    refused::check_floor()?;
    let missing = capabilities::lacking(&[
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ])?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "this process lacks {}",
        missing.join(" and ")
    ))
    .help(|| {
        "run it as root; an ordinary user takes a copy of the binary with setcap \
         cap_bpf,cap_net_admin,cap_perfmon+ep, and PORTDEMUX_BPFFS and PORTDEMUX_STATE_DIR that are its own"
            .into()
    })
}

/// Stops where another program is: it is somebody's, and works.
///
/// One that can be on its way off the interface is waited for: a program of portdemux that no
/// instance in this bpffs has, or one that is not there any more when it is asked for its name.
pub(super) fn refuse_foreign_program(paths: &InstancePaths, interface: &Interface) -> Result<()> {
    let deadline = Instant::now() + PARTING;
    let (program, name) = loop {
        let present = interface::list()?;
        let on_it = present.iter().find(|other| other.index == interface.index);
        let Some(&program) = on_it.and_then(|on_it| on_it.programs.first()) else {
            return Ok(());
        };
        let name = loaded_programs()
            .flatten()
            .find(|info| info.id() == program.id)
            .and_then(|info| info.name_as_str().map(str::to_owned));
        let can_be_parting = name
            .as_ref()
            .is_none_or(|name| is_our_name(name) && !is_pinned(paths, program.id));
        if !can_be_parting || Instant::now() > deadline {
            break (program, name.unwrap_or_else(|| "no name".into()));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let is_ours = is_our_name(&name);
    let owner = owner(paths, program.id);
    let of = owner
        .as_ref()
        .map_or_else(String::new, |(instance, is_in_trash)| {
            let state = if *is_in_trash {
                ", whose removal was interrupted"
            } else {
                ""
            };
            format!(", of instance {instance}{state}")
        });
    let whose = if is_ours {
        "another portdemux instance's"
    } else {
        "another"
    };
    Err(anyhow::anyhow!(
        "{} has {whose} XDP program: id {}, {name}, {} mode{of}",
        interface.name,
        program.id,
        program.hook.name()
    ))
    .help(|| {
        if let Some((instance, is_in_trash)) = owner {
            let what = if is_in_trash { "--all" } else { &interface.name };
            format!("detach it there first: portdemux --instance {instance} detach {what}")
        } else if is_ours {
            "detach it there first: portdemux --instance NAME detach".into()
        } else {
            format!(
                "see whose it is with `bpftool prog show id {}`, take it off with its own tool or with \
                 `ip link set {} xdp off`, then attach again",
                program.id, interface.name
            )
        }
    })
}

fn is_our_name(name: &str) -> bool {
    [PROGRAM, PLAIN_PROGRAM, FLOW_PROGRAM, FLOW_PLAIN_PROGRAM].contains(&name)
}

/// The instance in this bpffs that has the link of a program, and whether its removal was interrupted.
fn owner(paths: &InstancePaths, program: u32) -> Option<(InstanceName, bool)> {
    let links = paths.all_links().into_iter();
    let mut links =
        links.filter(|pin| matches!(program_id(pin), Ok(Some(found)) if found == program));
    paths.owner_of(&links.next()?)
}

/// Whether an instance in this bpffs has the link of a program.
fn is_pinned(paths: &InstancePaths, program: u32) -> bool {
    let links = paths.all_links();
    // What cannot be asked may be it.
    links
        .iter()
        .any(|pin| program_id(pin).map_or(true, |found| found == Some(program)))
}

/// Says why a program cannot be attached, and what to do about it.
pub(super) fn refusal(
    paths: &InstancePaths,
    error: &ProgramError,
    interface: &Interface,
    mode: Mode,
) -> anyhow::Error {
    let command = paths.command();
    let name = &interface.name;
    let failure = anyhow::anyhow!("{}", reason(error))
        .context(format!("attach to {name} in {} mode", mode_name(mode)));
    let advice = match (mode, os_error(error)) {
        (_, Some(libc::EBUSY)) => {
            format!("another program came first: {command} status, bpftool net show dev {name}")
        }
        (_, Some(libc::EPERM)) => {
            "it takes the capabilities CAP_BPF and CAP_NET_ADMIN: run it as root".into()
        }
        (Mode::Native, _) => {
            format!("{command} attach {name} --mode generic works on every driver, slower")
        }
        (Mode::Generic, _) => format!("ip -d link show {name} says what kind of interface it is"),
    };
    failure.context(Advice(advice))
}

/// What the kernel says.
pub(super) fn reason(error: &ProgramError) -> String {
    match os_error(error) {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    }
}

/// The number of what the kernel says, if it is the kernel that says it.
pub(super) fn os_error(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    if let ProgramError::SyscallError(error) = error {
        return error.io_error.raw_os_error();
    }
    None
}
