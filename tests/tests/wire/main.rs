//! portdemux on a wire with real programs or single frames at both ends, in native and in generic
//! mode.
//!
//! Whatever goes out of the client's end is written down beside the wire ([`tap`]), so that counters
//! are held to what was sent and not to what was meant.

mod answers;
mod claims;
mod destinations;
mod dispatch;
mod flood;
mod flows;
mod fragments;
mod host;
mod interfaces;
mod jumbo;
mod lacking;
mod limits;
mod old_kernels;
mod redirect_drops;
mod scan;
mod servers;
mod sets;
mod sources;
mod tap;
mod xsk;

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    require::{self, Need},
    wait::PATIENCE,
};

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Native,
    Generic,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// An instance without rules on the server's end of a lab.
    fn attach(self, lab: &Lab) -> Result<Portdemux<'_>> {
        let portdemux = Portdemux::new(&lab.server)?;
        portdemux.ok(&["attach", INTERFACE, "--mode", self.name()])?;
        // The kernel's word for it.
        let link = lab.server.ip(&["link", "show", INTERFACE])?.stdout;
        let hook = match self {
            Self::Native => " xdp ",
            Self::Generic => " xdpgeneric ",
        };
        ensure!(link.contains(hook), "not in {self:?} mode: {link}");
        Ok(portdemux)
    }

    /// An instance with these rules on the server's end of a lab.
    fn attach_with_rules<'l>(self, lab: &'l Lab, rules: &str) -> Result<Portdemux<'l>> {
        let portdemux = self.attach(lab)?;
        portdemux.apply(rules)?;
        Ok(portdemux)
    }
}

/// Makes functions tests in native and in generic mode, where the programs are that they need.
macro_rules! in_both_modes {
    ($($sentence:ident [$($program:literal)*];)+) => {
        mod native {
            $(
                #[test]
                fn $sentence() -> anyhow::Result<()> {
                    crate::test(&[$($program),*], crate::Mode::Native, super::$sentence)
                }
            )+
        }

        mod generic {
            $(
                #[test]
                fn $sentence() -> anyhow::Result<()> {
                    crate::test(&[$($program),*], crate::Mode::Generic, super::$sentence)
                }
            )+
        }
    };
}
pub(crate) use in_both_modes;

fn test(programs: &[&'static str], mode: Mode, test: fn(Mode) -> Result<()>) -> Result<()> {
    let mut needs = require::WIRE.to_vec();
    needs.extend(programs.iter().copied().map(Need::Tool));
    if !require::have(&needs) {
        return Ok(());
    }
    test(mode)
}

/// The server's addresses of both versions.
const SERVERS: [IpAddr; 2] = [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)];

/// An address as it stands in a URL.
fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Sends frames and returns those that the server's stack got, in their order.
///
/// One more frame, which nothing drops, says when all have arrived.
fn deliver(lab: &Lab, frames: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let (client, server) = (lab.client_socket()?, lab.server_socket()?);
    let last = last_frame();
    thread::scope(|scope| {
        let send = || -> Result<()> {
            // Two CPUs could overtake each other.
            stay_on_one_cpu()?;
            for frame in frames {
                client.send(frame)?;
            }
            client.send(&last)
        };
        scope.spawn(send).join()
    })
    .unwrap_or_else(|_| Err(anyhow!("the sender panicked")))?;
    let mut delivered = Vec::new();
    loop {
        let frame = server.receive(PATIENCE)?;
        let frame = frame.with_context(|| format!("only {} came", delivered.len()))?;
        if frame == last {
            break;
        }
        delivered.push(frame);
    }
    let late = server.receive(Duration::from_millis(1))?;
    ensure!(late.is_none(), "after the last frame came {late:02x?}");
    Ok(delivered)
}

/// A frame of an experimental type (IEEE 802, 0x88b5).
fn last_frame() -> Vec<u8> {
    frames::ethernet(0x88b5, *b"this is the last frame, nothing comes after it").bytes()
}

fn stay_on_one_cpu() -> Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu) == Ok(true));
    one.set(first.context("no CPU is allowed")?)?;
    sched_setaffinity(this_thread, &one)?;
    Ok(())
}
