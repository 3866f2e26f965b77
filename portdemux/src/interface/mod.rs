//! Network interfaces: which there are, what runs on them, what they do to frames.

mod arrival;
mod changes;
mod offloads;
mod watched;
mod xmit_support;

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result};
pub use arrival::{Arrival, arrival};
pub use changes::Changes;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};
use netlink_sys::protocols::NETLINK_ROUTE;
pub use offloads::{Offloads, offloads};
pub use watched::{Watched, watched};
pub use xmit_support::xmit_support;

use crate::netlink::{self, Asked};

/// An interface of this process's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The longest packet it sends, in bytes.
    pub mtu: u32,
    /// What made it, as in `veth` or `virtio_net`, where that can be known.
    pub driver: Option<String>,
    /// Its MAC address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// Whether it is up.
    pub is_up: bool,
    /// Index of the interface of this network namespace that it is a VLAN of, if it is one.
    pub vlan_of: Option<u32>,
    /// The XDP programs on it.
    pub programs: Vec<AttachedProgram>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Its id.
    pub id: u32,
    /// Where it runs.
    pub hook: XdpHook,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpHook {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// In the network card.
    Offload,
}

impl XdpHook {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

/// Lists the interfaces of this process's network namespace.
///
/// # Errors
///
/// The kernel does not answer.
pub fn list() -> Result<Vec<Interface>> {
    let links = links().context("list the network interfaces")?;
    Ok(links.iter().map(read).collect())
}

/// What the kernel says about all interfaces.
fn links() -> Result<Vec<LinkMessage>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    answers(Asked::All, question, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            return Some(link);
        }
        None
    })
}

/// What the kernel says about all addresses.
fn addresses() -> Result<Vec<AddressMessage>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    answers(Asked::All, question, |answer| {
        if let RouteNetlinkMessage::NewAddress(address) = answer {
            return Some(address);
        }
        None
    })
}

/// What the kernel answers about interfaces, addresses and routes, of what is read by `read`.
fn answers<T>(
    asked: Asked,
    question: RouteNetlinkMessage,
    read: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>> {
    let answers = netlink::ask(NETLINK_ROUTE, asked, question)?;
    Ok(answers.into_iter().filter_map(read).collect())
}

/// Which network namespace this process is in: the inode number of its file.
///
/// # Errors
///
/// `/proc` is not mounted.
pub fn namespace() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path)
        .with_context(|| format!("read {path}"))?
        .ino())
}

fn read(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        driver: None,
        mac: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
        vlan_of: None,
        programs: Vec::new(),
    };
    let (mut below, mut is_across) = (None, false);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            interface.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            interface.mtu = *mtu;
        } else if let LinkAttribute::Address(address) = attribute {
            interface.mac = address.as_slice().try_into().ok();
        } else if let LinkAttribute::LinkInfo(details) = attribute {
            interface.driver = details.iter().find_map(kind);
        } else if let LinkAttribute::Link(index) = attribute {
            below = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            // That index is one of another namespace.
            is_across = true;
        } else if let LinkAttribute::Xdp(xdp) = attribute {
            interface.programs = programs(xdp);
        }
    }
    if interface.driver.as_deref() == Some("vlan") && !is_across {
        interface.vlan_of = below;
    }
    if interface.driver.is_none() {
        interface.driver = driver(&interface.name);
    }
    interface
}

fn kind(detail: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = detail {
        Some(kind.to_string())
    } else {
        None
    }
}

/// A card's driver, which only sysfs names. It shows the namespace that it was mounted in.
fn driver(name: &str) -> Option<String> {
    let link = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn programs(attributes: &[LinkXdp]) -> Vec<AttachedProgram> {
    let mut programs = Vec::new();
    let mut single = None;
    let mut hook = None;
    for attribute in attributes {
        if let LinkXdp::DrvProgId(id) = *attribute {
            programs.push(AttachedProgram {
                id,
                hook: XdpHook::Native,
            });
        } else if let LinkXdp::SkbProgId(id) = *attribute {
            programs.push(AttachedProgram {
                id,
                hook: XdpHook::Generic,
            });
        } else if let LinkXdp::HwProgId(id) = *attribute {
            programs.push(AttachedProgram {
                id,
                hook: XdpHook::Offload,
            });
        } else if let LinkXdp::ProgId(id) = *attribute {
            single = Some(id);
        } else if let LinkXdp::Attached(attached) = *attribute {
            hook = match attached {
                XdpAttached::Driver => Some(XdpHook::Native),
                XdpAttached::SocketBuffer => Some(XdpHook::Generic),
                XdpAttached::Hardware => Some(XdpHook::Offload),
                XdpAttached::None | XdpAttached::Multiple | XdpAttached::Other(_) | _ => None,
            };
        }
    }
    if programs.is_empty()
        && let (Some(id), Some(hook)) = (single, hook)
    {
        programs.push(AttachedProgram { id, hook });
    }
    programs
}
