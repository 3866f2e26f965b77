//! How connections and datagrams are handed to sockets.

use serde::Serialize;

use crate::{
    background::{Need, follower},
    cli::Context,
    dataplane::steering::{self, Features, Followed},
    figures::grouped,
    instance::Instance,
    rules::Ruleset,
};

/// Which sockets there are, and what finds them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sockets {
    /// Whether the program that is asked for sockets is attached.
    attached: bool,
    groups: usize,
    members: usize,
    /// Who says that a TCP socket listens anew.
    tcp_followed_by: Option<&'static str>,
    /// Whether the process is needed that finds again what was gone.
    follower_needed: bool,
    follower_runs: bool,
    features: Features,
    #[serde(skip)]
    need: Need,
}

impl Sockets {
    pub(super) fn read(instance: &Instance, ruleset: Option<&Ruleset>) -> Self {
        let groups = instance.maps.steering.groups();
        let members = groups
            .iter()
            .map(|&(group, _)| instance.maps.steering.members(group).len());
        let followed = steering::followed(&instance.paths);
        let follower_runs = follower::is_running(&instance.paths);
        let need = ruleset.map(|ruleset| Need::of(instance, ruleset));
        let need = need.unwrap_or_default();
        Self {
            attached: steering::is_steering(&instance.paths),
            groups: groups.len(),
            members: members.sum(),
            tcp_followed_by: match followed {
                Followed::ByKernel => Some("kernel"),
                Followed::No if follower_runs => Some("process"),
                Followed::No => None,
            },
            follower_needed: !need.is_none(),
            follower_runs,
            features: Features::of_this_kernel(),
            need,
        }
    }

    /// Says how it stands with them, if there are any, and warns if nothing finds them again.
    pub(super) fn say(&self, context: &Context) {
        if let Some(line) = self.line() {
            context.output.line(line);
        }
        if let Some(lack) = self.need.lack()
            && !self.follower_runs
        {
            let follow = format!(
                "{} follow, or any command that changes rules",
                context.command()
            );
            context.output.warn(lack, Some(&follow));
        }
    }

    fn line(&self) -> Option<String> {
        if !self.attached && self.groups == 0 {
            return None;
        }
        let members = match self.members {
            1 => "1 socket".into(),
            count => format!("{} sockets", grouped(count as u64)),
        };
        let names = match self.groups {
            1 => "1 address or name".into(),
            count => format!("{} addresses and names", grouped(count as u64)),
        };
        let lookups = if self.attached {
            "sk_lookup attached"
        } else {
            "no rule names them"
        };
        let is_followed = self.follower_runs && self.need.finds_sockets();
        let followed = match (self.tcp_followed_by, is_followed) {
            (Some("kernel"), false) => ", TCP followed by the kernel",
            (Some("kernel"), true) => ", TCP followed by the kernel, UDP by a process",
            (_, true) => ", followed by a process",
            (_, false) => "",
        };
        Some(format!("{members} under {names}   {lookups}{followed}"))
    }
}
