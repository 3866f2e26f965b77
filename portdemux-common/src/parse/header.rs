//! Headers as they stand in the packet: every field the bytes it has there, big-endian.
//!
//! A field of two bytes is one load in the program only if it is never taken apart into two.

use bytemuck::{Pod, Zeroable};

/// The start of an IPv4 header, without options (RFC 791 §3.1).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ipv4 {
    pub(super) version_ihl: u8,
    pub(super) service: u8,
    pub(super) total_length: [u8; 2],
    pub(super) identification: [u8; 2],
    pub(super) fragment: [u8; 2],
    pub(super) time_to_live: u8,
    pub(super) protocol: u8,
    pub(super) checksum: [u8; 2],
    pub(super) source: [u8; 4],
    pub(super) destination: [u8; 4],
}

/// An IPv6 header (RFC 8200 §3).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ipv6 {
    pub(super) version: u8,
    pub(super) flow: [u8; 3],
    pub(super) payload_length: [u8; 2],
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
}

/// The start of an IPv6 extension header (RFC 8200 §4); `fragment` is that of a fragment header.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Extension {
    pub(super) next_header: u8,
    pub(super) length: u8,
    pub(super) fragment: [u8; 2],
}

/// The start of a TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tcp {
    pub(super) ports: PortBytes,
    pub(super) numbers: [[u8; 4]; 2],
    pub(super) data_offset: u8,
    pub(super) rest: [u8; 7],
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Udp {
    pub(super) ports: PortBytes,
    pub(super) length: [u8; 2],
    pub(super) checksum: [u8; 2],
}

/// An SCTP common header (RFC 9260 §3.1).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Sctp {
    pub(super) ports: PortBytes,
    pub(super) tag: [u8; 4],
    pub(super) checksum: [u8; 4],
}

/// What an ICMP error promises of a transport header (RFC 792).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Quoted {
    pub(super) ports: PortBytes,
    pub(super) rest: [u8; 4],
}

/// The ports with which every transport header begins.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PortBytes {
    pub(super) source: [u8; 2],
    pub(super) destination: [u8; 2],
}

/// A tag behind the `EtherType` that announces it, and the `EtherType` of what follows
/// (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tag {
    pub(super) control: [u8; 2],
    pub(super) ether_type: [u8; 2],
}

const _: () = {
    assert!(size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40 && size_of::<Extension>() == 4);
    assert!(size_of::<Tcp>() == 20 && size_of::<Udp>() == 8 && size_of::<Sctp>() == 12);
    assert!(size_of::<Quoted>() == 8 && size_of::<Tag>() == 4);
};
