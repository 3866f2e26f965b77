//! The instance that `explain` asks.

use anyhow::{Result, anyhow};
use portdemux_common::{decide::Metadata, reason::Reason};

use super::Args;
use crate::{
    attached::{self, AttachState, AttachedInterface},
    change,
    cli::{Context, output},
    dataplane::{flows::FlowTables, maps::Maps},
    error::{Help as _, NothingLoaded},
    explain::{Basis, Explained},
    image::Compiled,
    instance::Instance,
    interface,
    presence::Present,
    recover,
    rules::Destination,
    socket_groups,
};

/// The instance whose rules and state are asked.
pub(super) struct AskedInstance {
    instance: Instance,
    flows: Option<FlowTables>,
    present: Present,
    /// The interfaces that its program is on.
    attached: Vec<AttachedInterface>,
}

impl AskedInstance {
    /// Opens it, unless the rules of a file are asked, and says first where packets do not meet them.
    pub(super) fn open(args: &Args, context: &Context) -> Result<Option<Self>> {
        if args.rules.is_some() {
            return Ok(None);
        }
        let instance = match context.open() {
            Err(error) if error.is::<NothingLoaded>() => {
                return Err(error).help(|| {
                    let command = context.command();
                    format!("{command} attach IFACE loads it, or name a rules file: --rules FILE")
                });
            }
            opened => opened?,
        };
        let mut attached = attached::interfaces(&instance)?;
        attached.retain(|interface| interface.state == AttachState::Attached);
        let is_on = |name: &str| attached.iter().any(|interface| interface.name == name);
        let attach = |interface: &str| format!("{} attach {interface}", context.command());
        match &args.interface {
            Some(interface) if !is_there(interface)? => {
                return Err(anyhow!("there is no interface {interface}"))
                    .help(|| "ip link lists them".into());
            }
            Some(interface) if !is_on(interface) => output::warn(
                format!(
                    "{interface} has no program of the instance: packets that come by it meet no rule"
                ),
                Some(&attach(interface)),
            ),
            None if attached.is_empty() => output::warn(
                "no interface has the program: packets meet no rule",
                Some(&attach("IFACE")),
            ),
            Some(_) | None => {}
        }
        if !instance.maps.is_own() {
            output::warn(
                "the instance is of an older version: what it remembers and which destinations are there is not asked",
                Some(&format!("{} upgrade takes it over", context.command())),
            );
        }
        Ok(Some(Self {
            flows: instance.maps.flows()?,
            present: Present::of_sockets(&instance.maps),
            instance,
            attached,
        }))
    }

    /// Its rules, with what it remembers.
    pub(super) fn basis(&self, args: &Args, context: &Context) -> Basis<'_> {
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
        if args.kernel {
            self.warn_of_other_versions(context);
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
                if args.pcap.is_none() && !args.json {
                    output::warn(
                        format!(
                            "what the rules say besides is not known: {}",
                            error.root_cause()
                        ),
                        Some("apply the rules file again"),
                    );
                }
                basis
            }
        }
    }

    /// Its maps, for the shadow program; nothing of an older instance, whose maps are others.
    pub(super) fn own_maps(&self) -> Option<&Maps> {
        self.instance.maps.is_own().then_some(&self.instance.maps)
    }

    /// Who gets a packet that is for a socket, under the rules in force.
    pub(super) fn socket(&self, basis: &Basis<'_>, explained: &Explained<'_>) -> Option<String> {
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

    /// Says if the rules are others by now than those that frames were explained by.
    pub(super) fn warn_of_change(&self, basis: &Basis<'_>) {
        let (begun, now) = (
            basis.image.header.generation,
            self.instance.maps.generation().0,
        );
        if begun != now {
            output::warn(
                format!(
                    "the rules changed meanwhile: frames were explained by those of generation {begun}, and generation {now} is in force"
                ),
                Some("explain the capture again"),
            );
        }
    }

    /// The shadow program is of this binary's program; what runs on an interface may be older.
    fn warn_of_other_versions(&self, context: &Context) {
        const OWN: &str = env!("CARGO_PKG_VERSION");
        for interface in &self.attached {
            if interface.version != OWN {
                output::warn(
                    format!(
                        "the program on {} is of version {}, its shadow program of version {OWN}",
                        interface.name, interface.version
                    ),
                    Some(&format!(
                        "{} attach {} replaces it",
                        context.command(),
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
