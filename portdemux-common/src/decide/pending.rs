//! Packets that more than their port decides about.

use core::hint::cold_path;

use bytemuck::{Pod, Zeroable};

use super::{Decision, Outcome, icmp, tracks_fragments};
use crate::{
    flows::{FlowKey, Heard, Relation, Signal, Tracked},
    fragments::Piece,
    limits::{Kind, Limits, Payer},
    packet::Packet,
    parse::{self, Fragment, Parsed, Ports, Version, fragment, ipv4, ipv6},
    policy::{Fragments, Policy},
    reason::{Reason, Verdict},
    ruleset::{Action, Claim, Entry, RulesetImage},
    sources::{Admission, Table},
    state::Generation,
    wire::{IpProto, Port, Transport},
};

/// What is known of a packet that its port alone does not decide about.
///
/// The kernel writes it down before it goes on: the verifier knows nothing of what it reads back, so
/// that all ways through the parser meet there and the rest is verified once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Pending {
    /// The source address as it stands in the packet; IPv4 fills the first four bytes, and zeros
    /// follow.
    pub source: [u64; 2],
    /// The destination address, likewise.
    pub destination: [u64; 2],
    /// The generation that its entry is from.
    pub generation: Generation,
    /// Length of its frame in bytes.
    pub length: u64,
    /// What the table of ports says about its port, and after [`Pending::claim`] what all rules say.
    pub entry: Entry,
    /// The shadow that its port has, after [`Pending::claim`].
    pub shadow: Entry,
    /// Index of its destination port in tables of ports; beyond all of them if it has none.
    pub port: u32,
    /// Where its IP header begins, in bytes from the start of the frame.
    pub network: u32,
    /// Where its terminal protocol's header begins, in bytes from the start of the frame.
    pub payload: u32,
    /// Its source port, big-endian.
    pub source_port: [u8; 2],
    /// Its destination port, big-endian.
    pub destination_port: [u8; 2],
    /// What kind of packet it is, in one word: bits 0 to 7 [`Version`], 8 to 15 [`Transport`], 16 to 23
    /// [`Fragment`], 24 to 31 the terminal protocol.
    kind: u32,
    /// TCP: its flags. SCTP: the type of the first chunk, 255 if there is none. ICMP: its type.
    pub flags: u8,
    /// 1 if its headers may lie in several buffers.
    pub scattered: u8,
    /// Length of its transport header in words of 4 bytes.
    pub header: u8,
    /// 1 if it is of a flow that is known, half-open or not.
    pub is_known: u8,
    /// TCP: sequence and acknowledgment number, big-endian. ICMP echo: in the first two bytes the
    /// identifier.
    pub numbers: [[u8; 4]; 2],
    /// Of a fragment: the identification of its packet, big-endian; IPv4 fills the first two bytes.
    pub identification: [u8; 4],
    /// Of a fragment of an IPv6 packet: where its fragment header begins, in bytes from the start of the
    /// frame.
    pub fragmentation: u32,
    /// Of a fragment: how far into its packet the first one reaches, or where a later one begins, in units
    /// of 8 bytes.
    pub reach: u16,
    /// Fills the word.
    reserved: [u16; 3],
}

const _: () = assert!(size_of::<Pending>() == 104);

impl Pending {
    /// What `parsed` says; `length` is that of the whole frame.
    #[must_use]
    pub fn new(parsed: &Parsed, entry: Entry, generation: Generation, length: u64) -> Self {
        let mut pending = Self::default();
        pending.write_down(parsed, entry, generation, length, false);
        pending
    }

    /// Writes down what `parsed` says, so that the packet can be read again by it; `length` is that of
    /// the whole frame, and `scattered` says whether its headers may lie in several buffers.
    ///
    /// What [`Pending::read`] and its like read is left as it was.
    #[inline(always)]
    pub fn write_down(
        &mut self,
        parsed: &Parsed,
        entry: Entry,
        generation: Generation,
        length: u64,
        scattered: bool,
    ) {
        self.generation = generation;
        self.length = length;
        self.entry = entry;
        self.shadow = Entry::UNCLAIMED;
        self.network = narrow(parsed.network);
        self.payload = narrow(parsed.payload);
        self.fragmentation = narrow(parsed.fragmentation);
        self.source_port = parsed.source_port.0;
        self.destination_port = parsed.destination_port.0;
        let version = match parsed.version {
            Some(version) => version as u32,
            None => 0,
        };
        let transport = match parsed.transport {
            Some(transport) => transport as u32,
            None => narrow(Transport::COUNT),
        };
        self.port = match parsed.ports() {
            Some(ports) => narrow(ports.destination.index(ports.transport)),
            None => u32::MAX,
        };
        let fragment = parsed.fragment as u32;
        self.kind = version | transport << 8 | fragment << 16 | u32::from(parsed.protocol.0) << 24;
        self.scattered = u8::from(scattered);
        self.is_known = 0;
    }

