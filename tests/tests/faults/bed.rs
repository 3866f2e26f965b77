//! What a command finds and what it leaves, with one of its system calls failing.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    faults::{self, Ended, Fault},
    lab::{INTERFACE, Lab},
    probe::Probe,
};
use tempfile::TempDir;

/// The ports that are tried.
const PORTS: [u16; 5] = [1001, 1002, 1003, 1004, 1005];

/// What holds before.
pub(crate) const PLAIN: &str = "\
# what holds
[sets]
banned = [\"203.0.113.9\", { prefix = \"203.0.113.10\", until = \"2099-01-01T00:00:00Z\" }]

[[rule]]
name = \"turns\"
port = \"1001/udp\"
to = \"drop\"

[[rule]]
name = \"stays\"
port = \"1002/udp\"
to = \"drop\"

[[rule]]
name = \"turns-too\"
port = \"1003/udp\"
deny = \"@banned\"
";

/// As simple, and other in every rule but one.
pub(crate) const OTHER: &str = "\
# what is to hold
[sets]
banned = [\"203.0.113.9\"]

[[rule]]
name = \"turns\"
port = \"1001/udp\"

[[rule]]
name = \"stays\"
port = \"1002/udp\"
to = \"drop\"

[[rule]]
name = \"turns-too\"
port = \"1003/udp\"
deny = \"@banned\"
to = \"drop\"
";

/// All that takes more than an image: flows, a socket, an interface, a CPU.
pub(crate) const RICH: &str = "\
# what is to hold
[default]
inbound = \"drop\"

[flows]
size = 1024
half_open = 1024

[sets]
banned = [\"203.0.113.9\"]

[[rule]]
name = \"turns\"
port = \"1001/udp\"
deny = \"@banned\"

[[rule]]
name = \"stays\"
port = \"1002/udp\"
to = \"drop\"

[[rule]]
name = \"web\"
port = \"1003/udp\"
to = \"socket:127.0.0.1:9\"
fallback = \"drop\"

[[rule]]
name = \"out\"
port = \"1010/udp\"
to = \"interface:wire0\"

[[rule]]
name = \"spread\"
port = \"1011/udp\"
to = \"cpu:0\"
";

/// What holds, for readers and for packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holds {
    /// The text of the rules; none if nothing is loaded.
    pub(crate) text: Option<String>,
    /// Which ports let packets through.
    pub(crate) passing: BTreeSet<u16>,
    /// Whether a change waits to be confirmed.
    pub(crate) waits: bool,
}

/// A machine with an instance.
pub(crate) struct Bed<'a> {
    pub(crate) portdemux: Portdemux<'a>,
    pub(crate) lab: &'a Lab,
    probe: Probe,
    files: TempDir,
}

impl<'a> Bed<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            portdemux: Portdemux::new(&lab.server)?,
            lab,
            probe: Probe::new(lab)?,
            files: tempfile::tempdir()?,
        })
    }

    /// Writes rules into a file.
    pub(crate) fn file(&self, text: &str) -> Result<PathBuf> {
        let name = if text == PLAIN {
            "before.toml"
        } else {
            "after.toml"
        };
        let path = self.files.path().join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text)?;
        }
        Ok(path)
    }

    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let file = self.file(text)?;
        self.portdemux.ok(&["apply".as_ref(), file.as_os_str()])?;
        Ok(())
    }

    /// Removes everything, and loads rules.
    pub(crate) fn load(&self, text: &str) -> Result<()> {
        self.portdemux.run(&["detach", "--all"])?;
        self.portdemux.ok(&["attach", INTERFACE])?;
        self.apply(text)
    }

    pub(crate) fn holds(&self) -> Result<Holds> {
        let export = self.portdemux.run(&["export"])?;
        let text = match export.code() {
            Some(3) => None,
            _ => Some(export.success()?.stdout),
        };
        let waits = text.is_some() && !self.portdemux.json(&["status"])?["pending"].is_null();
        Ok(Holds {
            text,
            passing: self.passing()?,
            waits,
        })
    }

    pub(crate) fn passing(&self) -> Result<BTreeSet<u16>> {
        self.probe.passing(&PORTS)
    }

    /// Everything that is pinned and recorded, by name.
    pub(crate) fn leaves(&self) -> Result<BTreeSet<String>> {
        let mut leaves = BTreeSet::new();
        for (root, label) in [
            (self.portdemux.bpffs(), "bpffs"),
            (self.portdemux.state(), "state"),
        ] {
            list(root, label, &mut leaves)?;
        }
        // Held by processes that end in their own time, or made to be held and not needed for anything.
        leaves.retain(|name| {
            !["/lock", "/follower", "state/default", "bpffs/portdemux"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        Ok(leaves)
    }

    /// Runs the command with a fault or without.
    pub(crate) fn run(&self, words: &[OsString], fault: Option<Fault>) -> Result<Ended> {
        let ended = faults::run(&self.portdemux.command(words), cli::binary()?, fault)?;
        let is_orderly = matches!(ended.code, Some(0 | 1 | 3));
        ensure!(
            is_orderly && !ended.stderr.contains("panicked"),
            "it ended with {:?}: {}",
            ended.code,
            ended.stderr
        );
        Ok(ended)
    }
}

fn list(directory: &Path, label: &str, leaves: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{label}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &name, leaves)?;
        }
        leaves.insert(name);
    }
    Ok(())
}

/// Compares what a command has left with what was there before it and what it leaves without a fault.
pub(crate) fn judge(before: &Holds, after: &Holds, now: &Holds, ended: &Ended) -> Result<()> {
    let code = ended.code;
    let said = ended.stderr.trim();
    if now == before && before != after {
        ensure!(
            code != Some(0),
            "nothing was changed, but it ended with 0: {said}"
        );
    } else if now == after {
        let is_said = code == Some(0)
            || said.contains("in force")
            || said.contains("attached")
            || before == after;
        ensure!(is_said, "it is done, but it ended with {code:?}: {said}");
    } else {
        bail!("{now:?} after {code:?}: {said}");
    }
    Ok(())
}

/// Words of a command line.
pub(crate) fn words<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}
