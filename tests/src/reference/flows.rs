//! Flows: who began them, how far they have come, and when they are forgotten.

use std::collections::HashMap;

use portdemux_common::{conntrack::Relation, policy::Timeouts};

use super::facts::{Key, Signal};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Here,
    Peer,
}

/// How far the beginning of a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// One side has spoken.
    Begun,
    /// The other has answered.
    Answered,
    /// The one who began has heard the answer.
    Complete,
}

/// A flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    began: Side,
    progress: Progress,
    /// The acknowledgment that completes a TCP handshake.
    completing: u32,
    has_finished: [bool; 2],
    is_broken: bool,
    /// Whether it stands among those that are complete or that this host began.
    is_settled: bool,
    /// The tick at which it is forgotten.
    until: u64,
}

/// The flows that are known, and for how many there is room among each kind.
#[derive(Debug)]
pub(super) struct Flows {
    known: HashMap<Key, Flow>,
    room: usize,
    /// Whether one of several gave way that are worth the same: the documents do not say which.
    pub(super) is_open: bool,
}

/// A packet of a flow, and when it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) key: Key,
    pub(super) side: Side,
    pub(super) signal: Signal,
    /// Whether it is of a kind that begins flows.
    pub(super) may_begin: bool,
    /// Whether a rule claims the local port.
    pub(super) serves: bool,
    /// The tick.
    pub(super) now: u64,
}

impl Flows {
    /// No flows yet; `room` is for how many of each kind there is room.
    pub(super) fn new(room: usize) -> Self {
        Self {
            known: HashMap::new(),
            room,
            is_open: false,
        }
    }

    /// Forgets what is over at a tick.
    pub(super) fn forget(&mut self, now: u64) {
        self.known.retain(|_, flow| now < flow.until);
    }

    /// How a packet of the peer's stands to them.
    pub(super) fn relation(&self, key: &Key) -> Relation {
        match self.known.get(key) {
            Some(flow) if flow.began == Side::Here => Relation::Reply,
            // What is over was complete, or it is of no further interest.
            Some(flow)
                if flow.is_settled && (flow.progress == Progress::Complete || flow.is_over()) =>
            {
                Relation::Established
            }
            Some(_) | None => Relation::New,
        }
    }

    /// Whether a flow is known.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.known.contains_key(key)
    }

    /// Whether a packet begins a flow: none is known, or one that is over begins anew.
    pub(super) fn begins(&self, key: &Key, signal: Signal) -> bool {
        match self.known.get(key) {
            None => true,
            Some(flow) => flow.is_over() && matches!(signal, Signal::Begin | Signal::Cookie),
        }
    }

    /// Notes a packet that was not dropped.
    pub(super) fn note(&mut self, packet: &Packet, timeouts: &Timeouts) {
        if let Some(flow) = self.known.get_mut(&packet.key) {
            flow.go_on(packet);
            flow.until = packet.now + u64::from(flow.timeout(packet.key.protocol, timeouts));
            if !flow.is_settled && flow.progress == Progress::Complete && !flow.is_over() {
                self.settle(&packet.key, packet.now);
            }
            return;
        }
        let ends = match packet.side {
            Side::Here => packet.signal == Signal::Break,
            Side::Peer => matches!(packet.signal, Signal::Break | Signal::Finish),
        };
        if ends || !packet.may_begin {
            return;
        }
        let mut flow = Flow::begun(packet);
        flow.until = packet.now + u64::from(flow.timeout(packet.key.protocol, timeouts));
        let limit = if flow.is_settled && flow.began == Side::Peer {
            Worth::OVER
        } else {
            Worth::ANY
        };
        if self.make_room(flow.is_settled, limit, packet.now) {
            self.known.insert(packet.key, flow);
        }
    }

    /// Moves a flow that is complete to those that are, if there is room.
    fn settle(&mut self, key: &Key, now: u64) {
        if self.make_room(true, Worth::OVER, now)
            && let Some(flow) = self.known.get_mut(key)
        {
            flow.is_settled = true;
        }
    }

    /// Makes room for a flow; what gives way is worth least, and no more than this.
    fn make_room(&mut self, is_settled: bool, limit: Worth, now: u64) -> bool {
        let same_kind = self
            .known
            .iter()
            .filter(|(_, flow)| flow.is_settled == is_settled);
        let worths = same_kind.map(|(key, flow)| ((flow.worth(), flow.until - now), *key));
        let worths: Vec<_> = worths.collect();
        if worths.len() < self.room {
            return true;
        }
        let Some(&(least, key)) = worths.iter().min() else {
            return false;
        };
        let gives_way = least.0 <= limit;
        if gives_way {
            self.known.remove(&key);
            self.is_open |= worths.iter().filter(|(worth, _)| *worth == least).count() > 1;
        }
        gives_way
    }
}

