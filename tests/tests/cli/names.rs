//! Names that were chosen to do something to a terminal.

use anyhow::{Result, ensure};
use portdemux_tests::{cli::Portdemux, lab::Lab, require};

/// Clears the screen of whoever is shown it.
const NAME: &str = "a\u{1b}[2Jb\u{7f}";
const SHOWN: &str = "a\\u001b[2Jb\\u007f";

#[test]
fn control_characters_of_names_are_written_out() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.server.ip(&[
        "link", "add", NAME, "type", "veth", "peer", "name", "other0",
    ])?;
    let portdemux = Portdemux::new(&lab.server)?;
    let said = [
        portdemux.ok(&["attach", NAME])?,
        portdemux.ok(&["status"])?,
        portdemux.fails(1, &["attach", "nowhere"])?,
        portdemux.fails(1, &["apply", "/nowhere/\u{1b}[2J"])?,
        portdemux.ok(&["detach", NAME])?,
    ];
    for output in said {
        let text = output.stdout + &output.stderr;
        ensure!(!text.contains(['\u{1b}', '\u{7f}']), "{text:?}");
        ensure!(text.contains("u001b[2J"), "{text:?}");
    }
    let status = portdemux
        .ok(&["attach", NAME])
        .and_then(|_| portdemux.json(&["status"]))?;
    ensure!(status["interfaces"][0]["name"] == NAME, "{status}");
    let status = portdemux.ok(&["status"])?.stdout;
    ensure!(status.contains(SHOWN), "{status}");
    Ok(())
}
