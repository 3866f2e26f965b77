//! Pairs of virtual Ethernet interfaces on which nothing is heard but what a test sends.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};

use crate::{frames::Mac, netns::Netns};

/// Whether the senders leave work to hardware that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Frames on the wire are complete: checksums are there, segments are no longer than the MTU,
    /// VLAN tags are in the bytes.
    Off,
    /// What veth does by default: partial checksums, segments of up to 64 KiB, tags beside the
    /// bytes.
    On,
}

/// One end of a pair.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// The namespace it is in.
    pub namespace: &'a Netns,
    /// Its name there.
    pub name: &'a str,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, of either family.
    pub addresses: Vec<IpAddr>,
}

/// Makes a pair, gives both ends their addresses with prefixes of 24 and 64 bits, and lets each know
/// the other's for ever.
///
/// No end asks for neighbours, routers or whether an address is taken, nor tells anyone of groups
/// it joins. The pair is removed with either namespace.
///
/// # Errors
///
/// With what `ip` or `ethtool` said.
pub fn connect(one: &End, other: &End, mtu: u32, offloads: Offloads) -> Result<()> {
    let mtu = mtu.to_string();
    one.namespace.ip(&[
        "link",
        "add",
        one.name,
        "mtu",
        &mtu,
        "address",
        &text(one.mac),
        "type",
        "veth",
        "peer",
        "name",
        other.name,
        "mtu",
        &mtu,
        "address",
        &text(other.mac),
        "netns",
        other.namespace.name(),
    ])?;
    for end in [one, other] {
        be_quiet(end)?;
        if offloads == Offloads::Off {
            turn_offloads_off(end.namespace, end.name)?;
        }
        end.namespace.ip(&["link", "set", end.name, "up"])?;
    }
    for (end, peer) in [(one, other), (other, one)] {
        for &address in &end.addresses {
            add_address(end.namespace, end.name, address)?;
            add_neighbour(peer.namespace, peer.name, address, end.mac)?;
        }
    }
    Ok(())
}

/// Gives an interface an address that can be used at once.
///
/// # Errors
///
/// With what `ip` said.
pub fn add_address(namespace: &Netns, interface: &str, address: IpAddr) -> Result<()> {
    let (length, flags): (u8, &[&str]) = match address {
        IpAddr::V4(_) => (24, &[]),
        IpAddr::V6(_) => (64, &["nodad"]),
    };
    let address = format!("{address}/{length}");
    namespace.ip(&[&["address", "add", &address, "dev", interface], flags].concat())?;
    Ok(())
}

/// Tells an interface for ever which MAC address an address has.
///
/// # Errors
///
/// With what `ip` said.
pub fn add_neighbour(namespace: &Netns, interface: &str, address: IpAddr, mac: Mac) -> Result<()> {
    let (address, mac) = (address.to_string(), text(mac));
    namespace.ip(&[
        "neighbour",
        "replace",
        &address,
        "lladdr",
        &mac,
        "dev",
        interface,
        "nud",
        "permanent",
    ])?;
    Ok(())
}

/// Makes the stack behind an interface send complete frames.
///
/// # Errors
///
/// With what `ethtool` said.
pub fn turn_offloads_off(namespace: &Netns, interface: &str) -> Result<()> {
    let features = ["tx", "tso", "gso", "gro", "txvlan", "rxvlan"];
    let settings: Vec<_> = features
        .iter()
        .flat_map(|feature| [*feature, "off"])
        .collect();
    namespace
        .run(
            "ethtool",
            &[&["-K", interface], settings.as_slice()].concat(),
        )?
        .success()?;
    Ok(())
}

/// An interface without ARP joins no solicited-node groups, and so reports none (Linux 6.18,
/// `net/ipv6/addrconf.c`, `addrconf_join_solict`).
fn be_quiet(end: &End) -> Result<()> {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(end.name);
    end.namespace.enter(|| {
        // Without a link-local address there is no router to ask and nothing to say.
        for (name, value) in [
            ("accept_ra", "0"),
            ("addr_gen_mode", "1"),
            ("autoconf", "0"),
        ] {
            let file = directory.join(name);
            fs::write(&file, value).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    })?;
    end.namespace.ip(&["link", "set", end.name, "arp", "off"])?;
    Ok(())
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
