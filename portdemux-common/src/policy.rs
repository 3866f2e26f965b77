//! What a rule asks of a packet, and what the ruleset says about traffic that no rule claims.

use bytemuck::{Pod, Zeroable};

/// What a rule asks before a packet goes where its action says. All zeros: nothing.
///
/// It is read only if the rule's entries are conditional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Policy {
    /// The list of those who may, plus 1; 0 for anyone.
    pub from: u16,
    /// The list of those who may not, plus 1; 0 for nobody.
    pub deny: u16,
    /// [`Policy::REPLIES_ONLY`], [`Policy::PER_SOURCE`] and [`Policy::RATES`].
    pub conditions: u32,
    /// How many packets may come.
    pub rate: Rate,
    /// How many packets may begin a flow.
    pub new_rate: Rate,
}

/// A limit of packets per time, as the generic cell rate algorithm takes it (ITU-T I.371 §5.4.1.1):
/// a packet may come if its theoretical arrival time is not more than the tolerance ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds from one packet to the next; 0 for no limit.
    pub interval: u64,
    /// Nanoseconds that packets may come early: the burst less one, times the interval.
    pub tolerance: u64,
}

impl Policy {
    /// Only replies may come: packets of flows that this host began.
    pub const REPLIES_ONLY: u32 = 1;
    /// The rates hold for each source by itself.
    pub const PER_SOURCE: u32 = 1 << 1;
    /// Any of the rates is a limit.
    pub const RATES: u32 = 1 << 2;

    /// Whether only replies may come.
    #[inline(always)]
    #[must_use]
    pub const fn is_replies_only(&self) -> bool {
        self.conditions & Self::REPLIES_ONLY != 0
    }

    /// Whether the rates hold for each source by itself.
    #[inline(always)]
    #[must_use]
    pub const fn is_per_source(&self) -> bool {
        self.conditions & Self::PER_SOURCE != 0
    }

    /// Whether any list of sources is part of it.
    #[inline(always)]
    #[must_use]
    pub const fn has_lists(&self) -> bool {
        self.from != 0 || self.deny != 0
    }

    /// Whether any rate is part of it.
    #[inline(always)]
    #[must_use]
    pub const fn has_rates(&self) -> bool {
        self.conditions & Self::RATES != 0
    }
}

/// What happens to traffic that no rule claims. All zeros: everything passes, malformed packets are
/// dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Defaults {
    /// To unclaimed ports: an [`crate::entry::Action`].
    pub inbound: u32,
    /// 1 if malformed packets pass, 0 if they are dropped.
    pub malformed_pass: u32,
    /// To fragments: [`Fragments`].
    pub fragments: u32,
    /// To ICMP: [`Icmp`].
    pub icmp: u32,
    /// 1 if flows are tracked.
    pub flows: u32,
    /// 1 if more is to be asked about packets without ports: any of the three above is not 0.
    pub portless_open: u32,
    /// Fills the word.
    pub reserved: u32,
    /// How long flows are remembered without a packet.
    pub timeouts: Timeouts,
}

/// What happens to later fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Fragments {
    /// They pass.
    #[default]
    Pass = 0,
    /// They are dropped.
    Drop = 1,
    /// They go where their first fragment went.
    Track = 2,
}

/// What happens to ICMP that is neither an error about a known flow nor what IPv6 cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Icmp {
    /// It passes.
    #[default]
    Pass = 0,
    /// It is dropped.
    Drop = 1,
    /// Errors pass, the rest is dropped.
    ErrorsOnly = 2,
}

/// How long flows are remembered after their last packet, in ticks of [`TICK_SHIFT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Timeouts {
    /// TCP and SCTP before the handshake is complete.
    pub handshake: u32,
    /// TCP.
    pub tcp: u32,
    /// TCP and SCTP after the flow was closed or reset.
    pub closing: u32,
    /// UDP that nobody has answered, and echo requests.
    pub one_way: u32,
    /// UDP.
    pub udp: u32,
    /// SCTP.
    pub sctp: u32,
    /// ICMP echo.
    pub echo: u32,
}

/// A tick is 2 to this power nanoseconds of `CLOCK_MONOTONIC`: 134 ms, so that 32 bits last 18 years.
pub const TICK_SHIFT: u32 = 27;

const _: () = {
    assert!(size_of::<Policy>() == 40 && size_of::<Rate>() == 16);
    assert!(size_of::<Defaults>() == 56 && size_of::<Timeouts>() == 28);
};
