use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::capacity::SOCKET_SLOTS;

const FLOWS: u64 = 4096;

#[test]
fn every_slot_of_every_group_has_a_place_of_its_own() {
    let mut indices = Vec::new();
    for group in 0..u32::try_from(MAX_GROUPS).unwrap() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let slots = 0..u32::try_from(MEMBER_SLOTS).unwrap();
            indices.extend(slots.map(|slot| index(group, transport, slot)));
        }
    }
    indices.sort_unstable();
    let all = 0..u32::try_from(SOCKET_SLOTS).unwrap();
    assert!(indices.into_iter().eq(all));
}

/// A flow that is like no other.
fn flow(number: u64) -> u64 {
    let lookup = Lookup {
        source: [number, 0],
        destination: [7, 0],
        source_port: [0x9c, 0x40],
        destination_port: [0, 53],
        version: Version::V4,
        transport: Transport::Udp,
    };
    lookup.flow(0x5eed)
}

fn owners(members: u64) -> Vec<Option<u32>> {
    (0..FLOWS)
        .map(|number| choose(members, flow(number)))
        .collect()
}

#[test]
fn nobody_is_chosen_of_none_and_the_only_one_of_one() {
    assert_eq!(choose(0, 1), None);
    for slot in 0..32 {
        assert_eq!(choose(1 << slot, 0), Some(slot));
        assert_eq!(choose(1 << slot, u64::MAX), Some(slot));
    }
}

#[test]
fn flows_are_shared_evenly() {
    for members in [0b11, 0b1011, 0xff, 0x8000_0001, 0xffff_ffff_u64] {
        let mut shares: HashMap<u32, u64> = HashMap::new();
        for owner in owners(members) {
            *shares.entry(owner.unwrap()).or_default() += 1;
        }
        let fair = FLOWS / u64::from(members.count_ones());
        assert_eq!(shares.len(), members.count_ones() as usize);
        for (slot, share) in shares {
            assert!(
                share * 2 > fair && share < fair * 2,
                "{members:x}: {slot} has {share}"
            );
        }
    }
}

