//! What a packet costs where flows are tracked.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, ensure};
use portdemux::{
    dataplane::tracking::{self, WantedFlows},
    sockets,
};
use portdemux_common::conntrack::{Status, Tuple};
use portdemux_tests::frames::{self, CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6, With as _};
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, Draw, Program, Rules},
    sources::mix,
    statistics::Spread,
};

/// How many flows are remembered besides, at most.
const MOST: u32 = 1 << 20;
/// The port of this host that its flows are of, one that has none, and one that a rule claims.
const OURS: u16 = 40_000;
const UNCLAIMED: u16 = 40_001;
const CLAIMED: u16 = 22;
/// The port of the peers.
const THEIRS: u16 = 443;
/// Numbers that no flow's peer is drawn from begin here.
const STRANGERS: u32 = 1 << 30;

/// The cost of a packet in nanoseconds over an empty program, and over the program without flows under one
/// rule, which ran in the same rounds. On the way out there is none of that.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    packet: &'static str,
    frame: &'static str,
    /// `hot`: one flow again and again; `random`: another peer each time.
    peers: &'static str,
    flows: u32,
    over_empty: Spread,
    over_without_flows: Option<Spread>,
}

/// A kind of packet: its name, the port that it is for, and whether it is dropped.
type Kind = (&'static str, u16, bool);

const KINDS: [Kind; 3] = [
    ("established", OURS, false),
    ("new", CLAIMED, false),
    ("unmatched", UNCLAIMED, true),
];

/// Measures a packet of an established flow, one that begins a flow, and one that is dropped, with few
/// flows in the tables and with many.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let plain = Bench::new()?;
    plain.put_in_force(Rules::One)?;
    let mut rows = Vec::new();
    for flows in [1, 100_000, 1_000_000] {
        let bench = Bench::new()?;
        let wanted = WantedFlows {
            flows: MOST,
            half_open: 1 << 16,
            timeouts: Rules::timeouts()?,
        };
        tracking::begin(&bench.writer, &wanted)?;
        bench.put_in_force(Rules::Flows)?;
        remember(&bench, flows)?;
        for (packet, port, is_dropped) in KINDS {
            for (frame, is_v6) in [("TCP4", false), ("TCP6", true)] {
                let segment = frames::tcp(THEIRS, port);
                let bytes = if is_v6 {
                    frames::ipv6(segment).frame().bytes()
                } else {
                    frames::ipv4(segment).frame().bytes()
                };
                for peers in ["hot", "random"] {
                    let programs: [Program; 3] = match (peers, packet) {
                        // A flow begins once only.
                        ("hot", "new") => continue,
                        ("hot", _) => [
                            bench.baseline("empty", 0)?,
                            plain.dispatcher()?,
                            bench.flow_dispatcher()?,
                        ],
                        _ if packet == "established" && flows == 1 => continue,
                        _ => {
                            let draw = Draw {
                                is_v6,
                                first: if packet == "established" {
                                    0
                                } else {
                                    STRANGERS
                                },
                                count: if packet == "established" {
                                    flows.div_ceil(2)
                                } else {
                                    STRANGERS
                                },
                            };
                            [
                                bench.with_sources("empty_source", 0, draw)?,
                                plain.with_sources("portdemux_source", 0, draw)?,
                                bench.with_sources("flows_source", 0, draw)?,
                            ]
                        }
                    };
                    let [empty, without, with] = interleave(&programs, &bytes, rounds, repeat)?;
                    ensure!(
                        programs[2].drops(&bytes)? == is_dropped,
                        "a packet that is {packet} is not treated so"
                    );
                    rows.push(Row {
                        packet,
                        frame,
                        peers,
                        flows,
                        over_empty: Spread::of_differences(&with, &empty),
                        over_without_flows: Some(Spread::of_differences(&with, &without)),
                    });
                }
            }
        }
        rows.extend(sent(&bench, flows, rounds, repeat)?);
    }
    Ok(rows)
}

/// Measures a packet that this host sends on an established flow.
fn sent(bench: &Bench, flows: u32, rounds: usize, repeat: u32) -> Result<[Row; 2]> {
    let segment = || frames::tcp(OURS, THEIRS);
    let v4 = frames::ipv4(segment()).with(|ip| {
        (ip.source, ip.destination) = (SERVER_V4, CLIENT_V4);
    });
    let v6 = frames::ipv6(segment()).with(|ip| {
        (ip.source, ip.destination) = (SERVER_V6, CLIENT_V6);
    });
    let row = |frame, bytes: &[u8]| {
        let programs = [bench.baseline("empty_sent", 0)?, bench.egress()?];
        let [empty, egress] = interleave(&programs, bytes, rounds, repeat)?;
        anyhow::Ok(Row {
            packet: "sent",
            frame,
            peers: "hot",
            flows,
            over_empty: Spread::of_differences(&egress, &empty),
            over_without_flows: None,
        })
    };
    Ok([
        row("TCP4", &v4.frame().bytes())?,
        row("TCP6", &v6.frame().bytes())?,
    ])
}

/// Fills the table with flows of peers that the programs draw, and the one that is measured by itself.
fn remember(bench: &Bench, count: u32) -> Result<()> {
    let tables = bench.writer.maps.flows()?.context("there are no tables")?;
    let until = portdemux::maps::flows::now().wrapping_add(1 << 20);
    let mut missing = 0;
    for is_v6 in [false, true] {
        let (local, client): (IpAddr, IpAddr) = if is_v6 {
            (SERVER_V6.into(), CLIENT_V6.into())
        } else {
            (SERVER_V4.into(), CLIENT_V4.into())
        };
        let drawn = (0..count.div_ceil(2)).map(|number| drawn(number, is_v6));
        for remote in drawn.chain([client]) {
            let key = Tuple::new(
                (sockets::words(local), OURS.to_be_bytes()),
                (sockets::words(remote), THEIRS.to_be_bytes()),
                6,
                if is_v6 { 6 } else { 4 },
            );
            missing += u32::from(!tables.remember(&key, Status::established(true), until));
        }
    }
    // A few find their bucket full.
    ensure!(missing <= count / 100, "{missing} flows have no room");
    Ok(())
}

/// The peer that the programs make of a number.
fn drawn(number: u32, is_v6: bool) -> IpAddr {
    let bits = mix(number);
    if is_v6 {
        let high = bits & 0x1fff_ffff_ffff_ffff | 0x2000_0000_0000_0000;
        let low = CLIENT_V6.to_bits() & u128::from(u64::MAX);
        return Ipv6Addr::from_bits(u128::from(high) << 64 | low).into();
    }
    let [a, b, c, d, ..] = bits.to_le_bytes();
    let low = u32::from_le_bytes([a, b, c, d]);
    Ipv4Addr::from(low.to_ne_bytes()).into()
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}  {:<5}  {:<6}  {:>9}  {:>24}  {:>26}\n",
        "WITH FLOWS",
        "FRAME",
        "PEERS",
        "FLOWS",
        "PORTDEMUX - EMPTY, ns",
        "WITH - WITHOUT FLOWS, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16}  {:<5}  {:<6}  {:>9}  {:>24}  {:>26}",
            row.packet,
            row.frame,
            row.peers,
            row.flows,
            row.over_empty,
            row.over_without_flows
                .map_or_else(|| "–".into(), |over| over.to_string())
        );
    }
    text
}
