//! Large sets, kept beside the text in a form that is read at once.
//!
//! To read a million prefixes as text takes a command longer than all that it does with them. The file is named
//! as the text is and says nothing that the text does not: without it the text is read.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::rules::{
    Ruleset, edit, file,
    source::{Members, Set},
    until::Until,
};

/// Sets with fewer prefixes together are read from the text.
const FEWEST: usize = 4096;

/// How the file begins; what follows is its hash.
const MAGIC: &[u8] = b"portdemux sets 1\n";
const HASH: usize = blake3::OUT_LEN;

/// Set in the length of a prefix that is a member for a time only.
const TIMED: u16 = 1 << 8;
/// Set in the length of a prefix of IPv6.
const IS_V6: u16 = 1 << 9;

/// What is kept of a ruleset, if it has large sets.
pub(super) fn write(text: &str, ruleset: &Ruleset) -> Option<Vec<u8>> {
    let sizes = ruleset.sets().iter().map(|set| set.prefixes.len());
    (sizes.sum::<usize>() >= FEWEST).then(|| pack(text, ruleset))
}

fn pack(text: &str, ruleset: &Ruleset) -> Vec<u8> {
    let outline = edit::outline(text);
    let mut bytes = Vec::new();
    count(&mut bytes, outline.len());
    bytes.extend(outline.bytes());
    for set in ruleset.sets() {
        write_set(&mut bytes, set);
    }
    [MAGIC, blake3::hash(&bytes).as_bytes(), &bytes].concat()
}

fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend((count as u64).to_le_bytes());
}

fn write_set(bytes: &mut Vec<u8>, set: &Set) {
    count(bytes, set.prefixes.len());
    for prefix in &set.prefixes {
        let until = set.until.get(prefix);
        let timed = if until.is_some() { TIMED } else { 0 };
        let length = u16::from(prefix.prefix_len()) | timed;
        match prefix {
            IpNet::V4(prefix) => {
                bytes.extend(length.to_le_bytes());
                bytes.extend(prefix.addr().octets());
            }
            IpNet::V6(prefix) => {
                bytes.extend((length | IS_V6).to_le_bytes());
                bytes.extend(prefix.addr().octets());
            }
        }
        if let Some(until) = until {
            bytes.extend(until.unix.to_le_bytes());
        }
    }
}

