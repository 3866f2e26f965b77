//! Which socket is given what comes for a port: the decision of a socket lookup.
//!
//! The kernel asks which socket gets a packet when no connection has it: for the first segment of a
//! TCP connection, and for every datagram that is for no connected socket. Rules with a socket as their
//! destination answer with a member of a [`Group`].

#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{
    capacity::{
        DESTINATION_SLOTS, GROUP_NAME_LENGTH, MAX_GROUPS, MAX_GUARDED, MEMBER_SLOTS,
        SOCKET_TRANSPORTS,
    },
    conntrack::Relation,
    decide::Metadata,
    decision::Decision,
    entry::Action,
    hash::mixed,
    ids::Generation,
    limits::Limits,
    parse::{Fragment, Parsed, Ports, Version, Vlans},
    reason::{Reason, Verdict},
    ruleset::RulesetTables,
    sources::SourceTable,
    wire::{Port, Transport},
};

const VERSIONS: usize = 2;
/// A slot's number fits into as many bits.
const SLOT_BITS: u32 = MEMBER_SLOTS.ilog2();

/// Sockets that share the packets of the rules that name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Group {
    /// Which slots were given to a socket, a bit each: of TCP and UDP, that take packets of IPv4 and of
    /// IPv6. A socket that was closed since has left its slot, and the bit stays.
    pub members: [[u64; VERSIONS]; SOCKET_TRANSPORTS],
    /// The address that its sockets listen on, as that of [`crate::decide::Metadata`].
    pub address: [u64; 2],
    /// What kind of group it is and on which port its sockets listen: [`Group::listening`],
    /// [`Group::on_localhost`], [`Group::NAMED`], or 0 if there is no such group.
    pub key: u64,
    /// What rules call it.
    pub name: [u8; GROUP_NAME_LENGTH],
}

/// What a socket lookup reads besides the ruleset.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Steering {
    /// Cookie of the network namespace whose sockets these are.
    pub netns_cookie: u64,
    /// Inode number of that namespace.
    pub netns: u64,
    /// What the choice among members depends on: a secret of the instance.
    pub seed: u64,
    /// How many slots for groups, from the first on, may be taken.
    pub groups_end: u32,
    /// How many interfaces follow.
    pub guarded_count: u32,
    /// Indices of the interfaces all of whose packets were decided about by this instance's programs
    /// before.
    pub guarded: [u32; MAX_GUARDED],
    /// The group of each destination, plus 1, by its slot.
    pub groups_of: [u16; DESTINATION_SLOTS],
    /// The groups.
    pub groups: [Group; MAX_GROUPS],
}

const _: () = {
    assert!(size_of::<Group>() == 120);
    assert!(size_of::<Steering>().is_multiple_of(8) && align_of::<Steering>() == 8);
    assert!(MEMBER_SLOTS <= 64 && MEMBER_SLOTS.is_power_of_two());
};

/// Where the socket in a slot of a group stands in the map of sockets.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "there are 2¹⁶ places")]
pub const fn index(group: u32, transport: Transport, slot: u32) -> u32 {
    ((group * SOCKET_TRANSPORTS as u32) + (transport as u32 & 1)) * MEMBER_SLOTS as u32 + slot
}

impl Group {
    /// The slots that were given to sockets which take such packets.
    #[inline(always)]
    #[must_use]
    pub fn members(&self, transport: Transport, version: Version) -> &u64 {
        let [[tcp_v4, tcp_v6], [udp_v4, udp_v6]] = &self.members;
        match (transport, version) {
            (Transport::Tcp, Version::V4) => tcp_v4,
            (Transport::Tcp, Version::V6) => tcp_v6,
            (Transport::Udp | Transport::Sctp, Version::V4) => udp_v4,
            (Transport::Udp | Transport::Sctp, Version::V6) => udp_v6,
        }
    }

    /// The key of groups whose sockets were given by hand.
    pub const NAMED: u64 = 1;

