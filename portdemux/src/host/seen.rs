//! What was seen of a packet on its way through the pipeline.

use std::cell::{Cell, RefCell};

use bytemuck::Zeroable as _;
use portdemux_common::{
    blocks::Counter,
    conntrack::{Relation, TrackedPacket},
    decide::Metadata,
    decision::Decision,
    entry::Entry,
    pipeline::Scratch,
    reason::{Reason, Verdict},
};

/// What was seen of a packet on its way through the pipeline.
#[derive(Debug)]
pub struct Seen {
    pub(super) scratch: RefCell<Scratch>,
    pub(super) decision: Cell<Decision>,
    pub(super) verdict: Cell<Option<Verdict>>,
    pub(super) is_deferred: Cell<bool>,
    pub(super) shadow: Cell<Option<Decision>>,
    pub(super) relation: Cell<Option<(usize, Relation)>>,
    pub(super) sent: Cell<Option<(usize, Counter)>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            scratch: RefCell::new(Scratch::zeroed()),
            // Of a frame that comes in, this is written over.
            decision: Cell::new(Decision {
                verdict: Verdict::Pass,
                reason: Reason::Unclaimed,
                entry: Entry::UNCLAIMED,
            }),
            verdict: Cell::new(None),
            is_deferred: Cell::new(false),
            shadow: Cell::new(None),
            relation: Cell::new(None),
            sent: Cell::new(None),
        }
    }
}

impl Seen {
    /// What was decided, and why. Of a later fragment it is what was decided about the first one.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision.get()
    }

    /// What happens to the packet; nothing if it goes out. It is another than that of the decision only for a later
    /// fragment of a rejected packet: nobody is told of it.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }

    /// What the rule would do whose shadow the packet has, if it has one.
    #[must_use]
    pub fn shadow(&self) -> Option<Decision> {
        self.shadow.get()
    }

    /// What was written down of the packet, if more than its port decided about it or if it goes out.
    #[must_use]
    pub fn metadata(&self) -> Option<Metadata> {
        self.is_deferred
            .get()
            .then(|| self.scratch.borrow().metadata)
    }

    /// It as a packet of its flow, if it has one.
    #[must_use]
    pub fn tracked(&self) -> Option<TrackedPacket> {
        let tracked = self.scratch.borrow().tracked;
        (self.is_deferred.get() && !tracked.tuple.is_none()).then_some(tracked)
    }

    /// The index of the port that it is counted for, and how it stands to the flows, if it is counted so.
    #[must_use]
    pub fn relation(&self) -> Option<(usize, Relation)> {
        self.relation.get()
    }

    /// The index of the port that it goes out from, and how many packets of how many bytes it becomes.
    #[must_use]
    pub fn sent(&self) -> Option<(usize, Counter)> {
        self.sent.get()
    }
}