/// The ruleset that was kept; none if this is not what was written.
pub(super) fn read(name: &str, bytes: &[u8]) -> Option<Ruleset> {
    let (hash, mut rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(HASH)?;
    if blake3::hash(rest).as_bytes() != hash {
        return None;
    }
    let outline = take_counted(&mut rest)?;
    let outline = take(&mut rest, outline)?;
    let mut ruleset = file::parse(name, std::str::from_utf8(outline).ok()?).ok()?;
    let sets: Option<Vec<Members>> = ruleset.sets().iter().map(|_| read_set(&mut rest)).collect();
    ruleset.fill(sets?);
    rest.is_empty().then_some(ruleset)
}

fn read_set(rest: &mut &[u8]) -> Option<Members> {
    let count = take_counted(rest)?;
    let mut prefixes = Vec::with_capacity(count);
    let mut timed = HashMap::new();
    for _ in 0..count {
        let head = u16::from_le_bytes(take_array(rest)?);
        let length = head.to_le_bytes()[0];
        let prefix = if head & IS_V6 == 0 {
            IpNet::new(take_array::<4>(rest)?.into(), length)
        } else {
            IpNet::new(take_array::<16>(rest)?.into(), length)
        };
        let prefix = prefix.ok()?;
        if head & TIMED != 0 {
            let unix = u64::from_le_bytes(take_array(rest)?);
            timed.insert(prefix, Until { unix });
        }
        prefixes.push(prefix);
    }
    Some((prefixes, timed))
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

fn take_array<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    take(rest, LENGTH)?.try_into().ok()
}

/// A number of things of which each takes a byte at least.
fn take_counted(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(u64::from_le_bytes(take_array(rest)?)).ok()?;
    (count <= rest.len()).then_some(count)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::rules::source::{Becomes, MemberChange};

    const NAMES: [&str; 3] = ["one", "two.words", "three"];
    const NOW: u64 = 4_000_000_000_000;

    fn prefix() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0..6_u8).prop_map(|(is_v6, number)| {
            let text = if is_v6 {
                format!("2001:db8:{number}::/48")
            } else {
                format!("192.0.2.{number}/32")
            };
            text.parse().unwrap()
        })
    }

    /// Before now, at once, and after it.
    fn time() -> impl Strategy<Value = Until> {
        const TIMES: [u64; 4] = [NOW - 1, NOW, NOW + 1, NOW + 60_000];
        prop::sample::select(&TIMES[..]).prop_map(|unix| Until { unix })
    }

    fn becomes() -> impl Strategy<Value = Becomes> {
        prop_oneof![
            Just(Becomes::NonMember),
            Just(Becomes::Member(None)),
            time().prop_map(|until| Becomes::Member(Some(until))),
        ]
    }

    type Listed = Vec<(IpNet, Option<Until>)>;

    fn listed() -> impl Strategy<Value = Listed> {
        let member = (prefix(), prop::option::of(time()));
        prop::collection::vec(member, 0..8).prop_map(|mut all| {
            all.sort_by_key(|(prefix, _)| prefix.to_string());
            all.dedup_by_key(|(prefix, _)| *prefix);
            all
        })
    }

    /// A list as it can be written: in a line or in several, with comments.
    fn list(members: &Listed, is_long: bool) -> String {
        let gap = if is_long { "\n    " } else { " " };
        let mut text = String::from("[");
        for (prefix, until) in members {
            let _ = match until {
                Some(until) => write!(
                    text,
                    "{gap}{{ prefix = \"{prefix}\", until = \"{until}\" }},"
                ),
                None => write!(text, "{gap}\"{prefix}\","),
            };
            if is_long {
                text.push_str(" # ], [");
            }
        }
        if is_long {
            text.push('\n');
        }
        text.push(']');
        text
    }

    /// A rules file, in one of the ways in which sets can be written.
    fn text() -> impl Strategy<Value = String> {
        let lists = prop::array::uniform3((listed(), any::<bool>()));
        (lists, 0..3_u8).prop_map(|(lists, way)| {
            let mut text = String::new();
            if way == 0 {
                text.push_str("# who\n[sets]\n");
            }
            if way == 2 {
                text.push_str("sets = { ");
            }
            for (name, (members, is_long)) in NAMES.iter().zip(&lists) {
                let list = list(members, *is_long);
                let _ = match way {
                    0 => writeln!(text, "\"{name}\" = {list}"),
                    1 => writeln!(text, "sets.\"{name}\" = {list}"),
                    _ => write!(text, "\"{name}\" = {list}, "),
                };
            }
            if way == 0 {
                text.push_str("single = \"198.51.100.1\"\n");
            }
            if way == 2 {
                text.push_str("\"last\" = [] }\n");
            }
            text.push_str(
                "[[rule]]\nport = \"22/tcp\"\nfrom = [\"@one\", \"@three\"]\ndeny = \"@two.words\"\n",
            );
            text
        })
    }

    fn changes() -> impl Strategy<Value = Vec<MemberChange>> {
        let change = (prop::sample::select(&NAMES[..]), prefix(), becomes());
        let change = change.prop_map(|(set, prefix, becomes)| MemberChange {
            set: set.into(),
            prefix,
            becomes,
        });
        prop::collection::vec(change, 0..12)
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_text_says_with_and_without_changes(
            text in text(),
            changes in changes(),
        ) {
            let parsed = file::parse("", &text).unwrap();
            let kept = pack(&text, &parsed);
            let mut known = read("", &kept).unwrap();
            prop_assert_eq!(known.sets(), parsed.sets());
            prop_assert_eq!(known.rules(), parsed.rules());
            prop_assert_eq!(known.lists(), parsed.lists());

            let edited = edit::members("", &text, &changes, NOW).unwrap();
            let edited = file::parse("", &edited).unwrap();
            known.change_members(&changes, NOW);
            for (known, edited) in known.sets().iter().zip(edited.sets()) {
                prop_assert_eq!(&known.prefixes, &edited.prefixes);
                prop_assert_eq!(&known.until, &edited.until);
            }
        }

        #[test]
        fn what_is_damaged_is_not_read(text in text(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let parsed = file::parse("", &text).unwrap();
            let mut kept = pack(&text, &parsed);
            prop_assert!(read("", &kept[..at.index(kept.len())]).is_none());
            let at = at.index(kept.len());
            kept[at] ^= 1 << bit;
            prop_assert!(read("", &kept).is_none());
        }
    }

    #[test]
    fn small_sets_are_read_from_the_text() {
        let of = |count: usize| {
            let mut text = String::from("[sets]\nmany = [");
            for number in 0..count {
                let _ = write!(text, "\"10.0.{}.{}\",", number / 256, number % 256);
            }
            text.push_str("]\n");
            let ruleset = file::parse("", &text).unwrap();
            write(&text, &ruleset)
        };
        assert!(of(FEWEST - 1).is_none());
        assert!(of(FEWEST).is_some());
    }
}
