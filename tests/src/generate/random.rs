//! Numbers that look random and follow from a seed.

/// `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), or numbers that are given.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    /// What is given, the last first.
    given: Vec<u8>,
}

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            given: Vec::new(),
        }
    }

    /// The numbers that these bytes give, one or two of them each where that is enough, and behind them the sequence of
    /// a seed: what a fuzzer changes of the bytes changes one choice.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            seed: 0,
            given: bytes.iter().rev().copied().collect(),
        }
    }

    /// Whether all bytes that were given are used up.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.given.is_empty()
    }

    /// The number of the next `count` bytes that are given; nothing if there are none left.
    fn next_given(&mut self, count: usize) -> Option<u64> {
        if self.given.is_empty() {
            return None;
        }
        let bytes = (0..count).map(|_| self.given.pop().unwrap_or_default());
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(byte)))
    }

    /// Eight bytes.
    pub fn long(&mut self) -> u64 {
        self.next_given(8).unwrap_or_else(|| self.split_mix())
    }

    fn split_mix(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, or 0 if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        let count = match limit {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        let number = self.next_given(count).unwrap_or_else(|| self.split_mix());
        usize::try_from(number % limit).unwrap_or_default()
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`; the default if there are none.
    pub fn pick<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len());
        choices.get(index).copied().unwrap_or_default()
    }

    /// Four bits.
    pub fn nibble(&mut self) -> u8 {
        self.byte() & 0x0f
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        match self.given.pop() {
            Some(byte) => byte,
            None => self.split_mix().to_be_bytes()[0],
        }
    }

    /// Two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Four bytes.
    pub fn double_word(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Sixteen bytes.
    pub fn quad_word(&mut self) -> u128 {
        u128::from(self.long()) << 64 | u128::from(self.long())
    }

    /// This many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}
