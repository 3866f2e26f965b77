//! Where the running kernel keeps what the programs read of an interface, as its BTF says (Linux
//! `Documentation/bpf/btf.rst`).

use std::fs;

use portdemux_common::redirect_drops::Offsets;

/// What the running kernel says about its types.
const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u32 = 0xeb9f;

/// Kinds of types, and how many bytes follow the head of one: so many, and so many for each of its members.
const STRUCT: u32 = 4;
const FOLLOWING: [(usize, usize); 20] = [
    (0, 0),  // none
    (4, 0),  // integer
    (0, 0),  // pointer
    (12, 0), // array
    (0, 12), // struct
    (0, 12), // union
    (0, 8),  // enum
    (0, 0),  // forward declaration
    (0, 0),  // typedef
    (0, 0),  // volatile
    (0, 0),  // const
    (0, 0),  // restrict
    (0, 0),  // function
    (0, 8),  // prototype
    (4, 0),  // variable
    (0, 12), // section
    (0, 0),  // floating point number
    (4, 0),  // tag of a declaration
    (0, 0),  // tag of a type
    (0, 12), // enum of 64 bits
];

/// The offsets of the running kernel, if it says them.
pub(super) fn offsets() -> Option<Offsets> {
    read(&fs::read(PATH).ok()?)
}

/// The offsets that a kernel's BTF says.
fn read(btf: &[u8]) -> Option<Offsets> {
    let mut wanted = [
        ("net_device", "ifindex", None),
        ("net_device", "nd_net", None),
        ("net", "ns", None),
        ("ns_common", "inum", None),
    ];
    if word(btf, 0)? & 0xffff != MAGIC {
        return None;
    }
    let begin = word(btf, 4)? as usize;
    let [types, types_length, strings] = [8, 12, 16].map(|at| word(btf, at));
    let types = begin + types? as usize;
    let types = btf.get(types..types + types_length? as usize)?;
    let strings = btf.get(begin + strings? as usize..)?;
    let mut at = 0;
    while at < types.len() {
        let (name, about) = (word(types, at)?, word(types, at + 4)?);
        let (kind, count) = (about >> 24 & 0x1f, (about & 0xffff) as usize);
        let members = at + 12;
        let &(fixed, each) = FOLLOWING.get(kind as usize)?;
        at = members + fixed + each * count;
        if kind != STRUCT {
            continue;
        }
        // Where members can have a width in bits, the upper byte of their offset says it.
        let mask = if about >> 31 == 0 {
            u32::MAX
        } else {
            0xff_ffff
        };
        for (structure, member, offset) in &mut wanted {
            if offset.is_some() || !is_called(strings, name, structure) {
                continue;
            }
            for slot in (0..count).map(|number| members + 12 * number) {
                if is_called(strings, word(types, slot)?, member) {
                    *offset = Some((word(types, slot + 8)? & mask) / 8);
                }
            }
        }
    }
    let [index, namespace, common, inode] = wanted.map(|(_, _, offset)| offset);
    Some(Offsets {
        index: index?,
        namespace: namespace?,
        inode: common? + inode?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn is_called(strings: &[u8], at: u32, name: &str) -> bool {
    let there = strings.get(at as usize..).unwrap_or_default();
    let rest = there.strip_prefix(name.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types with the structures that are looked for among others.
    fn btf() -> Vec<u8> {
        let mut strings = vec![0];
        let mut types: Vec<u32> = Vec::new();
        let mut name = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend(text.bytes().chain([0]));
            at
        };
        // An integer of 4 bytes, and an enum with two members.
        types.extend([name("int"), 1 << 24, 4, 32]);
        types.extend([0, 6 << 24 | 2, 4, name("A"), 0, name("B"), 1]);
        for (structure, has_widths, members) in [
            ("net_device_path", false, vec![("ifindex", 64)]),
            ("ns_common", false, vec![("ops", 0), ("inum", 192)]),
            ("net", false, vec![("passive", 0), ("ns", 1216)]),
            (
                "net_device",
                true,
                vec![("name", 0), ("ifindex", 0x0100_0700), ("nd_net", 2112)],
            ),
        ] {
            let count = u32::try_from(members.len()).unwrap();
            types.extend([
                name(structure),
                u32::from(has_widths) << 31 | STRUCT << 24 | count,
                512,
            ]);
            for (member, bits) in members {
                types.extend([name(member), 1, bits]);
            }
        }
        let length = u32::try_from(4 * types.len()).unwrap();
        let mut words = vec![MAGIC | 1 << 16, 24, 0, length, length];
        words.push(u32::try_from(strings.len()).unwrap());
        words.extend(types);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn offsets_are_those_of_the_members_of_the_structures_of_these_very_names() {
        let expected = Offsets {
            index: 224,
            namespace: 264,
            inode: 152 + 24,
        };
        assert_eq!(read(&btf()), Some(expected));
    }

    #[test]
    fn what_is_cut_off_or_something_else_has_no_offsets() {
        let btf = btf();
        for length in 0..btf.len() {
            let _ = read(&btf[..length]);
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&btf[..btf.len() / 2]), None);
        assert_eq!(read(&[0; 64]), None);
        let mut odd = btf;
        // A kind that is not known has an unknown length.
        odd[24 + 7] = 31;
        assert_eq!(read(&odd), None);
    }
}
