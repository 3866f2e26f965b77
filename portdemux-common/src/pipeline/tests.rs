//! What each step of a packet holds, on tables as small as can be.

mod bed;
mod flows;
mod fragments;
mod frames;
mod rules;

use bed::{Bed, Said};
use frames::{HERE, PEER};

use crate::{
    conntrack::Relation,
    entry::{Action, Entry},
    reason::{Reason, Verdict},
    wire::Transport,
};

/// What is said of a packet that passes, and why.
const fn passed(reason: Reason) -> Said {
    (Verdict::Pass, reason)
}

/// What is said of a packet that is dropped, and why.
const fn dropped(reason: Reason) -> Said {
    (Verdict::Drop, reason)
}
