//! Whose a packet is: the claims that more than the port tells apart.

use super::{Metadata, v4_bytes};
use crate::{
    parse::{Address, Ports, Version},
    ruleset::{Claim, Entry, RulesetTables},
    wire::Port,
};

impl Metadata {
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
