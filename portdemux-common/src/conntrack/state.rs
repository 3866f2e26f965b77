//! How far a flow has come, by what its packets say.

use crate::{policy::Timeouts, wire::IpProto};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to this host.
    Received,
    /// From this host to the peer.
    Sent,
}

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// It goes on: data, or anything else.
    Continue = 0,
    /// It begins: SYN, INIT.
    Open = 1,
    /// The beginning is answered: SYN and ACK, INIT ACK.
    Answer = 2,
    /// One side has no more to send: FIN, SHUTDOWN.
    Close = 3,
    /// It is over: RST, ABORT, SHUTDOWN COMPLETE.
    Abort = 4,
}

impl Signal {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// What a number stands for.
    #[inline(always)]
    #[must_use]
    pub const fn of_code(code: u32) -> Self {
        match code {
            1 => Self::Open,
            2 => Self::Answer,
            3 => Self::Close,
            4 => Self::Abort,
            _ => Self::Continue,
        }
    }

    /// What a segment says, by its flags (RFC 9293 §3.1).
    #[inline(always)]
    #[must_use]
    pub const fn of_tcp(flags: u8) -> Self {
        if flags & Self::RST != 0 {
            Self::Abort
        } else if flags & Self::SYN != 0 {
            if flags & Self::ACK != 0 {
                Self::Answer
            } else {
                Self::Open
            }
        } else if flags & Self::FIN != 0 {
            Self::Close
        } else {
            Self::Continue
        }
    }

    /// What an SCTP packet says, by the type of its first chunk (RFC 9260 §3.2).
    #[inline(always)]
    #[must_use]
    pub const fn of_sctp(chunk: u8) -> Self {
        match chunk {
            // COOKIE ECHO brings a flow no further: whether the cookie is good the answer says.
            1 | 10 => Self::Open,
            2 => Self::Answer,
            7 | 8 => Self::Close,
            6 | 14 => Self::Abort,
            _ => Self::Continue,
        }
    }

    /// What a packet says: by its TCP flags or the type of its first chunk.
    #[inline(always)]
    #[must_use]
    pub fn of(protocol: u8, flags: u8) -> Self {
        match IpProto(protocol) {
            IpProto::TCP => Self::of_tcp(flags),
            IpProto::SCTP => Self::of_sctp(flags),
            _ => Self::Continue,
        }
    }
}

/// How far a flow has come, from the least worth remembering to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Both sides have closed, or one has broken off.
    Closed = 1,
    /// One side has closed.
    Closing = 2,
    /// Begun: only one side was observed.
    Opening = 3,
    /// The beginning was answered, and the handshake is not complete.
    Answered = 4,
    /// Both sides have agreed, or were observed where there is nothing to agree on.
    Established = 5,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Opening,
        Self::Answered,
        Self::Established,
        Self::Closing,
        Self::Closed,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Answered => "answered",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// What is known of a flow's progress, in one word.
///
/// Bits 0 to 7: [`State`]. Bit 8: this host began it. Bits 9 and 10: the peer, this host has closed. Bits
/// 32 to 63: the acknowledgment number that completes the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u64);

impl Status {
    const STATE: u64 = 0xff;
    const HERE: u64 = 1 << 8;
    const PEER_CLOSED: u64 = 1 << 9;
    const HOST_CLOSED: u64 = 1 << 10;

    /// A flow of which the first packet seen goes in this direction.
    ///
    /// `serves` says whether the local port is one that a rule claims: what this host goes on with
    /// there a peer has begun.
    #[inline(always)]
    #[must_use]
    pub const fn begun(
        direction: Direction,
        protocol: u8,
        observed: Observed,
        serves: bool,
    ) -> Self {
        let agrees = protocol == IpProto::TCP.0 || protocol == IpProto::SCTP.0;
        match (direction, observed.signal) {
            (Direction::Received, _) => Self(State::Opening as u64),
            (Direction::Sent, Signal::Answer) => {
                Self(State::Answered as u64 | completed_by(observed.sequence))
            }
            // What this host goes on with is a flow whose beginning was not seen.
            (Direction::Sent, Signal::Continue | Signal::Close) if agrees && serves => {
                Self(State::Established as u64)
            }
            (Direction::Sent, Signal::Continue | Signal::Close) if agrees => {
                Self(Self::HERE | State::Established as u64)
            }
            (Direction::Sent, _) => Self(Self::HERE | State::Opening as u64),
        }
    }

    /// A flow that is established, begun by this host or by a peer.
    #[must_use]
    pub const fn established(is_from_here: bool) -> Self {
        let here = if is_from_here { Self::HERE } else { 0 };
        Self(here | State::Established as u64)
    }

