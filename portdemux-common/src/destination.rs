//! Where packets go that do not stay on their usual way: to another interface, to other CPUs, to a
//! program that takes raw frames, to a socket that listens elsewhere.
//!
//! A rule's [`Action`] says of which kind its destination is, its [`Target`] which one. Whether the target
//! is there when a packet comes, only who asks a map can say; what becomes of the packet then is
//! [`settle`].

use crate::{
    decide::Metadata,
    decision::{Decision, Outcome},
    entry::{Action, Entry},
    reason::{Reason, Verdict},
    target::Target,
};

/// What becomes of a packet whose destination is missing: what the rule falls back on.
#[inline(always)]
#[must_use]
pub const fn fall_back(entry: Entry, target: &Target) -> Decision {
    Decision {
        verdict: match target.fallback() {
            Action::Local => Verdict::Pass,
            Action::Reject => Verdict::Reject,
            // Nothing falls back on what can be missing itself.
            Action::Drop | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk => {
                Verdict::Drop
            }
        },
        reason: missing(entry.action()),
        entry,
    }
}

/// What becomes of a packet for which [`Verdict::Redirect`] was decided; nothing else changes.
#[inline(always)]
#[must_use]
pub const fn settle(outcome: Outcome, target: &Target, is_there: bool) -> Outcome {
    if is_there || !matches!(outcome.verdict(), Verdict::Redirect) {
        return outcome;
    }
    fall_back(outcome.entry(), target).outcome()
}

/// Which of `count` CPUs a packet belongs to: all packets of a flow and of its mirror image to one, and all
/// fragments of a packet.
///
/// Fragments are told apart by their addresses only, as those behind the first one have no ports. `seed` is
/// the secret of the instance, which decides what flows meet on a CPU.
#[inline(always)]
#[must_use]
pub fn spread(metadata: &Metadata, seed: u64, count: u16) -> u32 {
    let mut ends = [
        (metadata.source, metadata.source_port),
        (metadata.destination, metadata.destination_port),
    ];
    let mut protocol = metadata.protocol();
    if metadata.is_fragment() {
        ends = [(metadata.source, [0; 2]), (metadata.destination, [0; 2])];
        protocol = 0;
    }
    spread_flow(ends, protocol, seed, count)
}

/// Which of `count` CPUs a flow between two ends belongs to: each an address and a port, as they stand in the
/// packet.
#[inline(always)]
fn spread_flow(ends: [([u64; 2], [u8; 2]); 2], protocol: u8, seed: u64, count: u16) -> u32 {
    let end = |([upper, lower], port): ([u64; 2], [u8; 2])| {
        mix(mix(mix(seed ^ upper) ^ lower) ^ u64::from(u16::from_ne_bytes(port)))
    };
    let [source, destination] = ends;
    let both = end(source).wrapping_add(end(destination));
    let hash = mix(both ^ u64::from(protocol));
    // The upper half of the hash as a fraction of 2³².
    (((hash >> 32) * u64::from(count)) >> 32) as u32
}

/// Spreads the bits of a word over the word (`MurmurHash3`, the first half of the finalizer).
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^ word >> 33
}

/// Why packets do not get to a destination of this kind that is missing.
#[inline(always)]
#[must_use]
pub const fn missing(action: Action) -> Reason {
    match action {
        Action::Socket => Reason::NoSocket,
        Action::Cpu => Reason::NoCpu,
        Action::Xsk => Reason::NoXsk,
        Action::Interface | Action::Local | Action::Drop | Action::Reject => Reason::NoInterface,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_falls_back_only_if_its_target_is_missing() {
        let kinds = [
            (Action::Socket, Reason::NoSocket),
            (Action::Interface, Reason::NoInterface),
            (Action::Cpu, Reason::NoCpu),
            (Action::Xsk, Reason::NoXsk),
        ];
        let fallbacks = [
            (Action::Local, Verdict::Pass),
            (Action::Drop, Verdict::Drop),
            (Action::Reject, Verdict::Reject),
            (Action::Interface, Verdict::Drop),
        ];
        for (action, reason) in kinds {
            let redirected = Decision {
                verdict: Verdict::Redirect,
                reason: Reason::RuleInterface,
                entry: Entry::new(7, action),
            };
            for (fallback, verdict) in fallbacks {
                let target = Target {
                    fallback: fallback as u8,
                    ..Target::default()
                };
                let settled = |is_there| settle(redirected.outcome(), &target, is_there).decision();
                assert_eq!(settled(true), redirected);
                let fallen = settled(false);
                assert_eq!((fallen.verdict, fallen.reason), (verdict, reason));
                assert_eq!(fallen.entry, redirected.entry);
            }
        }
    }

    #[test]
    fn flows_are_spread_evenly_and_each_stays_with_its_mirror_image() {
        for seed in [0, 7, u64::MAX] {
            for count in [1, 2, 3, 64] {
                let mut flows = vec![0; count.into()];
                for number in 0..16_384_u16 {
                    let client = (
                        [u64::from(number % 128), 0],
                        (1024 + number / 128).to_be_bytes(),
                    );
                    let server = ([9, 0], 53_u16.to_be_bytes());
                    let slot = spread_flow([client, server], 17, seed, count);
                    assert_eq!(spread_flow([server, client], 17, seed, count), slot);
                    flows[slot as usize] += 1;
                }
                let fair = 16_384 / usize::from(count);
                let (least, most) = (flows.iter().min().unwrap(), flows.iter().max().unwrap());
                assert!(
                    *least > fair * 7 / 10 && *most < fair * 13 / 10,
                    "{flows:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_redirected_stays_as_it_is() {
        let local = Decision {
            verdict: Verdict::Pass,
            reason: Reason::RuleLocal,
            entry: Entry::new(7, Action::Local),
        };
        assert_eq!(
            settle(local.outcome(), &Target::default(), false).decision(),
            local
        );
    }
}