/// What a flow is worth: what this host began more than what peers did, and that more the further it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_ours: bool,
    is_over: u8,
    progress: Progress,
}

impl Worth {
    /// What a peer began and is over.
    const OVER: Self = Self {
        is_ours: false,
        is_over: 1,
        progress: Progress::Complete,
    };
    const ANY: Self = Self {
        is_ours: true,
        is_over: 2,
        progress: Progress::Complete,
    };
}

impl Flow {
    fn begun(packet: &Packet) -> Self {
        let flow = Self {
            began: packet.side,
            progress: Progress::Begun,
            completing: 0,
            has_finished: [false; 2],
            is_broken: false,
            is_settled: packet.side == Side::Here,
            until: 0,
        };
        if packet.side == Side::Peer {
            return flow;
        }
        let agrees = agrees(packet.key.protocol);
        match packet.signal {
            // The beginning was not seen, or was forgotten.
            Signal::Accept(number) => Self {
                began: Side::Peer,
                progress: Progress::Answered,
                completing: number.wrapping_add(1),
                is_settled: false,
                ..flow
            },
            Signal::Other(_) | Signal::Finish if agrees => Self {
                began: if packet.serves {
                    Side::Peer
                } else {
                    Side::Here
                },
                progress: Progress::Complete,
                is_settled: true,
                ..flow
            },
            Signal::Begin | Signal::Cookie | Signal::Finish | Signal::Break | Signal::Other(_) => {
                flow
            }
        }
    }

    const fn is_over(&self) -> bool {
        self.is_broken || self.has_finished[0] || self.has_finished[1]
    }

    const fn is_closed(&self) -> bool {
        self.is_broken || self.has_finished[0] && self.has_finished[1]
    }

    fn worth(&self) -> Worth {
        let (is_over, progress) = match (self.is_closed(), self.is_over()) {
            (true, _) => (0, Progress::Begun),
            (false, true) => (1, Progress::Begun),
            (false, false) => (2, self.progress),
        };
        Worth {
            is_ours: self.began == Side::Here,
            is_over,
            progress,
        }
    }

    /// What a packet makes of it.
    fn go_on(&mut self, packet: &Packet) {
        let answers = packet.side != self.began;
        let agrees = agrees(packet.key.protocol);
        match packet.signal {
            Signal::Break => self.is_broken = true,
            Signal::Finish => self.has_finished[usize::from(packet.side == Side::Here)] = true,
            Signal::Begin | Signal::Cookie if self.is_over() && !answers => {
                let is_settled = self.is_settled;
                *self = Self {
                    is_settled,
                    ..Self::begun(packet)
                };
            }
            _ if self.is_over() => {}
            Signal::Accept(number) if answers && self.progress != Progress::Complete => {
                self.progress = Progress::Answered;
                self.completing = number.wrapping_add(1);
            }
            Signal::Other(number) => self.progress = self.heard(packet, answers, agrees, number),
            Signal::Begin | Signal::Cookie | Signal::Accept(_) => {}
        }
    }

    /// How far it comes by a packet that neither begins nor ends anything.
    fn heard(&self, packet: &Packet, answers: bool, agrees: bool, number: u32) -> Progress {
        match self.progress {
            Progress::Complete => Progress::Complete,
            // Of a flow that is seen from its middle on.
            Progress::Begun if answers && agrees => Progress::Complete,
            Progress::Begun if answers => Progress::Answered,
            Progress::Begun => Progress::Begun,
            Progress::Answered => {
                let is_complete = match packet.key.protocol {
                    6 => !answers && (self.began == Side::Here || number == self.completing),
                    // COOKIE ACK.
                    132 => answers,
                    _ => !answers,
                };
                if is_complete {
                    Progress::Complete
                } else {
                    Progress::Answered
                }
            }
        }
    }

    const fn timeout(&self, protocol: u8, timeouts: &Timeouts) -> u32 {
        let is_complete = matches!(self.progress, Progress::Complete);
        match protocol {
            6 | 132 if self.is_over() => timeouts.closing,
            6 | 132 if !is_complete => timeouts.handshake,
            6 => timeouts.tcp,
            132 => timeouts.sctp,
            17 if is_complete => timeouts.udp,
            17 => timeouts.one_way,
            _ => timeouts.echo,
        }
    }
}

/// Whether the two sides of a protocol agree on a flow before data goes.
const fn agrees(protocol: u8) -> bool {
    matches!(protocol, 6 | 132)
}
