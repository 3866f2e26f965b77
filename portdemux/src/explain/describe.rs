//! A frame in a few words: `tcp 198.51.100.7:52341 > 203.0.113.10:22`.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
};

use portdemux_common::{
    packet::Packet as _,
    parse::{self, Fragment, Parsed},
    wire::IpProto,
};

use super::{Explained, explained::ip_address};

impl Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "vlan ";
        for id in self.parsed.vlans.as_slice() {
            write!(f, "{before}{id}")?;
            before = ".";
        }
        if self.parsed.vlans.count > 0 {
            f.write_str(" ")?;
        }
        if self.parsed.version.is_none() {
            return self.write_link(f);
        }
        write_packet(f, self.bytes, &self.parsed)?;
        if let Some(quoted) = parse::parse_quoted(self.bytes, &self.parsed)
            && quoted.version.is_some()
        {
            f.write_str(" about ")?;
            write_packet(f, self.bytes, &quoted)?;
        }
        Ok(())
    }
}

impl Explained<'_> {
    /// A frame of which no IP header can be read.
    fn write_link(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = 12 + 4 * usize::from(self.parsed.vlans.count);
        let Some(bytes) = self.bytes.read::<2>(offset) else {
            return write!(f, "{} bytes", self.bytes.len());
        };
        match u16::from_be_bytes(bytes) {
            // IEEE 802.3 §3.2.6: up to 1,500 it is a length.
            length @ ..0x0600 => write!(f, "802.3 frame of {length} bytes"),
            0x0800 => f.write_str("ipv4"),
            0x0806 => f.write_str("arp"),
            0x86dd => f.write_str("ipv6"),
            0x8847 | 0x8848 => f.write_str("mpls"),
            0x8863 | 0x8864 => f.write_str("pppoe"),
            0x888e => f.write_str("eapol"),
            0x88cc => f.write_str("lldp"),
            other => write!(f, "ethertype 0x{other:04x}"),
        }
    }
}

fn write_packet(f: &mut fmt::Formatter<'_>, bytes: &[u8], parsed: &Parsed) -> fmt::Result {
    write_protocol(f, parsed.protocol)?;
    f.write_str(match parsed.fragment {
        Fragment::None => " ",
        Fragment::First => " first fragment ",
        Fragment::Later => " later fragment ",
    })?;
    let addresses = (parsed.source(bytes), parsed.destination(bytes));
    let (Some(source), Some(destination)) = addresses else {
        return f.write_str("?");
    };
    let (source, destination) = (ip_address(source), ip_address(destination));
    match parsed.ports() {
        Some(ports) => {
            let source = SocketAddr::new(source, ports.source.number());
            let destination = SocketAddr::new(destination, ports.destination.number());
            write!(f, "{source} > {destination}")
        }
        None => write!(f, "{source} > {destination}"),
    }
}

fn write_protocol(f: &mut fmt::Formatter<'_>, protocol: IpProto) -> fmt::Result {
    let name = match protocol.0 {
        0 => "hop-by-hop options",
        1 => "icmp",
        2 => "igmp",
        4 => "ipv4 tunnel",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6 tunnel",
        43 => "routing header",
        44 => "fragment header",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        59 => "no next header",
        60 => "destination options",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        other => return write!(f, "protocol {other}"),
    };
    f.write_str(name)
}
