//! Counters, as `portdemux stats --json` prints them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// What came in, and how much of that was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Everything that came.
    pub received: Count,
    /// What was dropped.
    pub dropped: Count,
}

/// The document.
#[derive(Clone, Debug)]
pub struct Stats(pub Value);

impl Stats {
    /// The ruleset's generation.
    ///
    /// # Errors
    ///
    /// If the document has none.
    pub fn generation(&self) -> Result<u64> {
        self.0["generation"]
            .as_u64()
            .context("stats have no generation")
    }

    /// All ports that are listed, with what came for them.
    ///
    /// # Errors
    ///
    /// If an entry is not as documented.
    pub fn ports(&self) -> Result<BTreeMap<String, Traffic>> {
        let entries = self.list("ports")?.iter();
        entries
            .map(|entry| Ok((port_of(entry), traffic(Some(entry))?)))
            .collect()
    }

    /// What came in through the interface that had this name when it was attached.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or the entry is not as documented.
    pub fn interface(&self, name: &str) -> Result<Traffic> {
        let entry = self
            .list("interfaces")?
            .iter()
            .find(|entry| entry["name"] == name)
            .with_context(|| format!("stats have no interface {name}"))?;
        traffic(Some(entry))
    }

    /// The traffic of a port such as `443/tcp`; nothing if it is not listed.
    ///
    /// # Errors
    ///
    /// If the entry is not as documented.
    pub fn port(&self, port: &str) -> Result<Traffic> {
        let is_it = |entry: &&Value| port_of(entry) == port;
        traffic(self.list("ports")?.iter().find(is_it))
    }

    /// The rule that claims a port such as `443/tcp`.
    ///
    /// # Errors
    ///
    /// If the document has no ports.
    pub fn rule_of(&self, port: &str) -> Result<Option<String>> {
        let is_it = |entry: &&Value| port_of(entry) == port;
        let entry = self.list("ports")?.iter().find(is_it);
        Ok(entry
            .and_then(|entry| entry["rule"].as_str())
            .map(str::to_owned))
    }

    /// The traffic of a rule; nothing if it is not listed.
    ///
    /// # Errors
    ///
    /// If the entry is not as documented.
    pub fn rule(&self, name: &str) -> Result<Traffic> {
        traffic(
            self.list("rules")?
                .iter()
                .find(|entry| entry["rule"] == name),
        )
    }

    /// How often a reason was given; never if it is not listed.
    ///
    /// # Errors
    ///
    /// If the entry is not as documented.
    pub fn reason(&self, name: &str) -> Result<Count> {
        let entry = self
            .list("reasons")?
            .iter()
            .find(|entry| entry["reason"] == name);
        entry.map_or(Ok(Count::default()), count)
    }

    /// The reasons that were given, with how often.
    ///
    /// # Errors
    ///
    /// If an entry is not as documented.
    pub fn reasons(&self) -> Result<Vec<(String, Count)>> {
        let mut reasons = Vec::new();
        for entry in self.list("reasons")? {
            let name = entry["reason"]
                .as_str()
                .context("a reason without its name")?;
            let count = count(entry)?;
            if count.packets > 0 {
                reasons.push((name.to_owned(), count));
            }
        }
        reasons.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(reasons)
    }

    fn list(&self, name: &str) -> Result<&Vec<Value>> {
        self.0[name]
            .as_array()
            .with_context(|| format!("stats have no {name}: {}", self.0))
    }
}

fn port_of(entry: &Value) -> String {
    let protocol = entry["protocol"].as_str().unwrap_or_default();
    format!("{}/{protocol}", entry["port"])
}

fn traffic(entry: Option<&Value>) -> Result<Traffic> {
    let Some(entry) = entry else {
        return Ok(Traffic::default());
    };
    Ok(Traffic {
        received: count(&entry["received"])?,
        dropped: count(&entry["dropped"])?,
    })
}

fn count(value: &Value) -> Result<Count> {
    let number = |name: &str| {
        value[name]
            .as_u64()
            .with_context(|| format!("{value} has no number of {name}"))
    };
    Ok(Count {
        packets: number("packets")?,
        bytes: number("bytes")?,
    })
}