    /// How far it has come; an unknown state is over.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & Self::STATE {
            2 => State::Closing,
            3 => State::Opening,
            4 => State::Answered,
            5 => State::Established,
            _ => State::Closed,
        }
    }

    /// How much it is worth remembering: what this host began more than what peers did, and that more
    /// the further it has come.
    #[inline(always)]
    #[must_use]
    pub const fn worth(self) -> u64 {
        self.0 & (Self::HERE | Self::STATE)
    }

    /// Whether this host began it.
    #[inline(always)]
    #[must_use]
    pub const fn is_from_here(self) -> bool {
        self.0 & Self::HERE != 0
    }

    /// What becomes of it by a packet.
    #[inline(always)]
    #[must_use]
    pub const fn next(self, direction: Direction, protocol: u8, observed: Observed) -> Self {
        let state = self.state();
        let is_reply = matches!(
            (self.is_from_here(), direction),
            (true, Direction::Received) | (false, Direction::Sent)
        );
        let is_tcp = protocol == IpProto::TCP.0;
        let agrees = is_tcp || protocol == IpProto::SCTP.0;
        let next = match (observed.signal, state) {
            (Signal::Abort, _) => State::Closed,
            (Signal::Close, _) => return self.close(direction),
            (Signal::Open, State::Closed | State::Closing) if !is_reply => {
                return Self::begun(direction, protocol, observed, false);
            }
            // Where there is no handshake, a flow is taken for one when both have spoken and the one
            // who began has observed it: whoever sends under false addresses does not get that far.
            (Signal::Continue, State::Opening) if is_reply && agrees => State::Established,
            (Signal::Continue, State::Opening)
            | (Signal::Answer, State::Opening | State::Answered)
                if is_reply =>
            {
                State::Answered
            }
            (Signal::Continue, State::Answered) if !agrees && !is_reply => State::Established,
            // The one who began completes a TCP handshake, a peer with the number it was sent; an
            // SCTP handshake ends with the COOKIE ACK of the other.
            (Signal::Continue, State::Answered)
                if is_tcp
                    && !is_reply
                    && (self.is_from_here() || observed.acknowledged == self.completing()) =>
            {
                State::Established
            }
            (Signal::Continue, State::Answered) if is_reply && agrees && !is_tcp => {
                State::Established
            }
            (Signal::Open | Signal::Answer | Signal::Continue, _) => return self,
        };
        let next = self.with(next);
        if matches!(observed.signal, Signal::Answer) {
            Self(next.0 & 0xffff_ffff | completed_by(observed.sequence))
        } else {
            next
        }
    }

    /// The acknowledgment number that completes the handshake.
    #[inline(always)]
    const fn completing(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn with(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | state as u64)
    }

    #[inline(always)]
    const fn close(self, direction: Direction) -> Self {
        let closed = self.0
            | match direction {
                Direction::Received => Self::PEER_CLOSED,
                Direction::Sent => Self::HOST_CLOSED,
            };
        let both = Self::PEER_CLOSED | Self::HOST_CLOSED;
        if closed & both == both {
            Self(closed).with(State::Closed)
        } else if matches!(self.state(), State::Closed) {
            Self(closed)
        } else {
            Self(closed).with(State::Closing)
        }
    }

    /// After how many ticks without a packet it is forgotten.
    #[inline(always)]
    #[must_use]
    pub const fn timeout(self, protocol: u8, timeouts: &Timeouts) -> u32 {
        let state = self.state();
        match (IpProto(protocol), state) {
            (IpProto::TCP | IpProto::SCTP, State::Opening | State::Answered) => timeouts.handshake,
            (IpProto::TCP | IpProto::SCTP, State::Closing | State::Closed) => timeouts.closing,
            (IpProto::TCP, _) => timeouts.tcp,
            (IpProto::SCTP, _) => timeouts.sctp,
            (IpProto::UDP, State::Established) => timeouts.udp,
            (IpProto::ICMP | IpProto::ICMPV6, _) => timeouts.echo,
            _ => timeouts.one_way,
        }
    }
}

/// The acknowledgment number that completes a handshake answered with this sequence number, where
/// [`Status`] keeps it.
#[inline(always)]
const fn completed_by(sequence: u32) -> u64 {
    (sequence.wrapping_add(1) as u64) << 32
}

/// What a packet says that matters to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What it says.
    pub signal: Signal,
    /// The TCP sequence number, in host byte order.
    pub sequence: u32,
    /// The TCP acknowledgment number, in host byte order.
    pub acknowledged: u32,
}

impl Observed {
    /// Nothing that matters.
    pub const NOTHING: Self = Self {
        signal: Signal::Continue,
        sequence: 0,
        acknowledged: 0,
    };
}
