//! By which interfaces the packets of a connection arrive.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteType},
};

use super::{addresses, answers, kind, links};
use crate::netlink::Asked;

/// What the kernel says about the way of a connection's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// They do not end in this network namespace.
    Elsewhere,
    /// They arrive by one of the interfaces with these indices, or by one below those.
    By(BTreeSet<u32>),
    /// By which interface cannot be said: the address belongs to none that receives.
    Anyhow,
}

/// An interface and those it stands on.
pub(super) struct LinkLayer {
    pub(super) index: u32,
    pub(super) name: String,
    /// Whether nothing comes in by it from another host: loopback, dummy.
    pub(super) is_inward: bool,
    /// Whether it is up and has a carrier: packets can come in by it.
    pub(super) is_up: bool,
    pub(super) below: Option<u32>,
    pub(super) above: Option<u32>,
}

/// Says where packets from `peer` for the address `local` of this host arrive.
///
/// `scope` is the interface that a link-local address was written with, by its name or its index.
/// Both the interfaces that have the address and the one towards the peer count: which of them it is
/// depends on the routes of others. Of a bond, a bridge or a VLAN, the interfaces below belong to it,
/// as that is where a frame is seen first.
///
/// # Errors
///
/// The kernel does not answer.
pub fn arrival(local: IpAddr, peer: IpAddr, scope: Option<&str>) -> Result<Arrival> {
    let both = || Ok((links()?, owners(local)?));
    let (layers, owners): (Vec<LinkMessage>, BTreeSet<u32>) =
        both().map_err(|error: anyhow::Error| {
            error.context("ask which interface the session comes in by")
        })?;
    let layers: Vec<LinkLayer> = layers.iter().map(layer).collect();
    let scoped = scope.and_then(|scope| {
        let mut layers = layers.iter();
        layers.find(|layer| layer.name == scope || layer.index.to_string() == scope)
    });
    let found = match (scoped, route(local, peer)) {
        (Some(scoped), _) => BTreeSet::from([scoped.index]),
        _ if owners.is_empty() => return Ok(Arrival::Elsewhere),
        // The peer is this host itself.
        (None, Some((index, true))) => BTreeSet::from([index]),
        (None, towards) => {
            let is_inward = |index: &u32| {
                let mut layers = layers.iter();
                layers.any(|layer| layer.index == *index && layer.is_inward)
            };
            if owners.iter().all(is_inward) && !local.is_loopback() {
                return Ok(Arrival::Anyhow);
            }
            let towards = towards.map(|(index, _)| index);
            owners.into_iter().chain(towards).collect()
        }
    };
    Ok(Arrival::By(with_those_below(&layers, found)))
}

/// The interfaces that have an address.
fn owners(address: IpAddr) -> Result<BTreeSet<u32>> {
    let messages = addresses()?.into_iter();
    let owning = messages.filter(|message| {
        message.attributes.iter().any(|attribute| {
            // Of a point-to-point link, the address is the other end's and this one's is local.
            matches!(attribute, AddressAttribute::Local(own) | AddressAttribute::Address(own)
                if *own == address)
        })
    });
    Ok(owning.map(|message| message.header.index).collect())
}

/// The interface by which packets leave for the peer, and whether the peer is this host.
fn route(local: IpAddr, peer: IpAddr) -> Option<(u32, bool)> {
    let mut question = RouteMessage::default();
    let (family, length) = match (local, peer) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (AddressFamily::Inet, 32),
        (IpAddr::V6(_), IpAddr::V6(_)) => (AddressFamily::Inet6, 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    question.header.address_family = family;
    question.header.source_prefix_length = length;
    question.header.destination_prefix_length = length;
    question.attributes = vec![
        RouteAttribute::Source(local.into()),
        RouteAttribute::Destination(peer.into()),
    ];
    let question = RouteNetlinkMessage::GetRoute(question);
    let routes = answers(Asked::One, question, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            return Some(route);
        }
        None
    });
    let answer = routes.ok()?.into_iter().next()?;
    let interface = answer.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute {
            Some(*index)
        } else {
            None
        }
    })?;
    Some((interface, answer.header.kind == RouteType::Local))
}

pub(super) fn layer(message: &LinkMessage) -> LinkLayer {
    let mut layer = LinkLayer {
        index: message.header.index,
        name: String::new(),
        is_inward: message.header.flags.contains(LinkFlags::Loopback),
        is_up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp),
        below: None,
        above: None,
    };
    let (mut below, mut made_as, mut is_across) = (None, None, false);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            layer.name.clone_from(name);
        } else if let LinkAttribute::Link(index) = attribute {
            below = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            // That index is one of another namespace.
            is_across = true;
        } else if let LinkAttribute::Controller(index) = attribute {
            layer.above = Some(*index);
        } else if let LinkAttribute::LinkInfo(details) = attribute {
            made_as = details.iter().find_map(kind);
        }
    }
    layer.is_inward |= made_as.as_deref() == Some("dummy");
    // What a tunnel stands on sees other packets; these hand on the same ones.
    let is_transparent = made_as.is_some_and(|kind| {
        ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"].contains(&kind.as_str())
    });
    layer.below = below.filter(|_| is_transparent && !is_across);
    layer
}

pub(super) fn with_those_below(layers: &[LinkLayer], mut found: BTreeSet<u32>) -> BTreeSet<u32> {
    loop {
        let below: Vec<u32> = layers
            .iter()
            .flat_map(|layer| {
                let stands_on = layer.below.filter(|_| found.contains(&layer.index));
                let is_part = layer.above.is_some_and(|above| found.contains(&above));
                stands_on.into_iter().chain(is_part.then_some(layer.index))
            })
            .filter(|index| !found.contains(index))
            .collect();
        if below.is_empty() {
            return found;
        }
        found.extend(below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn a_layer(index: u32, below: Option<u32>, above: Option<u32>) -> LinkLayer {
        LinkLayer {
            index,
            name: String::new(),
            is_inward: false,
            is_up: true,
            below,
            above,
        }
    }

    #[test]
    fn what_stands_below_is_found_through_several_layers() {
        // A VLAN (5) on a bond (4) of two cards (2, 3), and a card that has nothing to do with it.
        let layers = [
            a_layer(2, None, Some(4)),
            a_layer(3, None, Some(4)),
            a_layer(4, None, None),
            a_layer(5, Some(4), None),
            a_layer(6, None, None),
        ];
        let found = with_those_below(&layers, BTreeSet::from([5]));
        assert_eq!(found, BTreeSet::from([2, 3, 4, 5]));
        let found = with_those_below(&layers, BTreeSet::from([6]));
        assert_eq!(found, BTreeSet::from([6]));
    }
}
