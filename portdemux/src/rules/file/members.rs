//! What a set may not hold when somebody writes it.

use ipnet::IpNet;

use super::Schema;
use crate::rules::{
    error::Diagnostic,
    source::{Set, Source},
};

/// How many overlaps of a set are looked for: enough to say what is wrong.
const FOUND: usize = 1_000;

/// How a text came to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It was in force, or is an edit of what was: time went on since it was written.
    Known,
    /// Somebody wrote it to be put in force at this time, in milliseconds since 1970.
    Written {
        /// The time.
        now: u64,
        /// Whether members whose time is past are left out rather than refused.
        skip_expired: bool,
    },
}

impl Reading {
    /// The time before which nobody may be a member until.
    pub(super) const fn earliest(self) -> Option<u64> {
        match self {
            Self::Written {
                now,
                skip_expired: false,
            } => Some(now),
            Self::Written { .. } | Self::Known => None,
        }
    }
}

impl Schema<'_> {
    /// Says which members of a set hold others; they stand at `offsets`, as do its prefixes.
    ///
    /// What is removed from such a set later would leave its addresses in it.
    pub(super) fn overlaps(&mut self, set: &Set, offsets: &[usize]) {
        let Reading::Written { now, .. } = self.reading else {
            return;
        };
        let is_over = |prefix: &IpNet| set.until.get(prefix).is_some_and(|until| until.unix <= now);
        for (around, within) in overlaps(&set.prefixes, is_over) {
            let [around, within] = [around, within].map(|index| {
                let prefix = Source::Prefix(set.prefixes[index]).to_string();
                (prefix, self.lines.line(offsets[index]))
            });
            let diagnostic = if around.0 == within.0 {
                Diagnostic::new(format!("{} is in the set `{}` twice", within.0, set.name))
            } else {
                let message = format!("prefixes of the set `{}` overlap", set.name);
                Diagnostic::new(message).at(around.1, [around.0])
            };
            let diagnostic = diagnostic.at(within.1, [within.0]);
            let diagnostic = diagnostic.help("write each address once");
            self.diagnostics.push(diagnostic);
        }
    }
}

/// Finds which prefixes hold others: the index of the one around and of the one within it.
fn overlaps(prefixes: &[IpNet], is_over: impl Fn(&IpNet) -> bool) -> Vec<(usize, usize)> {
    let mut indices: Vec<usize> = (0..prefixes.len())
        .filter(|&index| !is_over(&prefixes[index]))
        .collect();
    // Behind each stand those within it: two prefixes are apart, or the longer one is within the other.
    if !indices.is_sorted_by_key(|&index| prefixes[index]) {
        indices.sort_by_key(|&index| prefixes[index]);
    }
    let mut found = Vec::new();
    let mut outer: Option<usize> = None;
    for index in indices {
        match outer {
            Some(around) if prefixes[around].contains(&prefixes[index]) => {
                found.push((around, index));
                if found.len() == FOUND {
                    break;
                }
            }
            Some(_) | None => outer = Some(index),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = IpNet> {
        // Few addresses, so that prefixes meet.
        (any::<bool>(), 0u8..4, 0u8..=8).prop_map(|(is_v6, high, length)| {
            let address = if is_v6 {
                [u16::from(high) << 8, 0, 0, 0, 0, 0, 0, 0].into()
            } else {
                [high, 0, 0, 0].into()
            };
            IpNet::new(address, length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn a_set_has_no_overlaps_just_if_no_two_prefixes_hold_each_other(
            prefixes in proptest::collection::vec(prefix(), 0..6)
        ) {
            let found = overlaps(&prefixes, |_| false);
            for &(around, within) in &found {
                prop_assert!(around != within);
                prop_assert!(prefixes[around].contains(&prefixes[within]));
            }
            let pairs = prefixes.iter().enumerate();
            let hold = pairs.flat_map(|(index, one)| {
                let others = prefixes.iter().enumerate();
                others.map(move |(other, two)| index != other && one.contains(two))
            });
            prop_assert_eq!(found.is_empty(), !hold.into_iter().any(|holds| holds));
        }
    }
}
