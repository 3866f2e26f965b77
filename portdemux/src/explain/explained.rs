//! What becomes of one frame.

use std::net::IpAddr;

use portdemux_common::{
    conntrack::{Direction, Relation},
    decision::Decision,
    parse::{Address, Class, Fragment, Parsed},
    reason::{Reason, Verdict},
    trace::Trace,
};
use serde::Serialize;

use super::packet_state::{FlowReport, PacketState, RateReport};

/// Why a frame goes out: nothing is held up.
pub(super) const EGRESS: &str = "egress";

/// A frame, what it says and what becomes of it.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// The frame.
    pub bytes: &'a [u8],
    /// What it says.
    pub parsed: Parsed,
    /// What becomes of it.
    pub decision: Decision,
    /// The name of the claiming rule.
    pub rule: Option<&'a str>,
    /// Whether it comes in or goes out.
    pub direction: Direction,
    /// How it stands to what is remembered of others.
    pub packet_state: PacketState,
    /// What the rule in its shadow would do, if it has one.
    pub shadow: Option<Shadow<'a>>,
}

/// What a rule would do that is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shadow<'a> {
    /// Its name.
    pub rule: &'a str,
    /// What would happen to the frame.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// An explained frame as programs read it: one JSON object. The schema stands in `docs/`.
///
/// What a malformed frame said before it broke is there, everything else about it is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrameReport<'a> {
    /// The frame's number in the capture, from 1.
    pub frame: u64,
    /// `ports`, `no_ports`, `non_ip` or `malformed`.
    pub class: &'static str,
    /// Why the frame is malformed.
    pub parse_reason: Option<&'static str>,
    /// The terminal IP protocol, as far as the headers were walked.
    pub protocol: Option<u8>,
    /// Where the packet says it comes from.
    pub source: Option<IpAddr>,
    /// The address it is for.
    pub destination: Option<IpAddr>,
    /// The port it says it comes from.
    pub source_port: Option<u16>,
    /// The port it is for.
    pub destination_port: Option<u16>,
    /// VLAN identifiers, outermost first.
    pub vlan: &'a [u16],
    /// `none`, `first` or `later`.
    pub fragment: &'static str,
    /// What happens to the frame.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The name of the claiming rule.
    pub rule: Option<&'a str>,
    /// `in` or `out`.
    pub direction: &'static str,
    /// How it stands to the flows that are known: `new`, `established`, `reply` or `related`.
    pub relation: Option<&'static str>,
    /// Its flow before it came, if it is known.
    pub flow: Option<FlowReport>,
    /// What was left of the rates that its rule asked.
    pub rates: &'a [RateReport],
    /// What the rule in its shadow would do.
    pub shadow: Option<Shadow<'a>>,
    /// What the kernel's program logged, if it was loaded to log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<String>>,
}

impl Explained<'_> {
    /// What programs read; `log` is what the kernel's program logged.
    #[must_use]
    pub fn line(&self, log: Option<Vec<String>>) -> FrameReport<'_> {
        let parsed = &self.parsed;
        let ports = parsed.ports();
        FrameReport {
            frame: self.number,
            class: class_name(parsed.class()),
            parse_reason: parsed.malformed.map(Reason::name),
            protocol: parsed.version.map(|_| parsed.protocol.0),
            source: self.source(),
            destination: self.destination(),
            source_port: ports.map(|ports| ports.source.number()),
            destination_port: ports.map(|ports| ports.destination.number()),
            vlan: parsed.vlans.as_slice(),
            fragment: fragment_name(parsed.fragment),
            verdict: self.decision.verdict.name(),
            reason: self.reason(),
            rule: self.rule,
            direction: match self.direction {
                Direction::Received => "in",
                Direction::Sent => "out",
            },
            relation: self.packet_state.relation.map(Relation::name),
            flow: self.packet_state.flow,
            rates: &self.packet_state.rates,
            shadow: self.shadow,
            log,
        }
    }

    /// Whether what a TCP segment says may matter to what becomes of it: a flow or a rate was asked, or a socket.
    #[must_use]
    pub fn depends_on_flags(&self) -> bool {
        self.packet_state != PacketState::default()
            || matches!(self.decision.reason, Reason::RuleSocket | Reason::NoSocket)
    }

    /// Takes from the kernel that no program takes raw frames where a rule sends it, which the host cannot see.
    pub(super) fn know_of_xsk(&mut self, kernel: &Trace) {
        let verdict = Verdict::ALL.get(usize::from(kernel.verdict));
        if self.decision.reason == Reason::RuleXsk
            && kernel.reason == Reason::NoXsk as u8
            && let Some(&verdict) = verdict
        {
            (self.decision.verdict, self.decision.reason) = (verdict, Reason::NoXsk);
        }
    }

    /// Why that happens to it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.direction {
            Direction::Received => self.decision.reason.name(),
            Direction::Sent => EGRESS,
        }
    }

    /// Where the packet says it comes from.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.parsed.source(self.bytes).map(ip_address)
    }

    /// The address it is for.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        self.parsed.destination(self.bytes).map(ip_address)
    }

    /// What the kernel's side must say about it, too.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        trace.write(&self.parsed);
        trace.entry = self.decision.entry.closed();
        trace.verdict = self.decision.verdict as u8;
        trace.reason = self.decision.reason as u8;
        trace.read(self.bytes);
        trace
    }
}

/// The word for a class.
pub(super) const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Ports => "ports",
        Class::NoPorts => "no_ports",
        Class::NonIp => "non_ip",
        Class::Malformed => "malformed",
    }
}

/// The word for what a packet is a fragment of.
pub(super) const fn fragment_name(fragment: Fragment) -> &'static str {
    match fragment {
        Fragment::None => "none",
        Fragment::First => "first",
        Fragment::Later => "later",
    }
}

/// An address as the standard library has it.
pub(crate) fn ip_address(address: Address) -> IpAddr {
    match address {
        Address::V4(bytes) => bytes.into(),
        Address::V6(bytes) => bytes.into(),
    }
}
