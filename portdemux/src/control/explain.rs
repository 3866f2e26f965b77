//! An instance says what becomes of packets.

use anyhow::{Result, anyhow};
use portdemux_common::{decide::Metadata, reason::Reason};

use super::Control;
use crate::{
    attached::{self, AttachState, AttachedInterface},
    change,
    error::{Help as _, NothingLoaded},
    explain::{Basis, Explained},
    image::Compiled,
    instance::Instance,
    interface,
    maps::{Maps, flows::FlowTables},
    presence::Present,
    recover,
    rules::Destination,
    socket_groups,
};

/// An instance whose rules and state are asked.
#[derive(Debug)]
pub struct AskedInstance<'c> {
    control: &'c Control,
    instance: Instance,
    flows: Option<FlowTables>,
    present: Present,
    /// The interfaces that its program is on.
    attached: Vec<AttachedInterface>,
}

impl Control {
    /// Opens the instance to ask it about packets, of an interface that they come by if one is named. Warnings say first
    /// where packets do not meet its rules.
    ///
    /// # Errors
    ///
    /// There is no instance, or no such interface.
    pub fn ask(&self, interface: Option<&str>) -> Result<AskedInstance<'_>> {
        let instance = match self.open() {
            Err(error) if error.is::<NothingLoaded>() => {
                return Err(error).help(|| {
                    let command = self.command();
                    format!("{command} attach IFACE loads it, or name a rules file: --rules FILE")
                });
            }
            opened => opened?,
        };
        let mut attached = attached::interfaces(&instance)?;
        attached.retain(|interface| interface.state == AttachState::Attached);
        let is_on = |name: &str| attached.iter().any(|interface| interface.name == name);
        let attach = |interface: &str| Some(format!("{} attach {interface}", self.command()));
        match interface {
            Some(interface) if !is_there(interface)? => {
                return Err(anyhow!("there is no interface {interface}"))
                    .help(|| "ip link lists them".into());
            }
            Some(interface) if !is_on(interface) => self.events.warn(
                format!(
                    "{interface} has no program of the instance: packets that come by it meet no rule"
                ),
                attach(interface),
            ),
            None if attached.is_empty() => self.events.warn(
                "no interface has the program: packets meet no rule",
                attach("IFACE"),
            ),
            Some(_) | None => {}
        }
        if !instance.maps.is_own() {
            self.events.warn(
                "the instance is of an older version: what it remembers and which destinations are there is not asked",
                Some(format!("{} upgrade takes it over", self.command())),
            );
        }
        Ok(AskedInstance {
            control: self,
            flows: instance.maps.flows()?,
            present: Present::of_sockets(&instance.maps),
            instance,
            attached,
        })
    }
}

impl AskedInstance<'_> {
    /// Its rules, with what it remembers. With `says_why`, a warning says if their text is not known.
    #[must_use]
    pub fn basis(&self, says_why: bool) -> Basis<'_> {
        let maps = &self.instance.maps;
        let (image, names) = loop {
            let image = maps.compiled();
            let names = maps.rule_names(&image);
            // An id can be another rule's after the next change but one.
            if maps.generation().0 == image.header.generation {
                break (image, names);
            }
        };
        let generation = image.header.generation;
        let mut basis = Basis::in_force(image, names);
        if maps.is_own() {
            let state = maps.state(self.flows.as_ref());
            let presence = |ruleset: &Compiled, entry, metadata: &Metadata| {
                self.present.takes(maps, ruleset, entry, metadata)
            };
            basis = basis.with_state(state, Box::new(presence));
        }
        match change::in_force(&self.instance) {
            Ok(in_force) if in_force.generation.0 == generation => {
                let is_in_sync = change::is_in_sync(&self.instance, &in_force);
                let file = in_force.source.filter(|_| is_in_sync == Some(true));
                let file = file.map(|path| path.display().to_string());
                basis.with_text(file.unwrap_or_default(), in_force.ruleset)
            }
            // Another writer was quicker, or the record is lost: what is decided stands all the same.
            Ok(_) => basis,
            Err(error) => {
                if says_why {
                    self.control.events.warn(
                        format!(
                            "what the rules say besides is not known: {}",
                            error.root_cause()
                        ),
                        Some("apply the rules file again".into()),
                    );
                }
                basis
            }
        }
    }

    /// Its maps, for the shadow program; nothing of an older instance, whose maps are others.
    #[must_use]
    pub fn own_maps(&self) -> Option<&Maps> {
        self.instance.maps.is_own().then_some(&self.instance.maps)
    }

    /// Who gets a packet that is for a socket, under the rules in force: a line of text.
    #[must_use]
    pub fn socket(&self, basis: &Basis<'_>, explained: &Explained<'_>) -> Option<String> {
        let image = &basis.image;
        if explained.decision.reason != Reason::RuleSocket {
            return None;
        }
        let Destination::Socket(name) = recover::destination(image, explained.decision.entry)
        else {
            return None;
        };
        let groups = socket_groups::all(&self.instance.maps);
        let transport = explained.parsed.transport.as_slice();
        let found = groups.iter().find(|group| group.name == name);
        let who = found.map_or_else(|| "none".into(), |group| group.who(transport));
        Some(format!("socket      {name}: {who}"))
    }

    /// A warning says if the rules are others by now than those that frames were explained by.
    pub fn warn_of_change(&self, basis: &Basis<'_>) {
        let (begun, now) = (
            basis.image.header.generation,
            self.instance.maps.generation().0,
        );
        if begun != now {
            self.control.events.warn(
                format!(
                    "the rules changed meanwhile: frames were explained by those of generation {begun}, and generation {now} is in force"
                ),
                Some("explain the capture again".into()),
            );
        }
    }

    /// Warnings say where what runs on an interface is older than the shadow program, which is of this binary.
    pub fn warn_of_other_versions(&self) {
        const OWN: &str = env!("CARGO_PKG_VERSION");
        for interface in &self.attached {
            if interface.version != OWN {
                self.control.events.warn(
                    format!(
                        "the program on {} is of version {}, its shadow program of version {OWN}",
                        interface.name, interface.version
                    ),
                    Some(format!(
                        "{} attach {} replaces it",
                        self.control.command(),
                        interface.name
                    )),
                );
            }
        }
    }
}

/// Whether there is an interface of this name.
fn is_there(name: &str) -> Result<bool> {
    let interfaces = interface::list()?;
    Ok(interfaces.iter().any(|interface| interface.name == name))
}
