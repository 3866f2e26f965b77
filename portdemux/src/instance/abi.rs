//! The directories of an instance's pins, one for each ABI: whose pins are there, and which of them lie on the way from one
//! to another.

use std::path::PathBuf;

use anyhow::Result;
use portdemux_common::ABI;

use super::InstancePaths;
use crate::{
    error::Help as _,
    maps::{
        abi::{ABI_PREFIX, OLDER_PREFIX, numbers, overtaken},
        layout::OLDEST,
        trusted::is_there,
    },
};

/// A directory of an instance's pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AbiDirectory {
    /// That of this binary's ABI.
    #[default]
    Own,
    /// That of an older ABI, which can be read and taken over.
    Older(u32),
    /// One of this binary's ABI that has taken an older one's place and not got its own name yet.
    Staged,
}

impl AbiDirectory {
    /// Its name.
    pub(super) fn name(self) -> String {
        match self {
            Self::Own => format!("{ABI_PREFIX}{ABI}"),
            Self::Older(abi) => format!("{ABI_PREFIX}{abi}"),
            // Another binary takes it for the number of an ABI that is not its own, and refuses.
            Self::Staged => format!("{ABI_PREFIX}0{ABI}"),
        }
    }
}

impl InstancePaths {
    /// The same instance, with another of its directories of pins.
    #[must_use]
    pub(crate) fn with(&self, directory: AbiDirectory) -> Self {
        Self {
            directory,
            ..self.clone()
        }
    }

    /// The instance as it is, if it is one that this binary can read: of this binary's ABI, of an older one, or on
    /// its way from that to this.
    ///
    /// # Errors
    ///
    /// The pins cannot be looked at.
    pub fn as_found(&self) -> Result<Self> {
        let own = self.with(AbiDirectory::Own);
        if is_there(&own.pins())? {
            return Ok(own);
        }
        if let Some(older) = self.older_abi()? {
            return Ok(self.with(AbiDirectory::Older(older)));
        }
        let staged = self.with(AbiDirectory::Staged);
        if staged.overtaken()?.is_some() {
            return Ok(staged);
        }
        Ok(own)
    }

    /// The same instance, with the pins of this binary's ABI.
    #[must_use]
    pub fn own(&self) -> Self {
        self.with(AbiDirectory::Own)
    }

    /// All instances that have pins; where no bpffs is mounted there are none.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn all(&self) -> Result<Vec<Self>> {
        if is_there(&self.root())? {
            self.every_instance()
        } else {
            Ok(Vec::new())
        }
    }

    /// Whether there are pins of the instance; of a bpffs that is not mounted there are none.
    ///
    /// # Errors
    ///
    /// They cannot be looked for.
    pub fn is_loaded(&self) -> Result<bool> {
        is_there(&self.instance_pins())
    }

    /// The newest of the older ABIs that the instance has pins of, as far as this binary reads them.
    pub(crate) fn older_abi(&self) -> Result<Option<u32>> {
        let abis = numbers(&self.instance_pins(), ABI_PREFIX)?;
        let known = abis.into_iter().filter(|abi| (OLDEST..ABI).contains(abi));
        Ok(known.max())
    }

    /// The older directory whose place this one has taken and that is not removed yet, and its ABI.
    pub(crate) fn overtaken(&self) -> Result<Option<(u32, PathBuf)>> {
        overtaken(&self.pins())
    }

    /// Where the older directory of an ABI lies once this one has taken its place.
    pub(crate) fn overtaken_at(&self, abi: u32) -> PathBuf {
        self.pins().join(format!("{OLDER_PREFIX}{abi}"))
    }

    /// An empty directory that lies there while a staged one takes the place of an older one. Versions that know of no
    /// staged ones (up to ABI 6) read its name as the number of a newer version and refuse; else they would find no
    /// instance in that moment, and make one.
    pub(crate) fn sign(&self) -> PathBuf {
        self.instance_pins().join(format!("{ABI_PREFIX}+{ABI}"))
    }

    /// Refuses an instance that a newer version made: what belongs to it is not known here.
    ///
    /// # Errors
    ///
    /// It is one.
    pub fn refuse_newer(&self) -> Result<()> {
        // What cannot be listed is damaged, whoever made it.
        let abis = self.abis().unwrap_or_default();
        if abis.contains(&ABI) || abis.iter().all(|&abi| abi <= ABI) {
            return Ok(());
        }
        self.refuse_other_abi()
    }

    /// The ABIs of all directories of pins, those among them that have taken another's place and not got their own
    /// name yet: whoever was killed then has left no other.
    fn abis(&self) -> Result<Vec<u32>> {
        let pins = self.instance_pins();
        let mut abis = numbers(&pins, ABI_PREFIX)?;
        let unnamed = format!("{ABI_PREFIX}0");
        for abi in numbers(&pins, &unnamed)? {
            if overtaken(&pins.join(format!("{unnamed}{abi}")))?.is_some() {
                abis.push(abi);
            }
        }
        Ok(abis)
    }

    /// Refuses pins of another ABI; says what to do about them.
    pub(super) fn refuse_other_abi(&self) -> Result<()> {
        let abis = self.abis()?;
        let Some(&other) = abis.iter().filter(|&&abi| abi != ABI).max() else {
            return Ok(());
        };
        let which = if other > ABI { "a newer" } else { "an older" };
        Err(anyhow::anyhow!(
            "instance {} was made by {which} version of portdemux (pins of ABI {other}, this one has ABI {ABI})",
            self.instance
        ))
        .help(|| self.way_from(other))
    }

    /// What to do about pins of another ABI.
    fn way_from(&self, other: u32) -> String {
        let command = self.command();
        if other > ABI {
            "use that version; nothing was changed".into()
        } else if other < OLDEST {
            format!("use that version, or remove it with {command} detach --all and attach again")
        } else {
            format!(
                "{command} upgrade takes it over with its rules, counters and flows; nothing was changed"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other programs find pins there.
    #[test]
    fn documents_name_the_directory_of_this_abi() {
        for document in [
            include_str!("../../../docs/cli.md"),
            include_str!("../../../docs/destinations.md"),
        ] {
            let named: Vec<u32> = document
                .split("/abi")
                .skip(1)
                .filter_map(|rest| rest.split('/').next()?.parse().ok())
                .collect();
            assert!(!named.is_empty());
            assert!(named.iter().all(|&abi| abi == ABI), "{named:?}");
        }
    }
}
