//! What comes out of the tables, against what a walk over the prefixes says.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portdemux_common::{
    ids::RuleId,
    parse::Version,
    sources::{Admission, DEADLINE_SHIFT},
};
use proptest::prelude::*;

use super::{
    ranges::{bounds, low_word},
    rows::{Membership, Rows},
    *,
};
use crate::{
    image::{self, Compiled},
    rules::file,
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

fn words_of(source: IpAddr) -> (Version, [u64; 2]) {
    match source {
        IpAddr::V4(address) => (Version::V4, [u64::from(address.to_bits()), 0]),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (Version::V6, [low_word(bits >> 64), low_word(bits)])
        }
    }
}

fn admitted(image: &Compiled, source: IpAddr, rule: RuleId) -> Admission {
    let (version, source) = words_of(source);
    let policy = &image.policies[rule as usize];
    image
        .header
        .sources
        .admit(&image.table(0), version, source, policy)
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

/// Holds the tables of rules against their prefixes, for `others` and for all addresses beside which a prefix begins
/// or ends.
fn check(rules: &[(Vec<IpNet>, Vec<IpNet>)], others: impl IntoIterator<Item = IpAddr>) {
    let ruleset = ruleset(rules);
    let ids: Vec<RuleId> = (5..).step_by(3).take(rules.len()).collect();
    let image = image::compile(&ruleset, &ids).unwrap();
    let nets = rules
        .iter()
        .flat_map(|(from, deny)| from.iter().chain(deny));
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
            assert_eq!(admitted(&image, address, id), expected, "{address}");
        }
    }
}

#[test]
fn a_range_that_ends_within_an_upper_half_begins_behind_one_that_is_cut() {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let none = Vec::new;
    check(
        &[
            (nets(&["2001:db8::/61", "2001:db8:0:8::/65"]), none()),
            (none(), nets(&["2001:db8:0:7::/65"])),
        ],
        [],
    );
}

proptest! {
    #[test]
    fn an_image_admits_whom_the_prefixes_admit(
        rules in prop::collection::vec((list(), list()), 1..80),
        others in prop::collection::vec(any::<u128>(), 4),
    ) {
        let others = others.into_iter().flat_map(|bits| {
            let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap();
            [IpAddr::from(Ipv6Addr::from(bits)), Ipv4Addr::from(low).into()]
        });
        check(&rules, others);
    }

    #[test]
    fn a_list_comes_out_of_an_image_as_it_went_in(prefixes in list().prop_filter("some", |list| !list.is_empty())) {
        let ruleset = ruleset(&[(prefixes.clone(), Vec::new())]);
        let image = image::compile(&ruleset, &[0]).unwrap();
        let mut expected = IpNet::aggregate(&prefixes);
        expected.sort_unstable();
        let mut found = image.prefixes(0);
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_rule_without_lists_is_decided_by_its_port() {
    let ruleset = ruleset(&[(Vec::new(), Vec::new())]);
    let image = image::compile(&ruleset, &[0]).unwrap();
    assert_eq!(image.header.sources, Sources::default());
    assert!(image.sources.is_empty());
    assert!(image.ports.iter().all(|entry| !entry.is_open()));
}

#[test]
fn a_source_that_is_nowhere_is_not_admitted() {
    let net = "192.0.2.0/24".parse().unwrap();
    let image = image::compile(&ruleset(&[(vec![net], Vec::new())]), &[0]).unwrap();
    for source in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
        assert_eq!(admitted(&image, source, 0), Admission::NotAllowed);
    }
}

/// Many prefixes, some crowded, some far from each other: every kind of node and leaf.
fn many(count: u32) -> Vec<IpNet> {
    let mix = |number: u64| {
        let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    };
    (0..count)
        .flat_map(|number| {
            let random = mix(u64::from(number));
            let spread = u32::try_from(random >> 32).unwrap();
            let crowd = 0x0a01_0000 + number * 3 + u32::from(number % 7 == 0);
            let v4 = [spread, crowd].map(|bits| IpNet::from(IpAddr::from(Ipv4Addr::from(bits))));
            let high = u128::from(0x2001_0db8_0000_0000 | u64::from(number * 2) << 8) << 64;
            let v6 = [
                (u128::from(random | 1 << 61) << 64, 64),
                (high, 64 - u8::try_from(number % 9).unwrap()),
                (high + (1 << 64) + u128::from(random), 128),
                ((0x2001_0db8_u128 << 96) | u128::from(number * 2), 128),
            ];
            let v6 = v6.map(|(bits, length)| {
                IpNet::V6(ipnet::Ipv6Net::new(bits.into(), length).unwrap().trunc())
            });
            v4.into_iter().chain(v6)
        })
        .collect()
}

#[test]
fn crowds_and_hermits_are_found_alike() {
    let prefixes = many(20_000);
    let image = image::compile(&ruleset(&[(prefixes.clone(), Vec::new())]), &[0]).unwrap();
    let held: Vec<(u128, u128)> = {
        let v6 = prefixes.iter().filter(|net| net.addr().is_ipv6());
        let mut held: Vec<_> = v6.map(bounds).collect();
        held.sort_unstable();
        held
    };
    let v4: std::collections::HashSet<IpAddr> = prefixes
        .iter()
        .filter(|net| net.addr().is_ipv4())
        .map(IpNet::addr)
        .collect();
    // The longest prefix before an address that is long enough reaches it.
    let mut reach = Vec::new();
    for &(_, last) in &held {
        reach.push(last.max(reach.last().copied().unwrap_or(0)));
    }
    for address in prefixes.iter().step_by(3).flat_map(edges) {
        let is_held = match address {
            IpAddr::V4(_) => v4.contains(&address),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let before = held.partition_point(|&(first, _)| first <= bits);
                before > 0 && reach[before - 1] >= bits
            }
        };
        let said = admitted(&image, address, 0) == Admission::Admitted;
        assert_eq!(said, is_held, "{address}");
    }
}

