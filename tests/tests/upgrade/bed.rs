//! Which versions take over from which, and what they find.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::INTERFACE,
    run::Output,
    versions,
};

/// Rules with a set that has members for a time, with flows, and with everything else dropped.
pub(crate) const RULES: &str = "\
# what holds
[default]
inbound = \"drop\"

[sets]
banned = [\"198.51.100.0/24\"]

[[rule]]
name = \"open\"
port = \"1003/udp\"   # for everyone
deny = [\"@banned\"]

[[rule]]
name = \"closed\"
port = \"1001/udp\"
to = \"drop\"

[[rule]]
name = \"limited\"
port = \"1005/udp\"
rate = \"100000/s\"
";

/// A version and the one that takes over from it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) older: PathBuf,
    pub(crate) newer: PathBuf,
    /// The ABIs of both.
    pub(crate) abis: [u32; 2],
}

impl Pair {
    /// This version and its successor; or an older one and this, where that was built.
    pub(crate) fn of_this() -> Result<Self> {
        let here = cli::binary()?;
        let abi = portdemux_common::ABI;
        Ok(match versions::older()? {
            Some((older, older_abi)) => Self {
                older,
                newer: here.into(),
                abis: [older_abi, abi],
            },
            None => Self {
                older: here.into(),
                newer: versions::next()?.into(),
                abis: [abi, abi + 1],
            },
        })
    }

    /// Makes later commands those of the older version.
    pub(crate) fn use_older(&self, portdemux: &mut Portdemux) {
        portdemux.set_program(&self.older, self.abis[0]);
    }

    /// Attaches the older version, whose later commands are, with [`RULES`], whose file is returned, and with options.
    pub(crate) fn attach_older(
        &self,
        portdemux: &mut Portdemux,
        options: &[&str],
    ) -> Result<String> {
        self.use_older(portdemux);
        let rules = rules(portdemux)?;
        let words = [&["attach", INTERFACE, "--rules", &rules][..], options].concat();
        portdemux.ok(&words)?;
        Ok(rules)
    }

    /// Makes later commands those of the newer version.
    pub(crate) fn use_newer(&self, portdemux: &mut Portdemux) {
        portdemux.set_program(&self.newer, self.abis[1]);
    }
}

/// Writes [`RULES`] into a file.
pub(crate) fn rules(portdemux: &Portdemux) -> Result<String> {
    let path = portdemux.rules_file(RULES)?;
    Ok(path.display().to_string())
}

/// The directories of pins of the instance.
pub(crate) fn directories(portdemux: &Portdemux) -> Result<BTreeSet<String>> {
    directories_of(portdemux, "default")
}

/// The directories of pins of another instance.
pub(crate) fn directories_of(portdemux: &Portdemux, instance: &str) -> Result<BTreeSet<String>> {
    let instance = portdemux.bpffs().join("portdemux").join(instance);
    let entries =
        fs::read_dir(&instance).with_context(|| format!("read {}", instance.display()))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// What two commands said, if that is the same.
pub(crate) fn same(one: &Output, other: &Output) -> Result<()> {
    anyhow::ensure!(
        one.stdout == other.stdout,
        "{}: {}\nand {}: {}",
        one.command,
        one.stdout,
        other.command,
        other.stdout
    );
    Ok(())
}
