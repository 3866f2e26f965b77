//! What these tests stand on: a lab, an instance in it, and two rulesets that are easy to tell apart.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
};
use serde_json::Value;

/// The ports on which the two rulesets disagree.
pub(crate) const PORTS: [u16; 4] = [1001, 1002, 1003, 1004];

/// One of two rulesets: of [`PORTS`], each lets through what the other drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Old,
    New,
}

impl Rules {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Old => {
                "# what holds\n\
                 [[rule]]\nname = \"turns\"\nport = \"1001/udp\"\nto = \"drop\"\n\n\
                 [[rule]]\nname = \"goes\"\nport = \"1002/udp\"\naddress = \"192.0.2.2\"\nto = \"drop\"\n\n\
                 [[rule]]\nname = \"turns-too\"\nport = \"1003/udp\"   # for the time being\n"
            }
            Self::New => {
                "# what is to hold\n\
                 [[rule]]\nname = \"turns\"\nport = \"1001/udp\"\n\n\
                 [[rule]]\nname = \"turns-too\"\nport = \"1003/udp\"\nto = \"drop\"\n\n\
                 [[rule]]\nname = \"comes\"\nport = \"1004/udp\"\naddress = \"192.0.2.2\"\nto = \"drop\"\n"
            }
        }
    }

    pub(crate) fn passing(self) -> BTreeSet<u16> {
        match self {
            Self::Old => BTreeSet::from([1003, 1004]),
            Self::New => BTreeSet::from([1001, 1002]),
        }
    }

    /// The rules by name, with the port and what becomes of it.
    const fn rules(self) -> [(&'static str, &'static str, &'static str); 3] {
        match self {
            Self::Old => [
                ("turns", "1001/udp", "drop"),
                ("goes", "1002/udp", "drop"),
                ("turns-too", "1003/udp", "local"),
            ],
            Self::New => [
                ("turns", "1001/udp", "local"),
                ("turns-too", "1003/udp", "drop"),
                ("comes", "1004/udp", "drop"),
            ],
        }
    }

    /// Writes them into a file.
    pub(crate) fn file(self, portdemux: &Portdemux) -> Result<PathBuf> {
        let name = match self {
            Self::Old => "old.toml",
            Self::New => "new.toml",
        };
        let path = portdemux.state().join(name);
        fs::write(&path, self.text())?;
        Ok(path)
    }

    pub(crate) fn apply(self, portdemux: &Portdemux) -> Result<()> {
        let file = self.file(portdemux)?;
        portdemux.ok(&["apply".as_ref(), file.as_os_str()])?;
        Ok(())
    }
}

/// Which of the rulesets is in force, and its generation.
///
/// # Errors
///
/// If it is not one of them as a whole, for every reader and for packets.
pub(crate) fn in_force(portdemux: &Portdemux, probe: &Probe) -> Result<(Rules, u64)> {
    let export = portdemux.ok(&["export"])?;
    ensure!(export.stderr.is_empty(), "export: {}", export.stderr);
    let rules = [Rules::Old, Rules::New]
        .into_iter()
        .find(|rules| rules.text() == export.stdout)
        .with_context(|| format!("neither ruleset: {}", export.stdout))?;

    let document = portdemux.json(&["rules"])?;
    let list = document["rules"].as_array().context("rules")?;
    let said: Vec<_> = list
        .iter()
        .map(|rule| {
            (
                text(&rule["name"]),
                text(&rule["ports"][0]),
                text(&rule["to"]),
            )
        })
        .collect();
    let expected = rules.rules();
    ensure!(said == expected, "{rules:?}: {document}");

    let stats = portdemux.stats()?;
    for port in PORTS.map(|port| format!("{port}/udp")) {
        let claim = expected.iter().find(|rule| rule.1 == port);
        let rule = stats.rule_of(&port)?;
        ensure!(
            rule.as_deref() == claim.map(|claim| claim.0),
            "{rules:?}: {port} is claimed by {rule:?}"
        );
    }
    let generation = stats.generation()?;
    ensure!(document["generation"] == generation, "{document}");

    let passing = probe.passing(&PORTS)?;
    ensure!(
        passing == rules.passing(),
        "{rules:?} is in force, but {passing:?} passes"
    );
    Ok((rules, generation))
}

/// The state of the first interface of an instance, as in `attached`; nothing if it has none or is
/// not loaded.
pub(crate) fn state(portdemux: &Portdemux) -> Result<Option<String>> {
    let status = portdemux.run(&["status", "--json"])?;
    if status.code() == Some(3) {
        return Ok(None);
    }
    let document: Value = serde_json::from_str(&status.success()?.stdout)?;
    Ok(document["interfaces"][0]["state"]
        .as_str()
        .map(str::to_owned))
}

/// The id and mode (1 native, 2 generic) of the XDP program on an interface of the server.
pub(crate) fn program_on(lab: &Lab, interface: &str) -> Result<Option<(u64, u64)>> {
    let output = lab.server.ip(&["-json", "-d", "link", "show", interface])?;
    let links: Value = serde_json::from_str(&output.stdout)?;
    let xdp = &links[0]["xdp"];
    Ok(xdp["prog"]["id"].as_u64().zip(xdp["mode"].as_u64()))
}

/// Whether the program that is on the wire's end is this instance's, and holds these rules.
pub(crate) fn holds(lab: &Lab, portdemux: &Portdemux, probe: &Probe, rules: Rules) -> Result<()> {
    ensure!(state(portdemux)?.as_deref() == Some("attached"));
    ensure!(program_on(lab, INTERFACE)?.is_some());
    let (now, _) = in_force(portdemux, probe)?;
    ensure!(now == rules, "{now:?} is in force instead of {rules:?}");
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
