//! How packets are handed to a destination.

use std::{fmt, str::FromStr};

use portdemux_common::{entry::Action, target::Target};

use super::{Destination, DestinationError, MacError};
use crate::rules::word::Word;

/// How many frames wait for a CPU unless that is said.
pub const DEFAULT_QUEUE: u16 = 2048;

/// How many frames can wait for a CPU at most (Linux `kernel/bpf/cpumap.c`, `cpu_map_update_elem`).
pub const MAX_QUEUE: u16 = 16384;

/// What a rule says about the way to its destination; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// What happens to packets while the destination is missing.
    pub fallback: Option<Fallback>,
    /// The destination MAC address that frames get.
    pub mac: Option<Mac>,
    /// How many frames wait for a CPU at most.
    pub queue: Option<u16>,
}

/// What happens to packets whose destination is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fallback {
    /// The host's own stack gets them.
    Local,
    /// Nobody gets them, and their senders are told.
    Reject,
    /// Nobody gets them.
    Drop,
}

/// The MAC address of one network card: not of a group, and not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Delivery {
    /// What it comes to on the way to a destination, apart from where that is.
    #[must_use]
    pub fn target(&self, to: &Destination) -> Target {
        let fallback = self.fallback.or(to.usual_fallback());
        Target {
            first: 0,
            count: 0,
            queue: to.cpus().map_or(0, |_| self.queue.unwrap_or(DEFAULT_QUEUE)),
            fallback: fallback.map_or(Action::Local, Fallback::action) as u8,
            reserved: 0,
            mac: self.mac.map_or([0; 6], |mac| mac.0),
        }
    }

    /// What leads to such a target, as it is written: what is usual is left out.
    #[must_use]
    pub fn of_target(target: &Target, to: &Destination) -> Self {
        let all = Fallback::ALL.iter().copied();
        let fallback = all
            .into_iter()
            .find(|fallback| fallback.action() == target.fallback());
        let usual = to.usual_fallback();
        let is_cpu = to.cpus().is_some();
        Self {
            fallback: fallback.filter(|_| usual.is_some() && fallback != usual),
            mac: (target.mac != [0; 6]).then_some(Mac(target.mac)),
            queue: (is_cpu && target.queue != DEFAULT_QUEUE).then_some(target.queue),
        }
    }

    /// Says whether all of it means something for a destination.
    pub(in crate::rules) fn check(&self, to: &Destination) -> Result<(), DestinationError> {
        if self.fallback.is_some() && to.usual_fallback().is_none() {
            return Err(DestinationError::NeverMissing(to.to_string()));
        }
        if self.mac.is_some() && !matches!(to, Destination::Interface(_)) {
            return Err(DestinationError::MacElsewhere(to.to_string()));
        }
        if self.queue.is_some() && to.cpus().is_none() {
            return Err(DestinationError::QueueElsewhere(to.to_string()));
        }
        Ok(())
    }

    /// The keys that say something unusual and what they say, as it is written but for the quotes.
    #[must_use]
    pub fn words(&self, to: &Destination) -> Vec<(&'static str, String)> {
        let unusual = Self::of_target(&self.target(to), to);
        let fallback = unusual.fallback.map(|fallback| fallback.name().into());
        let words = [
            ("mac", self.mac.map(|mac| mac.to_string())),
            ("queue", unusual.queue.map(|queue| queue.to_string())),
            ("fallback", fallback),
        ];
        let words = words.into_iter();
        words.filter_map(|(key, word)| Some((key, word?))).collect()
    }
}

/// Says whether a queue can be so long.
pub fn check_queue(frames: u64) -> Result<u16, DestinationError> {
    let queue = u16::try_from(frames).ok();
    queue
        .filter(|queue| (1..=MAX_QUEUE).contains(queue))
        .ok_or(DestinationError::Queue(frames))
}

impl Fallback {
    /// What a packet's decision says of it.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Local => Action::Local,
            Self::Reject => Action::Reject,
            Self::Drop => Action::Drop,
        }
    }
}

impl Word for Fallback {
    const ALL: &'static [Self] = &[Self::Local, Self::Reject, Self::Drop];

    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Reject => "reject",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let is_byte = |part: &&str| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            };
            let part = parts.next().filter(is_byte);
            let number = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = number.ok_or_else(|| MacError::NotAMac(text.into()))?;
        }
        if parts.next().is_some() {
            return Err(MacError::NotAMac(text.into()));
        }
        if mac == [0; 6] {
            return Err(MacError::Zero);
        }
        if mac[0] & 1 != 0 {
            return Err(MacError::Group(text.into()));
        }
        Ok(Self(mac))
    }
}