/// A table that is changed in place, with the rows of its classes elsewhere.
struct Live {
    words: Vec<u64>,
    sources: Sources,
    rows: NewRows,
}

impl Live {
    fn new(lists: &[Vec<IpNet>]) -> Self {
        let mut rows = NewRows::new(Numbering {
            atoms: lists.len(),
            unions: vec![vec![0, 2]],
        });
        let mut words = vec![0; CONTROL_WORDS as usize];
        let mut sources = Sources::default();
        for (is_v4, keys) in [(true, Keys::V4), (false, Keys::V6)] {
            let held = (0..).zip(lists).flat_map(|(atom, list)| {
                let of_family = list.iter().filter(move |net| net.addr().is_ipv4() == is_v4);
                of_family.map(move |&prefix| HeldPrefix {
                    prefix,
                    atom,
                    deadline: 0,
                })
            });
            let ranges = ranges::ranges(&mut rows, held, keys).unwrap();
            let pieces = ranges::pieces(&mut words, keys, &ranges).unwrap();
            let division = encode::root(&mut words, keys, &pieces).unwrap();
            if is_v4 {
                sources.v4 = division;
            } else {
                sources.v6 = division;
            }
        }
        Self {
            words,
            sources,
            rows,
        }
    }

    fn change(&mut self, prefix: &IpNet, edit: impl Fn(&mut Membership)) -> Result<(), NoRoom> {
        let (keys, division) = match prefix {
            IpNet::V4(_) => (Keys::V4, self.sources.v4),
            IpNet::V6(_) => (Keys::V6, self.sources.v6),
        };
        let rows = &mut self.rows;
        edit::change(
            &mut self.words,
            keys,
            &division,
            bounds(prefix),
            &mut |_: &mut Vec<u64>, class| {
                let row = rows.numbering().words();
                let read = |class: SourceClass| {
                    rows.words[portdemux_common::sources::number(class) as usize * row..][..row]
                        .to_vec()
                };
                let mut membership = rows.numbering().membership(class, read);
                edit(&mut membership);
                rows.class(&membership)
            },
        )
    }

    /// The lists an address is in at a time.
    fn lists(&self, address: IpAddr, now: u64) -> Vec<u16> {
        let mut words = self.words.clone();
        let classes = words.len();
        words.extend(&self.rows.words);
        let sources = Sources {
            classes: u32::try_from(classes).unwrap(),
            row: u32::try_from(self.rows.numbering().words()).unwrap(),
            ..self.sources
        };
        let table = Words {
            words: &words,
            begin: 0,
            now: now << DEADLINE_SHIFT,
        };
        let (version, source) = words_of(address);
        let numbering = self.rows.numbering();
        let lists = u16::try_from(numbering.atoms + numbering.unions.len()).unwrap();
        (0..lists)
            .filter(|list| {
                let policy = portdemux_common::policy::Policy {
                    from: list + 1,
                    ..Default::default()
                };
                sources.admit(&table, version, source, &policy) == Admission::Admitted
            })
            .collect()
    }
}

/// Makes a prefix a member of a list until a time, for good, or takes it out.
#[derive(Clone, Copy, Debug)]
enum Step {
    Until(u64),
    Lasting,
    Out,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6u64).prop_map(Step::Until),
        Just(Step::Lasting),
        Just(Step::Out)
    ]
}

proptest! {
    #[test]
    fn changes_in_place_come_to_what_the_last_word_about_each_address_is(
        mut lists in prop::collection::vec(list(), 3),
        // With so many, classes have rows.
        spare in prop_oneof![Just(0), Just(30)],
        steps in prop::collection::vec((prefix(), 0..3u16, step()), 0..24),
    ) {
        lists.extend(vec![Vec::new(); spare]);
        let union = u16::try_from(lists.len()).unwrap();
        let mut live = Live::new(&lists);
        let mut done: Vec<(IpNet, u16, Step)> = Vec::new();
        for (prefix, atom, step) in steps {
            let changed = live.change(&prefix, |membership| match step {
                Step::Until(deadline) => membership.enter(atom, Some(deadline)),
                Step::Lasting => membership.enter(atom, None),
                Step::Out => membership.leave(atom),
            });
            // A table without any prefix of the family has to be built anew.
            if changed.is_ok() {
                done.push((prefix, atom, step));
            }
        }
        let all = lists.iter().flatten().chain(done.iter().map(|(net, ..)| net));
        for address in all.flat_map(edges) {
            for now in 0..6 {
                let mut expected: BTreeMap<u16, bool> = (0..).zip(&lists).map(|(atom, list)| {
                    (atom, list.iter().any(|net| net.contains(&address)))
                }).collect();
                for (net, atom, step) in &done {
                    if net.contains(&address) {
                        expected.insert(*atom, match step {
                            Step::Until(deadline) => now < *deadline,
                            Step::Lasting => true,
                            Step::Out => false,
                        });
                    }
                }
                expected.insert(union, expected[&0] || expected[&2]);
                let expected: Vec<u16> = expected.into_iter().filter(|&(_, is_in)| is_in).map(|(atom, _)| atom).collect();
                prop_assert_eq!(live.lists(address, now), expected, "{} at {}", address, now);
            }
        }
    }
}