    /// Reads what else matters of the packet that it was written down for.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(&mut self, packet: &P) {
        self.read_addresses(packet);
        self.read_signal(packet);
    }

    /// Reads the addresses.
    #[inline(always)]
    pub fn read_addresses<P: Packet + ?Sized>(&mut self, packet: &P) {
        let network = bounded(self.network);
        // Each version by itself: an address that may be of either would be put together on the stack.
        match self.version() {
            Version::V4 => {
                let addresses: [u8; 8] = packet.read(network + ipv4::SOURCE).unwrap_or_default();
                let [source, destination]: [[u8; 4]; 2] = bytemuck::cast(addresses);
                self.source = v4_words(source);
                self.destination = v4_words(destination);
            }
            Version::V6 => {
                let words = packet.read_words(network + ipv6::SOURCE);
                let [a, b, c, d] = words.unwrap_or_default();
                self.source = [a, b];
                self.destination = [c, d];
            }
        }
    }

    /// Reads what the packet signals to its peer: TCP's flags and numbers, SCTP's first chunk, an ICMP
    /// message's type.
    #[inline(always)]
    pub fn read_signal<P: Packet + ?Sized>(&mut self, packet: &P) {
        let payload = bounded(self.payload);
        self.flags = 0;
        self.numbers = [[0; 4]; 2];
        match self.transport() {
            Some(Transport::Tcp) => {
                let header: [u8; 20] = packet.read(payload).unwrap_or_default();
                let [_, sequence, acknowledged, [offset, flags, ..], _]: [[u8; 4]; 5] =
                    bytemuck::cast(header);
                self.header = offset >> 4;
                self.flags = flags;
                self.numbers = [sequence, acknowledged];
            }
            Some(Transport::Sctp) => {
                self.header = 3;
                // The common header and the head of a chunk (RFC 9260 §3).
                if let Some([.., chunk, _, _, _]) = packet.read::<16>(payload) {
                    self.flags = chunk;
                }
            }
            Some(Transport::Udp) => self.header = 2,
            None => {
                self.header = 0;
                if let Some([kind, _, _, _, a, b]) = packet.read::<6>(payload) {
                    self.flags = kind;
                    self.numbers = [[a, b, 0, 0], [0; 4]];
                }
            }
        }
    }

    /// Finds the rule whose it is, and the shadow.
    #[inline(always)]
    pub fn claim(&mut self, ruleset: &RulesetImage) {
        if ruleset.header.further_claims == 0 {
            return;
        }
        let exact = self.at_address(ruleset);
        if ruleset.header.shadow_claims != 0 {
            self.shadow = exact.shadow.or_else(|| self.shadow_at_any_address(ruleset));
        }
        let entry = exact.entry.or_else(|| self.entry);
        self.entry = entry.or_else(|| self.at_source_port(ruleset));
    }

    /// Says what the shadow would do with it that it has. What a shadow takes of its rates, nobody else
    /// misses.
    #[inline(always)]
    #[must_use]
    pub fn shadow<T: Table + Limits>(
        &self,
        ruleset: &RulesetImage,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        if self.shadow.is_conditional() {
            self.on_terms(self.shadow, ruleset, tables, relation)
        } else {
            Decision::claimed(self.shadow)
        }
    }

    /// Reads which packet it is a fragment of and which part of that, if it is one.
    #[inline(always)]
    pub fn read_extent<P: Packet + ?Sized>(&mut self, packet: &P) {
        if !self.is_fragment() {
            return;
        }
        cold_path();
        let (network, header) = (bounded(self.network), bounded(self.fragmentation));
        let extent = fragment::extent(packet, self.version(), network, header);
        self.identification = extent.identification;
        self.reach = if self.is_later() {
            extent.begin
        } else {
            extent.end
        };
    }

    #[inline(always)]
    const fn is_later(&self) -> bool {
        self.fragment() == Fragment::Later as u8
    }

    /// Whether what came of the first fragment of its packet is asked for.
    #[inline(always)]
    #[must_use]
    pub const fn follows(&self, ruleset: &RulesetImage) -> bool {
        self.is_later() && tracks_fragments(ruleset)
    }

    /// Whether what comes of it is remembered for the other fragments of its packet.
    #[inline(always)]
    #[must_use]
    pub const fn leads(&self, ruleset: &RulesetImage) -> bool {
        self.fragment() == Fragment::First as u8 && tracks_fragments(ruleset)
    }

    /// It as a fragment of its packet, of which this came.
    ///
    /// Packets are told apart as receivers do it: IPv4 by the addresses, the protocol and the identification
    /// (RFC 791 §3.2), IPv6 without the protocol, which each fragment may give as it likes (RFC 8200 §4.5),
    /// and none by VLAN or interface.
    #[inline(always)]
    #[must_use]
    pub const fn piece(&self, outcome: Outcome) -> Piece {
        let [a, b, c, d] = self.identification;
        let protocol = match self.version() {
            Version::V4 => self.protocol(),
            Version::V6 => 0,
        };
        let (to, from) = ((self.destination, [a, b]), (self.source, [c, d]));
        let packet = FlowKey::new(to, from, protocol, self.version_number());
        Piece::new(packet, outcome, self.generation, self.reach, self.port)
    }

    /// Decides about it, by how it stands to the flows that are known.
    #[inline(always)]
    #[must_use]
    pub fn decide<T: Table + Limits>(
        &self,
        ruleset: &RulesetImage,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        if !self.has_ports() {
            return self.decide_portless(ruleset, relation);
        }
        let entry = self.entry;
        if entry.is_conditional() {
            return self.on_terms(entry, ruleset, tables, relation);
        }
        if entry.is_claimed() {
            return Decision::claimed(entry);
        }
        let defaults = &ruleset.header.defaults;
        if defaults.flows != 0 && matches!(relation, Relation::Reply) {
            return Decision::pass(Reason::Reply);
        }
        Decision {
            verdict: match Action::from_code(defaults.inbound) {
                Action::Local => Verdict::Pass,
                Action::Reject => Verdict::Reject,
                Action::Drop | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk => {
                    Verdict::Drop
                }
            },
            reason: Reason::Unclaimed,
            entry: entry.closed(),
        }
    }

    /// Decides about a packet without ports.
    #[inline(always)]
    fn decide_portless(&self, ruleset: &RulesetImage, relation: Relation) -> Decision {
        if self.is_later() {
            return self.decide_later(ruleset);
        }
        match relation {
            Relation::Related => return Decision::pass(Reason::Related),
            Relation::Reply => return Decision::pass(Reason::Reply),
            Relation::New | Relation::Established => {}
        }
        let Some(kind) = icmp::Kind::of(self.protocol(), self.flags) else {
            return Decision::pass(Reason::NoPorts);
        };
        if kind.is_let_in(ruleset.header.defaults.icmp) {
            Decision::pass(Reason::NoPorts)
        } else {
            Decision::dropped(Reason::IcmpPolicy, Entry::UNCLAIMED)
        }
    }

    /// Decides about a later fragment of whose first one nothing is known.
    #[inline(always)]
    #[must_use]
    pub fn decide_later(&self, ruleset: &RulesetImage) -> Decision {
        let defaults = &ruleset.header.defaults;
        if defaults.fragments == Fragments::Pass as u32 {
            return Decision::pass(Reason::LaterFragment);
        }
        if !tracks_fragments(ruleset) {
            return Decision::dropped(Reason::LaterFragment, Entry::UNCLAIMED);
        }
        // The first one has the whole transport header, or it is malformed (RFC 1858 §3, RFC 3128).
        let header = match IpProto(self.protocol()) {
            IpProto::TCP => 20,
            IpProto::SCTP => 12,
            _ => 8,
        };
        if self.reach * 8 < header {
            return Decision::dropped(Reason::FragmentOverlap, Entry::UNCLAIMED);
        }
        if matches!(Action::from_code(defaults.inbound), Action::Local) {
            Decision::pass(Reason::FragmentUnknown)
        } else {
            Decision::dropped(Reason::FragmentUnknown, Entry::UNCLAIMED)
        }
    }

    /// The flow that it belongs to; none ([`FlowKey::is_none`]) if it is of a kind without flows.
    #[inline(always)]
    fn flow(&self) -> FlowKey {
        let (here, there) = if self.transport().is_some() {
            (self.destination_port, self.source_port)
        } else {
            if self.is_later() || !icmp::is_echo(self.protocol(), self.flags) {
                return FlowKey::NONE;
            }
            let [[a, b, ..], _] = self.numbers;
            ([a, b], [a, b])
        };
        let (local, remote) = (self.destination, self.source);
        let version = self.version_number();
        FlowKey::new((local, here), (remote, there), self.protocol(), version)
    }

    /// Whether it is an ICMP error.
    #[inline(always)]
    #[must_use]
    pub fn is_error(&self) -> bool {
        let is_whole = self.fragment() == Fragment::None as u8;
        let kind = icmp::Kind::of(self.protocol(), self.flags);
        is_whole && self.transport().is_none() && matches!(kind, Some(icmp::Kind::Error))
    }

    /// The flow of the packet that it quotes if it is an error, which is one that this host has sent; none
    /// if too little of it is there. Written down for `about`.
    #[inline(always)]
    pub fn read_quoted<P: Packet + ?Sized>(&self, packet: &P, about: &mut Self) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "frames are shorter than 4 GiB"
        )]
        let length = self.length as usize;
        let packet = Measured { packet, length };
        let parsed = parse::quoted(&packet, self.version(), bounded(self.payload));
        about.write_down(&parsed, Entry::UNCLAIMED, self.generation, 0, false);
        if parsed.malformed.is_some() {
            about.kind &= !0xff;
        }
    }

    /// The error as a packet of the flow of the packet that it quotes, which was written down here.
    #[inline(always)]
    #[must_use]
    pub fn quoted(&self) -> Tracked {
        let mut error = self.sent(1);
        error.is_error = 1;
        if self.version_number() == 0 {
            error.key = FlowKey::NONE;
        }
        error
    }

    /// It as a packet that came in, on its way through its flow; nothing if it has none.
    #[inline(always)]
    #[must_use]
    pub fn received(&self) -> Tracked {
        Tracked::new(self.flow(), self.heard(), self.port, 1, self.length)
    }

    /// It as a packet of this host that is cut into `segments` on the wire, with headers of their own.
    #[inline(always)]
    #[must_use]
    pub fn sent(&self, segments: u32) -> Tracked {
        let packets = u64::from(segments).max(1);
        let headers = u64::from(self.payload) + 4 * u64::from(self.header);
        let bytes = self.length + (packets - 1) * headers;
        let port = self.source_place();
        Tracked::new(self.flow().mirrored(), self.heard(), port, packets, bytes)
    }

    #[inline(always)]
    fn heard(&self) -> Heard {
        let [sequence, acknowledged] = self.numbers;
        Heard {
            signal: Signal::of(self.protocol(), self.flags),
            sequence: u32::from_be_bytes(sequence),
            acknowledged: u32::from_be_bytes(acknowledged),
        }
    }

    /// Whether it may begin a flow: an answer to an echo cannot.
    #[inline(always)]
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.transport().is_some() || icmp::is_echo_request(self.protocol(), self.flags)
    }

    /// Whether it has ports.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        self.port != u32::MAX
    }

    /// Whether it is a fragment.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment() != Fragment::None as u8
    }

    /// Index of its source port in tables of ports; beyond all of them if it has none.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "indices have 18 bits")]
    pub const fn source_place(&self) -> u32 {
        match self.transport() {
            Some(transport) => Port(self.source_port).index(transport) as u32,
            None => u32::MAX,
        }
    }

    /// What the rules that name its destination address say about its port.
    #[inline(always)]
    fn at_address(&self, ruleset: &RulesetImage) -> Claim {
        let Some(transport) = self.transport() else {
            return Claim::NONE;
        };
        let ports = Ports {
            transport,
            source: Port(self.source_port),
            destination: Port(self.destination_port),
        };
        let version = self.version();
        if !ruleset.claims_addresses(version) {
            return Claim::NONE;
        }
        match version {
            Version::V4 => ruleset.at_v4(v4_bytes(self.destination), ports),
            Version::V6 => ruleset.at_v6(bytemuck::cast(self.destination), ports),
        }
    }

    /// What the shadows that name no address say about its port.
    #[inline(always)]
    fn shadow_at_any_address(&self, ruleset: &RulesetImage) -> Entry {
        match ruleset.shadow_ports.get(self.port as usize) {
            Some(&entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }

    /// What the rules that claim by the peer's port say about it.
    #[inline(always)]
    fn at_source_port(&self, ruleset: &RulesetImage) -> Entry {
        let Some(transport) = self.transport() else {
            return Entry::UNCLAIMED;
        };
        if ruleset.header.source_claims == 0 {
            return Entry::UNCLAIMED;
        }
        let port = Port(self.source_port).index(transport);
        match ruleset.source_ports.get(port) {
            Some(&entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }

    /// Decides by the terms of the rule whose it is.
    #[inline(always)]
    fn on_terms<T: Table + Limits>(
        &self,
        entry: Entry,
        ruleset: &RulesetImage,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        let Some(policy) = ruleset.policies.get(entry.rule() as usize) else {
            return Decision::dropped(Reason::SourceNotAllowed, entry);
        };
        if policy.has_lists() {
            let sources = &ruleset.header.sources;
            match sources.admit(tables, self.version(), self.source(), policy) {
                Admission::Admitted => {}
                Admission::Denied => return Decision::dropped(Reason::SourceDenied, entry),
                Admission::NotAllowed => return Decision::dropped(Reason::SourceNotAllowed, entry),
            }
        }
        if policy.is_replies_only() && !matches!(relation, Relation::Reply) {
            return Decision::dropped(Reason::NotEstablished, entry);
        }
        if policy.has_rates() && !self.is_within_rates(entry, policy, ruleset, tables) {
            return Decision::dropped(Reason::RateLimited, entry);
        }
        Decision::claimed(entry)
    }

    /// Whether the rates of its rule let it in; takes its share of them if so.
    #[inline(always)]
    fn is_within_rates<T: Limits>(
        &self,
        entry: Entry,
        policy: &Policy,
        ruleset: &RulesetImage,
        limits: &T,
    ) -> bool {
        let payer = |kind| Payer {
            rule: entry.rule(),
            kind,
            source: self.source(),
            version: self.version(),
            seed: ruleset.header.limits_seed,
        };
        let each = policy.is_per_source();
        let may_begin =
            self.is_known != 0 || payer(Kind::Flows).may(limits, &policy.new_rate, each);
        may_begin && payer(Kind::Packets).may(limits, &policy.rate, each)
    }

    /// The upper and lower 64 bits of its source address; of IPv4 the address and 0.
    #[inline(always)]
    fn source(&self) -> [u64; 2] {
        match self.version() {
            Version::V4 => [u64::from(u32::from_be_bytes(v4_bytes(self.source))), 0],
            Version::V6 => self.source.map(u64::from_be),
        }
    }

    /// [`Version`]; 0 if it has none.
    #[inline(always)]
    const fn version_number(&self) -> u8 {
        let [version, ..] = self.kind.to_le_bytes();
        version
    }

    /// [`Fragment`].
    #[inline(always)]
    pub(crate) const fn fragment(&self) -> u8 {
        let [_, _, fragment, _] = self.kind.to_le_bytes();
        fragment
    }

    /// The terminal protocol.
    #[inline(always)]
    const fn protocol(&self) -> u8 {
        let [.., protocol] = self.kind.to_le_bytes();
        protocol
    }

    #[inline(always)]
    pub(crate) const fn version(&self) -> Version {
        if self.version_number() == Version::V6 as u8 {
            Version::V6
        } else {
            Version::V4
        }
    }

    #[inline(always)]
    pub(crate) const fn transport(&self) -> Option<Transport> {
        const TCP: u8 = Transport::Tcp as u8;
        const UDP: u8 = Transport::Udp as u8;
        const SCTP: u8 = Transport::Sctp as u8;
        let [_, transport, ..] = self.kind.to_le_bytes();
        match transport {
            TCP => Some(Transport::Tcp),
            UDP => Some(Transport::Udp),
            SCTP => Some(Transport::Sctp),
            _ => None,
        }
    }
}

/// A frame whose length was written down. Of one that the compiler can derive from where the frame begins
/// and ends it proves bounds that the verifier then misses.
struct Measured<'a, P: ?Sized> {
    packet: &'a P,
    length: usize,
}

impl<P: Packet + ?Sized> Packet for Measured<'_, P> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.packet.read(offset)
    }
}

/// An offset or an index, of which all are small.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "offsets and indices have less than 20 bits"
)]
const fn narrow(number: usize) -> u32 {
    number as u32
}

/// An offset that is known to be below 20,000, so that the verifier knows it, too.
#[inline(always)]
pub(crate) const fn bounded(offset: u32) -> usize {
    (offset & 0x7fff) as usize
}

#[inline(always)]
fn v4_words(address: [u8; 4]) -> [u64; 2] {
    [u64::from(u32::from_ne_bytes(address)), 0]
}

#[inline(always)]
const fn v4_bytes(address: [u64; 2]) -> [u8; 4] {
    let [word, _] = address;
    #[expect(clippy::cast_possible_truncation, reason = "the rest is zeros")]
    (word as u32).to_ne_bytes()
}
