//! For which addresses packets come by some interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::{
    addresses,
    arrival::{LinkLayer, layer, with_those_below},
    links,
};

/// Addresses and interfaces of this host, by whether packets for them come by interfaces that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The watched interfaces and those that stand on them: VLANs, bonds, bridges.
    pub interfaces: BTreeSet<u32>,
    /// Their addresses, and those that belong to no interface that receives, as of `dummy`.
    pub addresses: BTreeSet<IpAddr>,
    /// The addresses of other interfaces, and which those are.
    pub elsewhere: BTreeMap<IpAddr, u32>,
    /// The interfaces, watched or not, that packets can come in by as things are: loopback is none.
    pub receiving: BTreeSet<u32>,
    /// The names of all interfaces.
    pub names: BTreeMap<u32, String>,
}

/// Says for which addresses of this host packets come by these interfaces. Loopback addresses are left out.
///
/// # Errors
///
/// The kernel does not answer.
pub fn watched(interfaces: &BTreeSet<u32>) -> Result<Watched> {
    let both = || Ok((links()?, addresses()?));
    let (links, addresses): (Vec<_>, Vec<_>) =
        both().map_err(|error: anyhow::Error| error.context("list the addresses of this host"))?;
    let layers: Vec<LinkLayer> = links.iter().map(layer).collect();
    let addresses = addresses.iter().filter_map(owned);
    Ok(sorted(interfaces, layers, addresses))
}

fn owned(message: &AddressMessage) -> Option<(IpAddr, u32)> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(own) = attribute {
            local = Some(*own);
        } else if let AddressAttribute::Address(own) = attribute {
            address = Some(*own);
        }
    }
    // Of a point-to-point link, the address is the other end's and this one's is local.
    Some((local.or(address)?, message.header.index))
}

fn sorted(
    interfaces: &BTreeSet<u32>,
    layers: Vec<LinkLayer>,
    addresses: impl Iterator<Item = (IpAddr, u32)>,
) -> Watched {
    let stands_on_them = |layer: &&LinkLayer| {
        let below = with_those_below(&layers, BTreeSet::from([layer.index]));
        !below.is_disjoint(interfaces)
    };
    let inward: BTreeSet<u32> = layers
        .iter()
        .filter(|layer| layer.is_inward)
        .map(|layer| layer.index)
        .collect();
    let mut watched = Watched {
        interfaces: layers
            .iter()
            .filter(stands_on_them)
            .map(|layer| layer.index)
            .collect(),
        ..Watched::default()
    };
    for (address, index) in addresses.filter(|(address, _)| !address.is_loopback()) {
        let is_watched = watched.interfaces.contains(&index);
        // What is sent to an address of `dummy` comes in by any of the others.
        if is_watched || inward.contains(&index) && !watched.interfaces.is_empty() {
            watched.addresses.insert(address);
        } else {
            watched.elsewhere.insert(address, index);
        }
    }
    // Link-local addresses may be the same on several.
    watched
        .elsewhere
        .retain(|address, _| !watched.addresses.contains(address));
    let receiving = layers
        .iter()
        .filter(|layer| layer.is_up && !layer.is_inward);
    watched.receiving = receiving.map(|layer| layer.index).collect();
    watched.names = layers
        .into_iter()
        .map(|layer| (layer.index, layer.name))
        .collect();
    watched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_what_stands_on_an_interface() {
        let layer = |index, name: &str, is_inward, below| LinkLayer {
            index,
            name: name.into(),
            is_inward,
            is_up: index != 3,
            below,
            above: None,
        };
        let layers = vec![
            layer(1, "lo", true, None),
            layer(2, "eth0", false, None),
            layer(3, "eth1", false, None),
            layer(4, "eth0.7", false, Some(2)),
            layer(5, "service", true, None),
        ];
        let addresses = [
            ("127.0.0.1", 1),
            ("198.51.100.1", 1),
            ("192.0.2.1", 2),
            ("fe80::1", 2),
            ("fe80::1", 3),
            ("203.0.113.1", 3),
            ("192.0.2.129", 4),
            ("198.51.100.9", 5),
        ];
        let addresses = addresses.map(|(address, index)| (address.parse().unwrap(), index));
        let found = sorted(&BTreeSet::from([2]), layers, addresses.into_iter());
        assert_eq!(found.interfaces, BTreeSet::from([2, 4]));
        let watched = [
            "192.0.2.1",
            "192.0.2.129",
            "198.51.100.1",
            "198.51.100.9",
            "fe80::1",
        ];
        let watched = watched.map(|address| address.parse().unwrap());
        assert_eq!(found.addresses, BTreeSet::from(watched));
        let elsewhere = BTreeMap::from([("203.0.113.1".parse().unwrap(), 3)]);
        assert_eq!(found.elsewhere, elsewhere);
        assert_eq!(found.receiving, BTreeSet::from([2, 4]));
        assert_eq!(found.names[&4], "eth0.7");
    }

    #[test]
    fn without_interfaces_nothing_is_watched() {
        let layers = vec![LinkLayer {
            index: 5,
            name: "service".into(),
            is_inward: true,
            is_up: true,
            below: None,
            above: None,
        }];
        let address = ("198.51.100.9".parse().unwrap(), 5);
        let found = sorted(&BTreeSet::new(), layers, [address].into_iter());
        assert!(found.interfaces.is_empty() && found.addresses.is_empty());
        assert_eq!(found.elsewhere.len(), 1);
    }
}
