//! The steps of a packet, each once and in order.
//!
//! A packet that came in ([`receive()`]) is parsed, looked up by its port, and decided if no more is to be asked. Else
//! it is deferred: its metadata is written down, and the next steps go on with that: fragment, claim of its address,
//! flow, shadow, who may and how often, destination, count. One that goes out ([`send()`]) is parsed and noted in its
//! flow. A socket lookup ([`lookup()`]) has no packet: it is claimed, decided, given a socket and counted.
//!
//! All three are generic over an [`Environment`]: where the bytes, the tables, the clock and the counters are. The
//! kernel's programs implement it for BPF maps and the context of a hook, the host for slices and collections, so that
//! `explain`, the tests and the benchmark run what the attached programs run.
//!
//! Between the steps stands [`Environment::barrier`]. What one step has found out lies in [`Scratch`] and is read from
//! there by the next: the kernel's verifier knows nothing of what it reads back, so that all ways through one step meet
//! before the next, and each is verified once.

mod deliver;
mod environment;
mod fragment;
mod lookup;
mod parse;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};
pub use environment::{Egress, Environment, Hook, Ingress, SocketLookup};
pub use lookup::lookup;
pub use parse::{Finish, parse};
pub use receive::receive;
pub use send::send;

use crate::{conntrack::TrackedPacket, decide::Metadata, fragments::Piece};

/// What is known of the packet that a hook is busy with, for as long as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// What it says, and whose it is.
    pub metadata: Metadata,
    /// It as a packet of its flow.
    pub tracked: TrackedPacket,
    /// What the packet says that it quotes, if it is an ICMP error.
    pub quoted: Metadata,
    /// It as a fragment of its packet.
    pub piece: Piece,
}
