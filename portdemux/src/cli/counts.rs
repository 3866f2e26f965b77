//! Counts as documents have them.

use portdemux_common::blocks::Counter;
use serde::Serialize;

use crate::maps::redirect_drops::Lost;

/// Packets and bytes, as they stand in JSON.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct TrafficReport {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl From<Counter> for TrafficReport {
    fn from(counter: Counter) -> Self {
        Self {
            packets: counter.packets,
            bytes: counter.bytes,
        }
    }
}

/// Packets that a target did not take, as they stand in JSON.
#[derive(Serialize)]
pub(super) struct LostReport {
    to: String,
    reason: &'static str,
    packets: u64,
}

impl From<&Lost> for LostReport {
    fn from(lost: &Lost) -> Self {
        Self {
            to: lost.to.to_string(),
            reason: lost.loss.name(),
            packets: lost.packets,
        }
    }
}
