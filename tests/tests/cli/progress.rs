//! What a person sees of what takes long.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    release::{Lacking, Release},
    require::{self, Need},
    terminal::Session,
    wait::{PATIENCE, wait_until},
};

/// `BPF_PROG_TYPE_XDP` (Linux `include/uapi/linux/bpf.h`, `enum bpf_prog_type`).
const XDP: u32 = 6;

const SAID: &str = "the kernel verifies the programs";

#[test]
fn what_takes_long_is_said_on_a_terminal_until_it_is_done_and_nowhere_else() -> Result<()> {
    if !require::have(require::WIRE) || !require::have(&[Need::Tool("cc")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.pretend(Release::slow(Lacking::Programs(XDP), 2)?);
    let session = Session::start(portdemux.command(&["attach", INTERFACE]), 80, 24)?;
    wait_until("what takes long", PATIENCE, || {
        let lines = session.screen()?.lines();
        Ok(lines.iter().any(|line| line.starts_with(SAID)))
    })?;
    let shown = session.end()?;
    ensure!(shown.status.success(), "{}", shown.text);
    let lines = shown.screen.lines();
    ensure!(
        lines[0].starts_with(&format!("{INTERFACE}  attached")),
        "{lines:?}"
    );
    ensure!(!lines.iter().any(|line| line.contains(SAID)), "{lines:?}");

    let output = portdemux.ok(&["attach", INTERFACE])?;
    ensure!(!output.stderr.contains(SAID), "{}", output.stderr);
    Ok(())
}