    /// The key of groups whose sockets are those that listen at an address of this version, on a port in
    /// big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn listening(version: Version, port: [u8; 2]) -> u64 {
        u16::from_be_bytes(port) as u64 | (version as u64) << 16 | 1 << 24
    }

    /// The key of groups whose sockets are those that listen at 127.0.0.1 or `::1`, on a port in big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn on_localhost(port: [u8; 2]) -> u64 {
        u16::from_be_bytes(port) as u64 | Self::LOCALHOST << 16 | 1 << 24
    }

    /// What stands in keys for both versions.
    pub const LOCALHOST: u64 = 0xff;

    /// Whether its sockets are those that listen at an IPv4 address. These get packets of IPv4 only: whether
    /// one at every IPv6 address takes such packets, it says only when it is given one.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_v4(&self) -> bool {
        self.key >> 16 & 0xff == Version::V4 as u64
    }

    /// Whether its sockets were given by hand.
    #[inline(always)]
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.key == Self::NAMED
    }
}

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    address: [u64; 2],
    address_mask: u64,
    key: u64,
    key_mask: u64,
    /// The key of the other group that it is one of; no key if there is none.
    localhost: u64,
}

impl Listening {
    /// A socket that listens at an address, as that of [`Metadata`], on a port in big-endian.
    #[inline(always)]
    #[must_use]
    pub fn new(version: Version, address: [u64; 2], port: [u8; 2]) -> Self {
        const V4: [u64; 2] = [u32::from_ne_bytes([127, 0, 0, 1]) as u64, 0];
        const V6: [u64; 2] = [0, u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 1])];
        let is_any = address == [0; 2];
        let loopback = match version {
            Version::V4 => V4,
            Version::V6 => V6,
        };
        Self {
            localhost: if is_any || address == loopback {
                Group::on_localhost(port)
            } else {
                u64::MAX
            },
            address,
            address_mask: if is_any { 0 } else { u64::MAX },
            key: Group::listening(version, port),
            // Of a socket at every IPv6 address it is not known whether it takes packets of IPv4.
            key_mask: match (is_any, version) {
                (true, Version::V6) => !(0xff << 16),
                (false, Version::V6) | (_, Version::V4) => u64::MAX,
            },
        }
    }

    /// Whether it is one of a group's: it listens at the group's address, or at every one.
    ///
    /// Two comparisons, as the kernel looks at many groups.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, group: &Group) -> bool {
        let ([a, b], [c, d]) = (self.address, group.address);
        let other = (a ^ c | b ^ d) & self.address_mask;
        (other | (self.key ^ group.key) & self.key_mask) == 0 || group.key == self.localhost
    }
}

impl Steering {
    /// The group of a destination, by its slot.
    #[inline(always)]
    #[must_use]
    pub fn group_of(&self, destination: u32) -> Option<(u32, &Group)> {
        let number = usize::from(*self.groups_of.get(destination as usize)?);
        // Masked, so that the verifier knows a bound.
        let index = number.checked_sub(1)? & (MAX_GROUPS - 1);
        #[expect(clippy::cast_possible_truncation, reason = "masked")]
        Some((index as u32, self.groups.get(index)?))
    }

    /// Whether an interface's packets were decided about before, by the first `count` of the list.
    #[inline(always)]
    #[must_use]
    pub fn is_guarded(&self, count: u32, interface: u32) -> bool {
        for (at, &guarded) in (0..).zip(&self.guarded) {
            if at >= count {
                break;
            }
            if guarded == interface {
                return true;
            }
        }
        false
    }
}

/// What the kernel says when it asks for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Source and destination address, as in [`Metadata`].
    pub source: [u64; 2],
    /// Likewise.
    pub destination: [u64; 2],
    /// Source port, big-endian.
    pub source_port: [u8; 2],
    /// Destination port, big-endian.
    pub destination_port: [u8; 2],
    /// Version of the packet.
    pub version: Version,
    /// TCP or UDP.
    pub transport: Transport,
}

