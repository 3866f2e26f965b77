//! The lists of sources in an image.

use std::{mem::offset_of, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use portdemux_common::{
    ruleset::RulesetImage,
    sources::{CLASS_WORDS, Class, Division, PART_PLACES, PARTS, RANGE_PLACES, Sizes, Sources},
};

use super::length;
use crate::rules::lists::{Lists, Range};

/// Writes down who may use the ports of which rules.
pub(super) fn place(image: &mut RulesetImage, lists: &Lists) {
    if lists.classes().is_empty() {
        return;
    }
    let sources = &mut image.sources;
    sources.classes[..lists.classes().len()].copy_from_slice(lists.classes());

    for (start, range) in sources.v4_starts.iter_mut().zip(lists.v4()) {
        *start = u32::try_from(range.start).expect("invariant: an IPv4 address has 32 bits");
    }
    classes(&mut sources.v4_classes, lists.v4());
    for (start, range) in sources.v6_starts.iter_mut().zip(lists.v6()) {
        *start = [low_word(range.start >> 64), low_word(range.start)];
    }
    classes(&mut sources.v6_classes, lists.v6());
    image.header.sources = Sizes {
        v4: divide(lists.v4(), 0, &mut sources.v4_parts),
        v6: divide(lists.v6(), 64, &mut sources.v6_parts),
        words: length(lists.words()),
        classes: length(lists.classes().len() / lists.words()),
    };
}

fn classes(places: &mut [Class], ranges: &[Range]) {
    for (place, range) in places.iter_mut().zip(ranges) {
        *place = range.class;
    }
}

/// Divides ranges into parts by the keys of the addresses that they begin at, which are their upper
/// bits without the lowest `low`: the first part begins with the first range that is in a list, and
/// the last range begins in the last part.
fn divide(ranges: &[Range], low: u32, parts: &mut [u32]) -> Division {
    let (Some(second), Some(last)) = (ranges.get(1).or(ranges.first()), ranges.last()) else {
        return Division::default();
    };
    let base = second.start >> low;
    let shift = (0..64)
        .find(|shift| ((last.start >> low) - base) >> shift < PARTS as u128)
        .expect("invariant: a key has 64 bits");
    let mut place = 0;
    for (part, number) in parts.iter_mut().zip(0..=PARTS as u128) {
        let begin = base + (number << shift);
        let begins_by_then = |range: &Range| {
            let key = range.start >> low;
            key < begin || key == begin && key << low == range.start
        };
        while ranges.get(place + 1).is_some_and(begins_by_then) {
            place += 1;
        }
        *part = length(place);
    }
    parts[PARTS + 1] = length(ranges.len() - 1);
    Division {
        base: low_word(base),
        shift,
        ranges: length(ranges.len()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
const fn low_word(address: u128) -> u64 {
    address as u64
}

/// The parts of [`Sources`] that a decision can read, as offset and length in bytes from its start.
pub(super) fn parts(sizes: &Sizes) -> impl Iterator<Item = (usize, usize)> {
    let any = usize::from(sizes.words > 0);
    let of = |offset: usize, size: usize, count: usize, most: usize| {
        (offset, size * count.min(most) * any)
    };
    let family = |division: &Division| {
        let ranges = division.ranges as usize;
        (ranges, if ranges == 0 { 0 } else { PARTS + 2 })
    };
    let (v4_ranges, v4_parts) = family(&sizes.v4);
    let (v6_ranges, v6_parts) = family(&sizes.v6);
    let words = sizes.words as usize * sizes.classes as usize;
    [
        of(
            offset_of!(Sources, classes),
            size_of::<u64>(),
            words,
            CLASS_WORDS,
        ),
        of(
            offset_of!(Sources, v4_parts),
            size_of::<u32>(),
            v4_parts,
            PART_PLACES,
        ),
        of(
            offset_of!(Sources, v6_parts),
            size_of::<u32>(),
            v6_parts,
            PART_PLACES,
        ),
        of(
            offset_of!(Sources, v4_starts),
            size_of::<u32>(),
            v4_ranges,
            RANGE_PLACES,
        ),
        of(
            offset_of!(Sources, v6_starts),
            size_of::<[u64; 2]>(),
            v6_ranges,
            RANGE_PLACES,
        ),
        of(
            offset_of!(Sources, v4_classes),
            size_of::<Class>(),
            v4_ranges,
            RANGE_PLACES,
        ),
        of(
            offset_of!(Sources, v6_classes),
            size_of::<Class>(),
            v6_ranges,
            RANGE_PLACES,
        ),
    ]
    .into_iter()
}

/// The prefixes that an image has in a list, in as few as say it, IPv4 first.
///
/// A list of which no address is in the image's ranges has none.
pub(super) fn prefixes(image: &RulesetImage, list: u16) -> Vec<IpNet> {
    let sizes = &image.header.sources;
    let is_in = |class: Class| image.sources.is_in(sizes, class, list);
    let v4 = image.sources.v4_starts[..sizes.v4.ranges as usize]
        .iter()
        .map(|&start| u128::from(start))
        .zip(image.sources.v4_classes);
    let v6 = image.sources.v6_starts[..sizes.v6.ranges as usize]
        .iter()
        .map(|&[high, low]| u128::from(high) << 64 | u128::from(low))
        .zip(image.sources.v6_classes);
    let v4 = spans(v4, is_in, u128::from(u32::MAX))
        .into_iter()
        .flat_map(|(first, last)| {
            let address = |number| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
            Ipv4Subnets::new(address(first), address(last), 0).map(IpNet::V4)
        });
    let v6 = spans(v6, is_in, u128::MAX)
        .into_iter()
        .flat_map(|(first, last)| Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6));
    v4.chain(v6).collect()
}

/// The spans of neighbouring ranges that are in a list, first and last address, the last range ending
/// with the last address of all.
fn spans(
    ranges: impl Iterator<Item = (u128, Class)>,
    is_in: impl Fn(Class) -> bool,
    end: u128,
) -> Vec<(u128, u128)> {
    let mut spans = Vec::new();
    let mut open = None;
    for (start, class) in ranges {
        match (open, is_in(class)) {
            (None, true) => open = Some(start),
            (Some(first), false) => {
                spans.push((first, start - 1));
                open = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    spans.extend(open.map(|first| (first, end)));
    spans
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        net::{IpAddr, Ipv6Addr},
    };

    use portdemux_common::{parse::Version, ruleset::RuleId, sources::Admission};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        image,
        rules::{Ruleset, file},
    };

    /// Prefixes that often touch, overlap and share their upper bits.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (
            prop::sample::select(vec![0, 0x0a00_0000, 0xc000_0200, u32::MAX]),
            0..256u32,
            0..=32u8,
        )
            .prop_map(|(base, low, length)| {
                let net = ipnet::Ipv4Net::new(Ipv4Addr::from(base ^ low), length).unwrap();
                IpNet::V4(net.trunc())
            });
        let bases = vec![
            0,
            0x2001_0db8 << 96,
            (0x2001_0db8 << 96) | (7 << 64),
            u128::MAX,
        ];
        let v6 = (
            prop::sample::select(bases),
            0..256u128,
            any::<bool>(),
            0..=128u8,
        )
            .prop_map(|(base, low, is_upper, length)| {
                let bits = base ^ if is_upper { low << 64 } else { low };
                let net = ipnet::Ipv6Net::new(Ipv6Addr::from(bits), length).unwrap();
                IpNet::V6(net.trunc())
            });
        prop_oneof![v4, v6]
    }

    fn list() -> impl Strategy<Value = Vec<IpNet>> {
        prop::collection::vec(prefix(), 0..12)
    }

    fn ruleset(rules: &[(Vec<IpNet>, Vec<IpNet>)]) -> Ruleset {
        let mut text = String::new();
        for (number, (from, deny)) in rules.iter().enumerate() {
            let written = |list: &[IpNet]| {
                let texts: Vec<_> = list.iter().map(|net| format!("\"{net}\"")).collect();
                texts.join(", ")
            };
            let _ = writeln!(text, "[[rule]]\nport = \"{}/tcp\"", number + 1);
            for (key, list) in [("from", from), ("deny", deny)] {
                if !list.is_empty() {
                    let _ = writeln!(text, "{key} = [{}]", written(list));
                }
            }
        }
        file::parse("test.toml", &text).unwrap()
    }

    fn admitted(image: &RulesetImage, source: IpAddr, rule: RuleId) -> Admission {
        let (version, source) = match source {
            IpAddr::V4(address) => (Version::V4, [u64::from(address.to_bits()), 0]),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (Version::V6, [low_word(bits >> 64), low_word(bits)])
            }
        };
        let policy = &image.policies[rule as usize];
        let sizes = &image.header.sources;
        image.sources.admit(sizes, version, source, policy)
    }

    /// The first and the last address of a prefix, and those before and behind.
    fn edges(net: &IpNet) -> Vec<IpAddr> {
        match net {
            IpNet::V4(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .into_iter()
                .flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)])
                .map(|bits| Ipv4Addr::from(bits).into())
                .collect(),
            IpNet::V6(net) => [net.network().to_bits(), net.broadcast().to_bits()]
                .into_iter()
                .flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)])
                .map(|bits| Ipv6Addr::from(bits).into())
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn an_image_admits_whom_the_prefixes_admit(
            rules in prop::collection::vec((list(), list()), 1..80),
            others in prop::collection::vec(any::<u128>(), 4),
        ) {
            let ruleset = ruleset(&rules);
            let ids: Vec<RuleId> = (5..).step_by(3).take(rules.len()).collect();
            let image = image::compile(&ruleset, &ids);
            let nets = rules.iter().flat_map(|(from, deny)| from.iter().chain(deny));
            let others = others.into_iter().flat_map(|bits| {
                let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap();
                [IpAddr::from(Ipv6Addr::from(bits)), Ipv4Addr::from(low).into()]
            });
            let addresses: Vec<IpAddr> = nets.flat_map(edges).chain(others).collect();
            for ((from, deny), &id) in rules.iter().zip(&ids) {
                for &address in &addresses {
                    let holds = |list: &[IpNet]| list.iter().any(|net| net.contains(&address));
                    let expected = if holds(deny) {
                        Admission::Denied
                    } else if !from.is_empty() && !holds(from) {
                        Admission::NotAllowed
                    } else {
                        Admission::Admitted
                    };
                    prop_assert_eq!(admitted(&image, address, id), expected, "{}", address);
                }
            }
        }

        #[test]
        fn a_list_comes_out_of_an_image_as_it_went_in(prefixes in list().prop_filter("some", |list| !list.is_empty())) {
            let ruleset = ruleset(&[(prefixes.clone(), Vec::new())]);
            let image = image::compile(&ruleset, &[0]);
            let mut expected = IpNet::aggregate(&prefixes);
            expected.sort_unstable();
            let mut found = super::prefixes(&image, 0);
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_rule_without_lists_is_decided_by_its_port() {
        let ruleset = ruleset(&[(Vec::new(), Vec::new())]);
        let image = image::compile(&ruleset, &[0]);
        assert_eq!(image.header.sources, Sizes::default());
        assert!(image.ports.iter().all(|entry| !entry.is_open()));
    }

    #[test]
    fn a_source_that_is_nowhere_is_not_admitted() {
        let net = "192.0.2.0/24".parse().unwrap();
        let image = image::compile(&ruleset(&[(vec![net], Vec::new())]), &[0]);
        for source in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            assert_eq!(admitted(&image, source, 0), Admission::NotAllowed);
        }
    }
}