proptest! {
    #[test]
    fn who_leaves_takes_only_his_own_flows_with_him(members in 1_u64..1 << 32, gone in 0_u32..32) {
        let rest = members & !(1 << gone);
        for (before, after) in owners(members).into_iter().zip(owners(rest)).take(256) {
            if before == Some(gone) {
                prop_assert_ne!(after, Some(gone));
            } else {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn the_choice_depends_on_every_part_of_a_flow(at in 0_usize..36, bit in 0_u32..8) {
        let lookup = Lookup {
            source: [0x0123_4567_89ab_cdef, 0x1122_3344_5566_7788],
            destination: [0xfedc_ba98_7654_3210, 0x8877_6655_4433_2211],
            source_port: [1, 2],
            destination_port: [3, 4],
            version: Version::V6,
            transport: Transport::Tcp,
        };
        let mut bytes = [0; 36];
        bytes[at] = 1 << bit;
        let [a, b, c, d]: [[u8; 8]; 4] = core::array::from_fn(|word| {
            core::array::from_fn(|byte| bytes[word * 8 + byte])
        });
        let changed = |word: u64, change: [u8; 8]| word ^ u64::from_ne_bytes(change);
        let other = Lookup {
            source: [changed(lookup.source[0], a), changed(lookup.source[1], b)],
            destination: [changed(lookup.destination[0], c), changed(lookup.destination[1], d)],
            source_port: [1 ^ bytes[32], 2 ^ bytes[33]],
            destination_port: [3 ^ bytes[34], 4 ^ bytes[35]],
            ..lookup
        };
        prop_assert_ne!(lookup.flow(1), other.flow(1));
        prop_assert_ne!(lookup.flow(1), lookup.flow(2));
    }
}

fn group(version: Version, address: [u64; 2], port: u16) -> Group {
    Group {
        address,
        key: Group::listening(version, port.to_be_bytes()),
        ..Group::zeroed()
    }
}

#[test]
fn a_socket_is_of_the_groups_that_it_listens_for() {
    const LOCAL: [u64; 2] = [0x0100_007f, 0];
    const OTHER: [u64; 2] = [0x0200_007f, 0];
    const V6: [u64; 2] = [0, 1 << 56];
    const ANY: [u64; 2] = [0; 2];
    let (v4, v6) = (Version::V4, Version::V6);
    let groups = [
        group(v4, LOCAL, 80),
        group(v4, OTHER, 80),
        group(v6, V6, 80),
        group(v4, ANY, 80),
        group(v6, ANY, 80),
        group(v4, LOCAL, 81),
        Group {
            key: Group::NAMED,
            ..Group::zeroed()
        },
        Group::zeroed(),
        Group {
            key: Group::on_localhost(80_u16.to_be_bytes()),
            ..Group::zeroed()
        },
    ];
    let rows = [
        (v4, LOCAL, 80, &[0, 8][..]),
        (v4, OTHER, 80, &[1]),
        (v6, V6, 80, &[2, 8]),
        (v4, ANY, 80, &[0, 1, 3, 8]),
        // It may take IPv4 too.
        (v6, ANY, 80, &[0, 1, 2, 3, 4, 8]),
        (v4, LOCAL, 81, &[5]),
        (v4, ANY, 81, &[5]),
        (v4, LOCAL, 82, &[]),
        // The bytes of one family say nothing in the other.
        (v6, LOCAL, 80, &[]),
        (v4, V6, 80, &[]),
        (v4, ANY, 0, &[]),
    ];
    for (version, address, port, expected) in rows {
        let listening = Listening::new(version, address, u16::to_be_bytes(port));
        let found: Vec<usize> = (0..groups.len())
            .filter(|&at| listening.is_of(&groups[at]))
            .collect();
        assert_eq!(found, expected, "{version:?} {address:x?} {port}");
    }
    assert!(groups[0].is_at_v4() && !groups[2].is_at_v4() && !groups[6].is_at_v4());
    assert!(!groups[8].is_at_v4() && !groups[8].is_named());
    assert!(groups[6].is_named() && !groups[0].is_named() && !groups[7].is_named());
}

#[test]
fn members_are_kept_apart_by_protocol_and_version() {
    let group = Group {
        members: [[1, 2], [3, 4]],
        ..Group::zeroed()
    };
    let rows = [
        (Transport::Tcp, Version::V4, 1),
        (Transport::Tcp, Version::V6, 2),
        (Transport::Udp, Version::V4, 3),
        (Transport::Udp, Version::V6, 4),
    ];
    for (transport, version, members) in rows {
        assert_eq!(*group.members(transport, version), members);
    }
}

#[test]
fn only_interfaces_that_are_counted_are_guarded() {
    let mut steering: Box<Steering> = bytemuck::zeroed_box();
    assert!(!steering.is_guarded(0, 0));
    steering.guarded[..3].copy_from_slice(&[4, 9, 12]);
    let is_guarded = |interface| steering.is_guarded(2, interface);
    assert!(is_guarded(4) && is_guarded(9) && !is_guarded(12));
    steering.guarded = core::array::from_fn(|at| u32::try_from(at).unwrap() + 1);
    let is_guarded = |interface| steering.is_guarded(1000, interface);
    assert!(is_guarded(128) && !is_guarded(129) && !is_guarded(0));
}

#[test]
fn a_destination_leads_to_its_group() {
    let mut steering: Box<Steering> = bytemuck::zeroed_box();
    steering.groups_of[5] = 3;
    assert_eq!(steering.group_of(5).map(|(index, _)| index), Some(2));
    assert!(steering.group_of(4).is_none());
    assert!(steering.group_of(u32::MAX).is_none());
}
