//! Flows are forgotten.

use anyhow::{Result, anyhow};

use super::Control;
use crate::{
    error::Help as _,
    flows::Selection,
    instance::Instance,
    lockout::{self, Cut},
    maps::flows::{Flow, FlowTables},
};

impl Control {
    /// The tables of flows of an instance that has to have them.
    ///
    /// # Errors
    ///
    /// It tracks none.
    pub fn flows(&self, instance: &Instance) -> Result<FlowTables> {
        let name = &self.paths.instance;
        instance
            .maps
            .flows()?
            .ok_or_else(|| anyhow!("the rules of instance {name} need no flows, so none are tracked"))
            .help(|| {
                "inbound = \"drop\" in [default] of the rules file needs them, and track = true in [flows] asks for them"
                    .into()
            })
    }

    /// Forgets flows, and returns how many: the next packet of each is judged as a new one. `check` is told if that cuts
    /// the session of this process, or why it cannot be seen, and can object.
    ///
    /// # Errors
    ///
    /// No flows are tracked, or `check` objects; nothing was changed.
    pub fn forget_flows(
        &self,
        selection: &Selection,
        check: impl FnOnce(Result<Option<Cut>>) -> Result<()>,
    ) -> Result<usize> {
        let writer = self.open_to_change()?;
        let flows = self.flows(&writer)?;
        let chosen = || flows.all().filter(|flow| selection.holds(flow));
        let cut = lockout::cut_if_new(&writer);
        check(cut.map(|cut| cut.filter(|cut| chosen().any(|flow| depends_on(&flow, cut)))))?;
        // What changes hands meanwhile is not forgotten; nor is it what was asked for.
        Ok(chosen().filter(|flow| flows.forget(flow)).count())
    }
}

/// Whether packets of the session come in because of this flow: as replies to what this host began. Under
/// the rules they are judged alike whether they begin anything or not.
fn depends_on(flow: &Flow, cut: &Cut) -> bool {
    let (local, peer) = (cut.session.local, cut.session.peer);
    flow.status.is_from_here()
        && (flow.protocol(), flow.local(), flow.peer()) == ("tcp", local.ip(), peer.ip())
        && (flow.local_port(), flow.peer_port()) == (Some(local.port()), Some(peer.port()))
}
