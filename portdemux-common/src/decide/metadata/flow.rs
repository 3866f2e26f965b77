//! A packet on its way through its flow.

use super::Metadata;
use crate::{
    conntrack::{Observed, Signal, TrackedPacket, Tuple},
    decide::icmp,
    parse::Fragment,
};

impl Metadata {
    /// The flow that it belongs to; none ([`Tuple::is_none`]) if it is of a kind without flows.
    #[inline(always)]
    fn flow(&self) -> Tuple {
        let (here, there) = if self.transport().is_some() {
            (self.destination_port, self.source_port)
        } else {
            if self.is_later() || !icmp::is_echo(self.protocol(), self.flags) {
                return Tuple::NONE;
            }
            let [[a, b, ..], _] = self.numbers;
            ([a, b], [a, b])
        };
        let (local, remote) = (self.destination, self.source);
        let version = self.version_number();
        Tuple::new((local, here), (remote, there), self.protocol(), version)
    }

    /// Whether it is an ICMP error.
    #[inline(always)]
    #[must_use]
    pub fn is_error(&self) -> bool {
        let is_whole = self.fragment() == Fragment::None as u8;
        let kind = icmp::Category::of(self.protocol(), self.flags);
        is_whole && self.transport().is_none() && matches!(kind, Some(icmp::Category::Error))
    }

    /// The error as a packet of the flow of the packet that it quotes, which was written down here.
    #[inline(always)]
    #[must_use]
    pub fn quoted(&self) -> TrackedPacket {
        let mut error = self.sent(1);
        error.is_error = 1;
        if self.version_number() == 0 {
            error.tuple = Tuple::NONE;
        }
        error
    }

    /// It as a packet that came in, on its way through its flow; nothing if it has none.
    #[inline(always)]
    #[must_use]
    pub fn received(&self) -> TrackedPacket {
        TrackedPacket::new(self.flow(), self.observed(), self.port, 1, self.length)
    }

    /// It as a packet of this host that is cut into `segments` on the wire, with headers of their own.
    #[inline(always)]
    #[must_use]
    pub fn sent(&self, segments: u32) -> TrackedPacket {
        let packets = u64::from(segments).max(1);
        let headers = u64::from(self.payload) + 4 * u64::from(self.header);
        let bytes = self.length + (packets - 1) * headers;
        let port = self.source_slot();
        TrackedPacket::new(
            self.flow().mirrored(),
            self.observed(),
            port,
            packets,
            bytes,
        )
    }

    #[inline(always)]
    fn observed(&self) -> Observed {
        let [sequence, acknowledged] = self.numbers;
        Observed {
            signal: Signal::of(self.protocol(), self.flags),
            sequence: u32::from_be_bytes(sequence),
            acknowledged: u32::from_be_bytes(acknowledged),
        }
    }

    /// Whether it may begin a flow: an answer to an echo cannot.
    #[inline(always)]
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.transport().is_some() || icmp::is_echo_request(self.protocol(), self.flags)
    }
}
