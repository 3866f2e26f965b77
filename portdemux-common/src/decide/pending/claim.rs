//! Whose a packet is: the claims that more than the port tells apart.

use super::{Pending, v4_bytes};
use crate::{
    parse::{Ports, Version},
    ruleset::{Claim, Entry, RulesetImage, at},
    wire::Port,
};

impl Pending {
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
        match at(&ruleset.shadow_ports, self.port as usize) {
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
        match at(&ruleset.source_ports, port) {
            Some(&entry) => entry,
            None => Entry::UNCLAIMED,
        }
    }
}
