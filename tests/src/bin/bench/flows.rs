//! What a packet costs where flows are tracked.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use portdemux::{
    dataplane::tracking::{self, Wanted},
    sockets,
};
use portdemux_common::flows::{FlowKey, State};
use portdemux_tests::frames::{self, CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6};
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, Rules},
    statistics::Spread,
};

/// How many flows are remembered besides, at most.
const MOST: u32 = 1 << 20;

/// The cost of a packet in nanoseconds over an empty program, and over the program without flows under one
/// rule, which ran in the same rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    packet: &'static str,
    frame: &'static str,
    flows: u32,
    over_empty: Spread,
    over_without_flows: Spread,
}

/// Measures a packet of an established flow, one that begins a flow, and one that is dropped, with few
/// flows in the tables and with many.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let plain = Bench::new()?;
    plain.put_in_force(Rules::One)?;
    let mut rows = Vec::new();
    for flows in [1, 100_000, 1_000_000] {
        let bench = Bench::new()?;
        let wanted = Wanted {
            flows: MOST,
            half_open: 1 << 16,
            timeouts: Rules::timeouts()?,
        };
        tracking::begin(&bench.places, &bench.maps, &bench.lock, &wanted)?;
        bench.put_in_force(Rules::Flows)?;
        remember(&bench, flows)?;
        for (packet, port) in [("established", 40_000), ("unmatched", 40_001)] {
            for (frame, bytes) in [
                ("TCP4", frames::ipv4(frames::tcp(443, port)).frame().bytes()),
                ("TCP6", frames::ipv6(frames::tcp(443, port)).frame().bytes()),
            ] {
                let programs = [
                    bench.baseline("empty", 0)?,
                    plain.dispatcher()?,
                    bench.flow_dispatcher()?,
                ];
                let [empty, without, with] = interleave(&programs, &bytes, rounds, repeat)?;
                ensure!(
                    programs[2].drops(&bytes)? == (packet == "unmatched"),
                    "a packet that is {packet} is not treated so"
                );
                rows.push(Row {
                    packet,
                    frame,
                    flows,
                    over_empty: Spread::of_differences(&with, &empty),
                    over_without_flows: Spread::of_differences(&with, &without),
                });
            }
        }
    }
    Ok(rows)
}

/// Fills the table with flows to other ports of the client, the one that is measured among them.
fn remember(bench: &Bench, count: u32) -> Result<()> {
    let tables = bench.maps.flows()?.context("there are no tables")?;
    let until = portdemux::dataplane::flows::now().wrapping_add(1 << 20);
    let ends: [(std::net::IpAddr, std::net::IpAddr, u8); 2] = [
        (SERVER_V4.into(), CLIENT_V4.into(), 4),
        (SERVER_V6.into(), CLIENT_V6.into(), 6),
    ];
    for (local, remote, version) in ends {
        for number in 0..count.div_ceil(2) {
            let local_port = 40_000_u16.wrapping_sub(u16::try_from(number >> 16)? * 2);
            let remote_port = 443_u16.wrapping_add((number & 0xffff) as u16);
            let key = FlowKey::new(
                (sockets::words(local), local_port.to_be_bytes()),
                (sockets::words(remote), remote_port.to_be_bytes()),
                6,
                version,
            );
            // A few find their bucket full.
            let _ = tables.remember(&key, State::established(true), until);
        }
    }
    Ok(())
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}  {:<5}  {:>9}  {:>22}  {:>26}\n",
        "WITH FLOWS", "FRAME", "FLOWS", "PORTDEMUX - EMPTY, ns", "WITH - WITHOUT FLOWS, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16}  {:<5}  {:>9}  {:>22}  {:>26}",
            row.packet, row.frame, row.flows, row.over_empty, row.over_without_flows
        );
    }
    text
}
