//! Filters of one policy: what is not for one of the servers is dropped, replies apart.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode},
};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    netns::Netns,
};
use serde_json::Value;

use super::load::{BULK, NAMES, WEB};
use crate::programs::{Bench, Draw};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    In,
    Out,
}

/// What stands before the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    /// Nothing.
    None,
    /// Programs that return at once, in the driver and on the way out.
    Empty,
    /// portdemux in the driver. What no rule claims passes: without flows replies are not known.
    Native,
    /// The same with flows.
    NativeFlows,
    /// portdemux in the network stack.
    Generic,
    /// The same with flows.
    GenericFlows,
    /// nftables with connection tracking.
    Nftables,
}

impl Filter {
    pub(super) const ALL: [Self; 7] = [
        Self::None,
        Self::Empty,
        Self::Native,
        Self::NativeFlows,
        Self::Generic,
        Self::GenericFlows,
        Self::Nftables,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Empty => "empty",
            Self::Native => "native",
            Self::NativeFlows => "native, flows",
            Self::Generic => "generic",
            Self::GenericFlows => "generic, flows",
            Self::Nftables => "nftables",
        }
    }

    /// Puts it before the servers.
    pub(super) fn put_up(self, lab: &Lab) -> Result<Standing<'_>> {
        let namespace = &lab.server;
        let filter = match self {
            Self::None => Kept::Nothing,
            Self::Empty => Kept::Empty(Box::new(empty(namespace)?)),
            Self::Native => portdemux(namespace, "native", "pass")?,
            Self::NativeFlows => portdemux(namespace, "native", "drop")?,
            Self::Generic => portdemux(namespace, "generic", "pass")?,
            Self::GenericFlows => portdemux(namespace, "generic", "drop")?,
            Self::Nftables => {
                nft(namespace, &nftables())?;
                Kept::Nftables
            }
        };
        Ok(Standing { namespace, filter })
    }
}

/// A filter that stands; gone when it is dropped.
pub(super) struct Standing<'a> {
    namespace: &'a Netns,
    filter: Kept<'a>,
}

enum Kept<'a> {
    Nothing,
    /// The programs, with the links that hold them.
    Empty(#[expect(dead_code, reason = "held until it is dropped")] Box<(Bench, Ebpf)>),
    Portdemux(#[expect(dead_code, reason = "held until it is dropped")] Portdemux<'a>),
    Nftables,
}

impl Standing<'_> {
    /// The ids of the programs that stand on the interface.
    pub(super) fn programs(&self) -> Result<BTreeMap<Way, u32>> {
        let mut programs = BTreeMap::new();
        let links = self.namespace.ip(&["-j", "link", "show", INTERFACE])?;
        let links: Value = serde_json::from_str(&links.stdout)?;
        if let Some(id) = links[0]["xdp"]["prog"]["id"].as_u64() {
            programs.insert(Way::In, u32::try_from(id)?);
        }
        let sent = self.namespace.enter(|| {
            let (_, sent) = SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress)?;
            Ok(sent)
        })?;
        if let Some(sent) = sent.first() {
            programs.insert(Way::Out, sent.id());
        }
        Ok(programs)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if matches!(self.filter, Kept::Nftables) {
            // It goes with the namespace at the latest.
            let _: Result<()> = nft(self.namespace, "flush ruleset");
        }
    }
}

fn portdemux<'a>(namespace: &'a Netns, mode: &str, inbound: &str) -> Result<Kept<'a>> {
    let portdemux = Portdemux::new(namespace)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
    portdemux.apply(&format!(
        "[default]\ninbound = \"{inbound}\"\n[[rule]]\nname = \"servers\"\nport = [\"{WEB}/tcp\", \"{BULK}/tcp\", \
         \"{NAMES}/udp\"]\n"
    ))?;
    Ok(Kept::Portdemux(portdemux))
}

/// Attaches programs that do nothing.
fn empty(namespace: &Netns) -> Result<(Bench, Ebpf)> {
    let bench = Bench::new()?;
    let mut object = bench.baselines(0, Draw::default())?;
    namespace.enter(|| {
        let program: &mut Xdp = object.program_mut("empty").context("empty")?.try_into()?;
        program.load()?;
        program.attach(INTERFACE, XdpMode::Driver)?;
        let program = object.program_mut("empty_sent").context("empty_sent")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        program.attach(INTERFACE, TcAttachType::Egress)?;
        Ok(())
    })?;
    Ok((bench, object))
}

fn nftables() -> String {
    format!(
        "table inet filter {{
             chain input {{
                 type filter hook input priority 0; policy drop;
                 ct state established,related accept
                 tcp dport {{ {WEB}, {BULK} }} accept
                 udp dport {NAMES} accept
             }}
         }}"
    )
}

fn nft(namespace: &Netns, text: &str) -> Result<()> {
    namespace.run("nft", &[text])?.success()?;
    Ok(())
}
