//! What the kernel and the control plane of portdemux agree on.
//!
//! The whole decision about a packet is a pure function here, free of `unsafe` and of any BPF
//! interface: [`parse::parse`] reads a frame, [`decide`] looks its destination up in a ruleset, and
//! [`pipeline`] says what comes after what. The XDP program runs this code on the frame it was handed; `explain`,
//! the tests and the fuzzers run it on slices.
//!
//! Everything that lies in a BPF map ([`ruleset`], [`counters`], [`trace`], [`state`]) is plain old
//! data without padding. A change of any such layout changes [`ABI`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod blocks;
pub mod bucket;
pub mod capacity;
pub mod conntrack;
pub mod counters;
pub mod decide;
pub mod decision;
pub mod destination;
pub mod entry;
pub mod fragments;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod memory;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod policy;
pub mod reason;
pub mod redirect_drops;
pub mod reject;
pub mod ruleset;
pub mod sockets;
pub mod sources;
pub mod state;
pub mod target;
pub mod trace;
pub mod wire;

/// Number of the layout of everything pinned in bpffs; part of the pin path.
pub const ABI: u32 = if cfg!(feature = "next-layout") { 10 } else { 9 };
