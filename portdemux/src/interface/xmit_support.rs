//! Which interfaces take frames that an XDP program of another one hands them, as the generic netlink family
//! `netdev` says (Linux 6.3 and newer, `Documentation/netlink/specs/netdev.yaml`).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink, send, socket_with},
};

use crate::netlink::{ACKNOWLEDGED, Attributes, DONE, DUMP, ERROR, first, message, next, receive};

/// The family that knows the others (`GENL_ID_CTRL`), its question for one of them by name
/// (`CTRL_CMD_GETFAMILY`), and the attributes of that and of the answer.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;

/// The name of the family as an attribute (2, `CTRL_ATTR_FAMILY_NAME`), with zeros behind it.
const NETDEV: [u8; 12] = *b"\x0b\0\x02\0netdev\0\0";

/// Its question for interfaces (`NETDEV_CMD_DEV_GET`), and the attributes of an answer.
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
    ask().context("ask which interfaces take frames of other drivers")
}

fn ask() -> Result<Option<BTreeMap<u32, bool>>> {
    let socket = match socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::GENERIC),
    ) {
        Ok(socket) => socket,
        Err(Errno::PROTONOSUPPORT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let ask = |message: &[u8]| send(&socket, message, SendFlags::empty());
    ask(&question(CONTROL, ACKNOWLEDGED, GET_FAMILY, &NETDEV))?;
    let mut family = None;
    receive(&socket, |messages| read_family(messages, &mut family))?;
    let Some(family) = family else {
        return Ok(None);
    };
    ask(&question(family, DUMP, GET_DEVICES, &[]))?;
    let mut support = BTreeMap::new();
    receive(&socket, |messages| {
        read_devices(messages, family, &mut support)
    })?;
    Ok(Some(support))
}

/// A question of a family (`struct genlmsghdr`: command, version, two bytes that fill the word).
fn question(family: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let body = [&[command, 1, 0, 0], attributes].concat();
    message(family, flags, &body)
}

/// The attributes of an answer.
fn attributes(body: &[u8]) -> Attributes<'_> {
    Attributes(body.get(4..).unwrap_or_default())
}

fn read_family(mut messages: &[u8], family: &mut Option<u16>) -> Result<Option<()>> {
    while let Some((kind, body)) = next(&mut messages)? {
        match kind {
            CONTROL => {
                let id = attributes(body).find(|&(kind, _)| kind == FAMILY_ID);
                *family = id.and_then(|(_, value)| first(value));
            }
            ERROR => return ended(body, &[Errno::NOENT]).map(Some),
            _ => {}
        }
    }
    Ok(None)
}

fn read_devices(
    mut messages: &[u8],
    family: u16,
    support: &mut BTreeMap<u32, bool>,
) -> Result<Option<()>> {
    while let Some((kind, body)) = next(&mut messages)? {
        match kind {
            DONE | ERROR => return ended(body, &[]).map(Some),
            _ if kind == family => {
                let value = |wanted: u16| {
                    let mut all = attributes(body);
                    Some(all.find(|&(kind, _)| kind == wanted)?.1)
                };
                let index = value(INDEX).and_then(first::<u32>);
                let features = value(FEATURES).and_then(first::<u64>);
                if let (Some(index), Some(features)) = (index, features) {
                    support.insert(index, features & TRANSMITS != 0);
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether the answer is complete; some errors are as good.
fn ended(body: &[u8], fine: &[Errno]) -> Result<()> {
    let number: i32 = first(body).unwrap_or(0);
    if number == 0 {
        return Ok(());
    }
    match Errno::from_raw_os_error(number.saturating_neg()) {
        error if fine.contains(&error) => Ok(()),
        error => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY_NAME: u16 = 2;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut attribute = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    #[test]
    fn the_family_is_asked_for_by_its_name() {
        assert_eq!(&NETDEV[..], attribute(FAMILY_NAME, b"netdev\0"));
    }

    #[test]
    fn a_family_that_is_not_there_has_no_number() {
        let mut family = None;
        let answer = question(CONTROL, 0, GET_FAMILY, &attribute(FAMILY_ID, &[0x21, 0]));
        assert_eq!(read_family(&answer, &mut family).unwrap(), None);
        assert_eq!(family, Some(u16::from_ne_bytes([0x21, 0])));
        let missing = message(ERROR, 0, &(-2_i32).to_ne_bytes());
        assert_eq!(read_family(&missing, &mut None).unwrap(), Some(()));
        let forbidden = message(ERROR, 0, &(-1_i32).to_ne_bytes());
        read_family(&forbidden, &mut None).unwrap_err();
    }

    #[test]
    fn an_interface_takes_frames_if_its_driver_transmits_them() {
        let device = |index: u32, features: u64| {
            let attributes = [
                attribute(INDEX, &index.to_ne_bytes()),
                attribute(FEATURES, &features.to_ne_bytes()),
            ];
            question(0x21, 0, GET_DEVICES, &attributes.concat())
        };
        let mut support = BTreeMap::new();
        let messages = [device(1, 0), device(2, 0x7f), device(3, 0x7b)].concat();
        assert_eq!(read_devices(&messages, 0x21, &mut support).unwrap(), None);
        assert_eq!(support, [(1, false), (2, true), (3, false)].into());
        let done = message(DONE, 0, &[0; 4]);
        assert_eq!(read_devices(&done, 0x21, &mut support).unwrap(), Some(()));
        for length in 1..messages.len() {
            let _ = read_devices(&messages[..length], 0x21, &mut BTreeMap::new());
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
