//! What the frames of a capture begin with.

use std::fmt;

/// A link-layer header type (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u16);

impl LinkType {
    /// Ethernet, the one that is read.
    pub const ETHERNET: Self = Self(1);

    /// Linux "cooked" captures, as of the device `any`.
    pub const LINUX_SLL: Self = Self(113);
    /// Linux "cooked" captures, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL",
            1 => "ETHERNET",
            6 => "IEEE802_5",
            8 => "SLIP",
            9 => "PPP",
            50 => "PPP_HDLC",
            51 => "PPP_ETHER",
            // 12 and 14 stand in files of systems whose own number for raw IP that is.
            12 | 14 | 101 => "RAW",
            104 => "C_HDLC",
            105 => "IEEE802_11",
            108 => "LOOP",
            113 => "LINUX_SLL",
            127 => "IEEE802_11_RADIOTAP",
            187 => "BLUETOOTH_HCI_H4",
            189 => "USB_LINUX",
            195 => "IEEE802_15_4_WITHFCS",
            201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
            220 => "USB_LINUX_MMAPPED",
            227 => "CAN_SOCKETCAN",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            247 => "INFINIBAND",
            249 => "USBPCAP",
            253 => "NETLINK",
            276 => "LINUX_SLL2",
            _ => return None,
        })
    }

    /// Whether such frames come of capturing on the device `any`.
    pub(super) const fn is_cooked(self) -> bool {
        matches!(self, Self::LINUX_SLL | Self::LINUX_SLL2)
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
