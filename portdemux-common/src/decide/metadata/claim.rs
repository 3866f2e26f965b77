//! Whose a packet is: the claims that more than the port tells apart.

use super::{Metadata, bounded, v4_bytes};
use crate::{
    decision::Decision,
    entry::Entry,
    packet::Packet,
    parse::{Address, Ports, Version, ipv4, ipv6},
    ruleset::{Claim, RulesetTables, find_v4, find_v6},
    wire::Port,
};

impl Metadata {
    /// Decides about the packet by its port and its destination address, if nothing else is to be asked.
    ///
    /// It reads the address where it stands, before anything else is read of the packet.
    #[inline(always)]
    pub fn decide_by_address<P: Packet + ?Sized, R: RulesetTables>(
        &self,
        packet: &P,
        ruleset: &R,
    ) -> Option<Decision> {
        if !ruleset.header().asks_addresses_alone() || !self.has_ports() {
            return None;
        }
        let (network, key) = (bounded(self.network), self.span_key());
        let claim = match self.version() {
            Version::V4 => {
                let address = packet.read(network + ipv4::DESTINATION)?;
                find_v4(ruleset, address, key)
            }
            Version::V6 => {
                let [_, _, upper, lower] = packet.read_words(network + ipv6::SOURCE)?;
                find_v6(ruleset, bytemuck::cast([upper, lower]), key)
            }
        };
        let entry = claim.entry.or_else(|| self.entry);
        entry.is_final().then(|| Decision::closed(entry))
    }

    /// The [`span_key`](crate::ruleset::span_key) of its destination port. Other than in its index, the port's number
    /// is in host byte order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the port's number")]
    const fn span_key(&self) -> u32 {
        self.port & !0xffff | u16::from_be(self.port as u16) as u32
    }

    /// Finds the rule whose it is, and the shadow.
    #[inline(always)]
    pub fn claim<R: RulesetTables>(&mut self, ruleset: &R) {
        if ruleset.header().further_claims == 0 {
            return;
        }
        let exact = self.at_address(ruleset);
        if ruleset.header().shadow_claims != 0 {
            self.shadow = exact.shadow.or_else(|| self.shadow_at_any_address(ruleset));
        }
        let entry = exact.entry.or_else(|| self.entry);
        self.entry = entry.or_else(|| self.at_source_port(ruleset));
    }

    /// What the rules that name its destination address say about its port.
    #[inline(always)]
    fn at_address<R: RulesetTables>(&self, ruleset: &R) -> Claim {
        let Some(transport) = self.transport() else {
            return Claim::NONE;
        };
        let ports = Ports {
            transport,
            source: Port(self.source_port),
            destination: Port(self.destination_port),
        };
        let address = match self.version() {
            Version::V4 => Address::V4(v4_bytes(self.destination)),
            Version::V6 => Address::V6(bytemuck::cast(self.destination)),
        };
        ruleset.at_address(address, ports)
    }

    /// What the shadows that name no address say about its port.
    #[inline(always)]
    fn shadow_at_any_address<R: RulesetTables>(&self, ruleset: &R) -> Entry {
        match ruleset.shadow_port(self.port as usize) {
            Some(entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }

    /// What the rules that claim by the peer's port say about it.
    #[inline(always)]
    fn at_source_port<R: RulesetTables>(&self, ruleset: &R) -> Entry {
        let Some(transport) = self.transport() else {
            return Entry::UNCLAIMED;
        };
        if ruleset.header().source_claims == 0 {
            return Entry::UNCLAIMED;
        }
        let port = Port(self.source_port).index(transport);
        match ruleset.source_port(port) {
            Some(entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }
}
