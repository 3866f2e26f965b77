//! Whether a change would cut the session that it is made from.

use anyhow::Result;
use portdemux_common::{
    reason::{Reason, Verdict},
    wire::Transport,
};

use crate::{
    clock::Clock,
    explain::packet,
    host,
    image::Compiled,
    instance::{Instance, pinned},
    session::{Hook, Session},
};

/// A session that a change would cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The session.
    pub session: Session,
    /// Why its packets would no longer arrive.
    pub reason: Reason,
}

/// Says whether the session of this process ends when `new` is in force on the interfaces that the
/// instance has and on those that are `joining`.
///
/// It is asked of the very code that decides about packets. What is cut already is not to be blamed
/// on the change. Where it is not clear whether the session comes by one of the interfaces, it does.
///
/// # Errors
///
/// Whether there is a session cannot be seen.
pub fn cut(instance: &Instance, joining: &[Hook], new: &Compiled) -> Result<Option<Cut>> {
    let found = Session::find()?;
    Ok(found.and_then(|session| cut_of(session, instance, joining, new)))
}

fn cut_of(session: Session, instance: &Instance, joining: &[Hook], new: &Compiled) -> Option<Cut> {
    let reason = refusal(&session, new)?;
    let present = present(instance);
    let all = [&present[..], joining].concat();
    if !session.may_come_by(&all).unwrap_or(true) {
        return None;
    }
    let is_old = refusal(&session, &instance.maps.compiled()).is_some()
        && session.may_come_by(&present).unwrap_or(true);
    (!is_old).then_some(Cut { session, reason })
}

/// Says whether the session of this process ends when its flow is forgotten: whether its next packet,
/// taken for one that begins, would not come in.
///
/// # Errors
///
/// Whether there is a session cannot be seen.
pub fn cut_if_new(instance: &Instance) -> Result<Option<Cut>> {
    Ok(Session::find()?.and_then(|session| {
        let reason = refusal(&session, &instance.maps.compiled())?;
        let may_come = session.may_come_by(&present(instance));
        may_come.unwrap_or(true).then_some(Cut { session, reason })
    }))
}

/// Why packets of a session do not reach this host's own stack, if they do not.
fn refusal(session: &Session, ruleset: &Compiled) -> Option<Reason> {
    let frame = packet::frame(Transport::Tcp, session.peer, session.local).ok()?;
    let decision = host::decide(&frame, ruleset, Clock::now().monotonic);
    // Other CPUs hand packets to the host's own stack, too.
    let arrives = decision.verdict == Verdict::Pass || decision.reason == Reason::RuleCpu;
    (!arrives).then_some(decision.reason)
}

/// The interfaces that the instance has a program on.
fn present(instance: &Instance) -> Vec<Hook> {
    let pinned = pinned::pinned(&instance.paths);
    let interfaces = instance.maps.interfaces().into_iter();
    // Where that cannot be seen, it may be on any of them.
    let is_on = |slot: usize| match &pinned {
        Ok(pinned) => pinned.iter().any(|link| link.slot == slot),
        Err(_) => true,
    };
    interfaces
        .filter(|(slot, _)| is_on(*slot))
        .map(|(_, interface)| Hook {
            netns: interface.netns,
            index: interface.index,
        })
        .collect()
}
