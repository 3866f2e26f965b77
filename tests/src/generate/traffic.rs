//! Packets that follow one another: what this host and its peers say to each other, in order and out of it.
//!
//! A sequence is a function of its numbers, as a frame is of its seed.

mod talk;

use self::talk::{Said, Talk};
use super::{Generator, Random};

/// How many conversations go on at a time.
const TALKS: usize = 24;
/// How long it is until the next packet, in nanoseconds, most often.
const PAUSES: [u64; 12] = [
    0,
    0,
    0,
    0,
    1_000,
    1_000_000,
    30_000_000,
    134_217_728,
    400_000_000,
    1_000_000_000,
    4_000_000_000,
    11_000_000_000,
];

/// A packet, and when it comes.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long after the one before, in nanoseconds.
    pub pause: u64,
    /// Whether this host sends it.
    pub is_sent: bool,
    /// Its frame.
    pub frame: Vec<u8>,
}

/// A sequence of packets.
#[derive(Clone, Debug)]
pub struct Packets {
    random: Random,
    talks: Vec<Talk>,
    /// Fragments that are still on their way.
    late: Vec<Said>,
    /// The shortest pause.
    least: u64,
}

impl Packets {
    /// The sequence of these numbers; no pause is shorter than `least` nanoseconds.
    #[must_use]
    pub const fn new(random: Random, least: u64) -> Self {
        Self {
            random,
            talks: Vec::new(),
            late: Vec::new(),
            least,
        }
    }

    /// Whether the bytes that were given for it are used up.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.random.is_used_up()
    }

    fn said(&mut self) -> Said {
        let random = &mut self.random;
        if !self.late.is_empty() && random.one_in(4) {
            let which = random.below(self.late.len());
            return self.late.swap_remove(which);
        }
        if random.one_in(24) {
            let frame = Generator::default().frame(random.byte().into());
            return Said {
                is_sent: random.one_in(4),
                frame,
            };
        }
        if self.talks.len() < TALKS && random.one_in(4) || self.talks.is_empty() {
            self.talks.push(Talk::random(random));
        }
        let which = random.below(self.talks.len());
        if random.one_in(64) {
            self.talks[which] = Talk::random(random);
        }
        let mut said = self.talks[which].next(random);
        let first = said.swap_remove(0);
        self.late.extend(said);
        self.late.truncate(TALKS);
        first
    }
}

impl Iterator for Packets {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let pause = self.random.pick(&PAUSES);
        let Said { is_sent, frame } = self.said();
        Some(Step {
            pause: pause.max(self.least),
            is_sent,
            frame,
        })
    }
}
