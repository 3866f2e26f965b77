//! `embed INTERFACE BPFFS STATE_DIR`: puts a rule in force on an interface, and says what came for each port.

use std::{
    env,
    io::{Write as _, stderr, stdout},
};

use anyhow::{Context as _, Result};
use portdemux::{
    control::{Control, Events, RulesText, attach::To},
    instance::InstancePaths,
};

const RULES: &str = "[[rule]]\nname = \"telnet\"\nport = \"23/tcp\"\nto = \"drop\"\n";

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().context("embed INTERFACE BPFFS STATE_DIR");
    let to = To {
        interfaces: vec![next()?],
        ..To::default()
    };
    let name = "embed".parse().map_err(anyhow::Error::msg)?;
    let paths = InstancePaths::new(name, next()?.into(), next()?.into());
    let events = Events::new(|event| drop(writeln!(stderr(), "{event:?}")));
    let control = Control::new(paths, events);
    let rules = RulesText::new("rules", RULES);
    control.attach(&to, Some(&rules), &|_, _, _| Ok(()))?;
    let snapshot = control.open()?.snapshot();
    for port @ (transport, number) in snapshot.ports() {
        let packets = snapshot.traffic(port).received.packets;
        writeln!(stdout(), "{number}/{}: {packets}", transport.name())?;
    }
    Ok(())
}