impl Lookup {
    /// What the rules say about it, if one of them hands it to a socket.
    #[inline(always)]
    #[must_use]
    pub fn claim<R: RulesetTables>(&self, ruleset: &R) -> Option<Metadata> {
        let entry = ruleset.at_any_address(Ports {
            transport: self.transport,
            source: Port(self.source_port),
            destination: Port(self.destination_port),
        });
        // What its number alone decides about goes to no socket.
        if !entry.is_open() {
            return None;
        }
        let parsed = Parsed {
            malformed: None,
            vlans: Vlans::default(),
            version: Some(self.version),
            network: 0,
            fragment: Fragment::None,
            fragmentation: 0,
            protocol: self.transport.ip_proto(),
            payload: 0,
            transport: Some(self.transport),
            source_port: Port(self.source_port),
            destination_port: Port(self.destination_port),
        };
        let mut metadata = Metadata::default();
        let generation = Generation(ruleset.header().generation);
        metadata.write_down(&parsed, entry, generation, 0, false);
        metadata.source = self.source;
        metadata.destination = self.destination;
        // Of datagrams it is not known which begin a flow.
        metadata.is_known = match self.transport {
            Transport::Tcp => 0,
            Transport::Udp | Transport::Sctp => 1,
        };
        metadata.claim(ruleset);
        let is_for_socket =
            metadata.entry.is_claimed() && matches!(metadata.entry.action(), Action::Socket);
        is_for_socket.then_some(metadata)
    }

    /// What the choice among the members of a group depends on.
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self, seed: u64) -> u64 {
        let ([high, low], [from_high, from_low]) = (self.destination, self.source);
        let source = mixed(from_high ^ seed).wrapping_add(from_low);
        let destination = mixed(high ^ source).wrapping_add(low);
        let from = u16::from_ne_bytes(self.source_port) as u64;
        let ports = from << 16 | u16::from_ne_bytes(self.destination_port) as u64;
        mixed(destination.rotate_left(17) ^ ports)
    }
}

/// Decides by the terms of the rule that claimed a lookup.
///
/// Where the packet was decided about before, that stands.
#[inline(always)]
#[must_use]
pub fn judge<R: RulesetTables, T: SourceTable + Limits>(
    metadata: &Metadata,
    is_guarded: bool,
    ruleset: &R,
    tables: &T,
) -> Decision {
    if is_guarded {
        return Decision {
            verdict: Verdict::Pass,
            reason: Reason::RuleSocket,
            entry: metadata.entry,
        };
    }
    metadata.decide(ruleset, tables, Relation::New)
}

/// Whether the kernel will ask which socket a packet is for that was let in.
///
/// A segment of TCP that opens no connection is one's that has a socket, and so may a datagram be, which
/// nobody sees.
#[inline(always)]
#[must_use]
pub const fn will_ask(metadata: &Metadata) -> bool {
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    match metadata.transport() {
        Some(Transport::Tcp) => metadata.flags & (SYN | RST | ACK) == SYN,
        Some(Transport::Udp) => true,
        Some(Transport::Sctp) | None => false,
    }
}

/// The member whose turn it is for a flow, of those in `members`: its slot, if there is any.
///
/// Rendezvous hashing (Thaler and Ravishankar, 1998): each member has a score with each flow, and the
/// highest has it. Whoever leaves takes only his own flows with him, whoever comes gets his share of
/// all others' and nothing else moves.
#[inline(always)]
#[must_use]
pub fn choose(members: u64, flow: u64) -> Option<u32> {
    let (mut rest, mut best) = (members, 0);
    for slot in 0..MEMBER_SLOTS as u64 {
        if rest == 0 {
            break;
        }
        let score = mixed(flow ^ (slot + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The slot goes along in the lowest bits: one number to compare, and one that the verifier knows
        // nothing of.
        let score = ((score | 1) << SLOT_BITS | slot) & (rest & 1).wrapping_neg();
        if score > best {
            best = score;
        }
        rest >>= 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "masked")]
    let slot = (best & (MEMBER_SLOTS as u64 - 1)) as u32;
    (best != 0).then_some(slot)
}
