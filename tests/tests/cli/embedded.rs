//! portdemux as a library: the example does what it says.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    require,
};

#[test]
fn the_example_puts_its_rule_in_force_and_reads_counters() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.set_instance("embed");
    let embed = cli::embed()?.display().to_string();
    let paths = [portdemux.bpffs(), portdemux.state()].map(|path| path.display().to_string());
    let output = lab.server.run(&embed, &[INTERFACE, &paths[0], &paths[1]])?;
    let said = output.stdout;
    ensure!(said == "23/tcp: 0\n", "{said}");
    let rules = portdemux.json(&["rules"])?;
    ensure!(rules["rules"][0]["name"] == "telnet", "{rules}");
    let status = portdemux.json(&["status"])?;
    ensure!(status["interfaces"][0]["state"] == "attached", "{status}");
    Ok(())
}
