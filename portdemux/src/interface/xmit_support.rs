//! Which interfaces take frames that an XDP program of another one hands them, as the generic netlink family
//! `netdev` says (Linux 6.3 and newer, `Documentation/netlink/specs/netdev.yaml`).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::netlink::{
    Asked,
    generic::{ask, of_kind},
};

/// The question for interfaces (`NETDEV_CMD_DEV_GET`), and the attributes of an answer.
const GET_DEVICES: u8 = 1;
const INDEX: u16 = 1;
const FEATURES: u16 = 3;

/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TRANSMITS: u64 = 4;

/// Whether the driver of each interface takes such frames, as things are, by index; nothing if the kernel does
/// not say.
///
/// # Errors
///
/// The kernel does not answer as documented.
pub fn xmit_support() -> Result<Option<BTreeMap<u32, bool>>> {
    let answers = ask("netdev", GET_DEVICES, Asked::All, &[])
        .context("ask which interfaces take frames of other drivers")?;
    Ok(answers.map(|answers| answers.iter().filter_map(|answer| device(answer)).collect()))
}

/// An interface's index, and whether it takes frames.
fn device(attributes: &[u8]) -> Option<(u32, bool)> {
    let index = of_kind(attributes, INDEX).next()?.try_into().ok()?;
    let features = of_kind(attributes, FEATURES).next()?.try_into().ok()?;
    let transmits = u64::from_ne_bytes(features) & TRANSMITS != 0;
    Some((u32::from_ne_bytes(index), transmits))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;
    use crate::netlink::generic::emitted;

    #[test]
    fn an_interface_takes_frames_if_its_driver_transmits_them() {
        let answer = |index: u32, features: u64| {
            emitted(&[
                DefaultNla::new(INDEX, index.to_ne_bytes().into()),
                DefaultNla::new(FEATURES, features.to_ne_bytes().into()),
            ])
        };
        let devices = [(1, 0), (2, 0x7f), (3, 0x7b)];
        let found = devices.map(|(index, features)| device(&answer(index, features)));
        assert_eq!(found, [Some((1, false)), Some((2, true)), Some((3, false))]);
        let whole = answer(2, 0x7f);
        for length in 0..whole.len() {
            assert_eq!(device(&whole[..length]), None);
        }
    }

    /// Whatever kernel this runs on, the loopback interface does not.
    #[test]
    fn the_kernel_answers() {
        if let Some(support) = xmit_support().unwrap() {
            assert_eq!(support.get(&1), Some(&false));
        }
    }
}
