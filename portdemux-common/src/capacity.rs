//! How much there can be of everything: what rules may name, and how large the tables are that hold it.

use crate::wire::Transport;

/// How many interfaces an instance can have.
pub const MAX_INTERFACES: usize = 64;
/// How long an interface's name can be, the terminating zero included (`IFNAMSIZ`, Linux
/// `include/uapi/linux/if.h`).
pub const NAME_LENGTH: usize = 16;

/// How many rules a ruleset can have.
pub const MAX_RULES: usize = 1 << 16;
/// Slots for rules: twice as many, so that all rules can be exchanged for others in one step while
/// both still have counters of their own.
pub const RULE_SLOTS: usize = 2 * MAX_RULES;
/// How long a rule's name can be, in bytes.
pub const RULE_NAME_LENGTH: usize = 64;

/// How many distinct addresses of each family the rules can claim.
pub const MAX_ADDRESSES: usize = 1 << 16;
/// Slots for addresses of each family: twice as many as addresses, so that building is quick.
pub const ADDRESS_SLOTS: usize = 2 * MAX_ADDRESSES;
/// Displacements of each family.
pub const DISPLACEMENTS: usize = MAX_ADDRESSES / 2;
/// How many spans of ports the claims of all addresses can have.
pub const MAX_SPANS: usize = 1 << 18;
/// Slots for ports in tables of claims: four protocols' worth, so that an image's parts are aligned to pages.
pub const PORT_SLOTS: usize = 4 << 16;

/// How many different sockets, interfaces and AF_XDP programs the rules can name.
pub const MAX_DESTINATIONS: usize = 1 << 12;
/// Slots for them: twice as many, so that all can be exchanged for others in one step while a packet
/// may still be on its way to one of the old ones. A slot is the key of its destination in every map
/// of targets.
pub const DESTINATION_SLOTS: usize = 2 * MAX_DESTINATIONS;
/// How many bytes the name of a destination can have as it is written down: `interface:eth0`.
pub const DESTINATION_NAME_LENGTH: usize = 64;
/// How many CPUs the different lists of CPUs can have together.
pub const CPU_SLOTS: usize = 1 << 14;
/// How many queues the AF_XDP sockets of a program can be on.
pub const XSK_QUEUES: usize = 1 << 10;

/// How many groups of sockets an instance can have.
pub const MAX_GROUPS: usize = 1 << 10;
/// How many bytes the name of a group has, padded with zeros.
pub const GROUP_NAME_LENGTH: usize = 64;
/// How many sockets of one protocol a group can have.
pub const MEMBER_SLOTS: usize = 32;
/// TCP and UDP: the kernel looks no sockets of other protocols up (Linux `net/core/filter.c`,
/// `sk_lookup`).
pub const SOCKET_TRANSPORTS: usize = 2;
/// Slots for sockets: for each group those of TCP, then those of UDP.
pub const SOCKET_SLOTS: usize = MAX_GROUPS * SOCKET_TRANSPORTS * MEMBER_SLOTS;
/// How many interfaces can be known whose packets were decided about before.
pub const MAX_GUARDED: usize = 128;

/// Ports of all protocols, each of which has counters.
pub const PORT_COUNT: usize = Transport::COUNT << 16;
/// Counters for reasons: more than there are, so that a new one moves nothing.
pub const REASON_SLOTS: usize = 64;
/// Counters for verdicts: more than there are, so that a new one moves nothing.
pub const VERDICT_SLOTS: usize = 4;
/// Counters for events of flows: more than there are, and up to the end of a block.
pub const EVENT_SLOTS: usize = 512;
/// Counters for what became of rejected packets: more than there are, and up to the end of a block.
pub const REPLIED_SLOTS: usize = 512;
