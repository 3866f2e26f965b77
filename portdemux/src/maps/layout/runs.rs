//! What stands in one layout where it stands in another.

use std::ops::Range;

/// Bytes that stand together in both of two layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: usize,
    to: usize,
    bytes: usize,
}

/// All that two layouts have in common, ascending in the second; the rest is zero there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Run>);

/// A part of a range that was asked for: where it stands, and which bytes of the range it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunPart {
    pub(crate) from: usize,
    pub(crate) of: Range<usize>,
}

impl Runs {
    /// Notes that `bytes` bytes at `from` stand at `to`, behind all that was noted before.
    pub(super) fn push(&mut self, from: usize, to: usize, bytes: usize) {
        if bytes == 0 {
            return;
        }
        match self.0.last_mut() {
            Some(last) if (last.from + last.bytes, last.to + last.bytes) == (from, to) => {
                last.bytes += bytes;
            }
            _ => self.0.push(Run { from, to, bytes }),
        }
    }

    /// Brings what was noted in another order into that of the second layout.
    pub(super) fn sorted(self) -> Self {
        let mut runs = self.0;
        runs.sort_by_key(|run| run.to);
        let mut sorted = Self::default();
        for Run { from, to, bytes } in runs {
            sorted.push(from, to, bytes);
        }
        sorted
    }

    /// Where the parts of `bytes` bytes from `offset` on in the second layout stand in the first.
    pub(crate) fn parts(&self, offset: usize, bytes: usize) -> impl Iterator<Item = RunPart> {
        let end = offset + bytes;
        let first = self.0.partition_point(|run| run.to + run.bytes <= offset);
        self.0[first..]
            .iter()
            .take_while(move |run| run.to < end)
            .map(move |run| {
                let begin = run.to.max(offset);
                RunPart {
                    from: run.from + (begin - run.to),
                    of: begin - offset..(run.to + run.bytes).min(end) - offset,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_in_the_parts_in_which_it_stands() {
        let mut runs = Runs::default();
        runs.push(1000, 32, 16);
        runs.push(0, 0, 16);
        runs.push(16, 16, 8);
        let runs = runs.sorted();
        assert_eq!(runs.0.len(), 2, "what stands together in both is one run");
        let parts = |offset, bytes| -> Vec<(usize, Range<usize>)> {
            let parts = runs.parts(offset, bytes);
            parts.map(|part| (part.from, part.of)).collect()
        };
        assert_eq!(parts(0, 48), [(0, 0..24), (1000, 32..48)]);
        assert_eq!(parts(8, 8), [(8, 0..8)]);
        assert_eq!(parts(40, 100), [(1008, 0..8)]);
        assert!(parts(24, 8).is_empty(), "nothing stands there");
        assert!(parts(48, 8).is_empty());
    }
}
