//! What an interface does to frames before a program sees them, as the generic netlink family `ethtool` says (Linux
//! 5.6 and newer, `Documentation/networking/ethtool-netlink.rst`).

use anyhow::{Context as _, Result};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};

use crate::netlink::{
    Asked,
    generic::{ask, emitted, of_kind},
};

/// The question for features (`ETHTOOL_MSG_FEATURES_GET`).
const GET_FEATURES: u8 = 11;
/// Its attribute that says of which interface, and the name in it (`ETHTOOL_A_FEATURES_HEADER`,
/// `ETHTOOL_A_HEADER_DEV_NAME`).
const HEADER: u16 = 1;
const NAME: u16 = 2;
/// The features that are on, and down to the name of one (`ETHTOOL_A_FEATURES_ACTIVE`, `ETHTOOL_A_BITSET_BITS`,
/// `ETHTOOL_A_BITSET_BITS_BIT`, `ETHTOOL_A_BITSET_BIT_NAME`). The set has no mask: what it has is on.
const ACTIVE: u16 = 4;
const BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;

/// Features of an interface that hide something from an XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The card takes VLAN tags out of the frames it receives (`rxvlan`).
    pub strips_vlan: bool,
    /// The card joins received TCP segments (`lro`).
    pub large_receive: bool,
    /// The card joins received packets as the stack would (`rx-gro-hw`).
    pub hardware_gro: bool,
}

/// Asks which offloads of an interface are on.
///
/// # Errors
///
/// The kernel does not answer, or has no ethtool interface.
pub fn offloads(interface: &str) -> Result<Offloads> {
    let name = DefaultNla::new(NAME, [interface.as_bytes(), &[0]].concat());
    let header = DefaultNla::new(HEADER | NLA_F_NESTED, emitted(&[name]));
    let answers = ask("ethtool", GET_FEATURES, Asked::One, &[header])
        .transpose()
        .context("the kernel has no ethtool interface")
        .and_then(|answers| Ok(answers?))
        .with_context(|| format!("ask for the offloads of {interface}"))?;
    Ok(answers
        .iter()
        .fold(Offloads::default(), |found, answer| read(answer, found)))
}

/// Adds the offloads that an answer says are on.
fn read(answer: &[u8], mut offloads: Offloads) -> Offloads {
    let bits = of_kind(answer, ACTIVE).flat_map(|set| of_kind(set, BITS));
    for name in bits
        .flat_map(|bits| of_kind(bits, BIT))
        .flat_map(|bit| of_kind(bit, BIT_NAME))
    {
        match name {
            b"rx-vlan-hw-parse\0" => offloads.strips_vlan = true,
            b"rx-lro\0" => offloads.large_receive = true,
            b"rx-gro-hw\0" => offloads.hardware_gro = true,
            _ => {}
        }
    }
    offloads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_is_read_out_of_its_sets() {
        let nested =
            |kind, inner: &[DefaultNla]| DefaultNla::new(kind | NLA_F_NESTED, emitted(inner));
        let bit = |name: &str| {
            let name = DefaultNla::new(BIT_NAME, [name.as_bytes(), &[0]].concat());
            nested(BIT, &[DefaultNla::new(1, vec![7, 0, 0, 0]), name])
        };
        let answer = |kind, bits: &[DefaultNla]| {
            let nomask = DefaultNla::new(1, Vec::new());
            emitted(&[nested(kind, &[nomask, nested(BITS, bits)])])
        };
        let on = answer(
            ACTIVE,
            &[bit("rx-lro"), bit("tx-lockless"), bit("rx-vlan-hw-parse")],
        );
        let expected = Offloads {
            strips_vlan: true,
            large_receive: true,
            hardware_gro: false,
        };
        assert_eq!(read(&on, Offloads::default()), expected);
        let could_be = answer(2, &[bit("rx-gro-hw")]);
        assert_eq!(read(&could_be, Offloads::default()), Offloads::default());
        for length in 0..on.len() {
            let _ = read(&on[..length], Offloads::default());
        }
    }

    /// Whatever machine this runs on, nothing of the kind is on for the loopback interface.
    #[test]
    fn the_kernel_answers() {
        assert_eq!(offloads("lo").unwrap(), Offloads::default());
        offloads("none-such").unwrap_err();
    }
}
