//! What a packet costs that is handed to an interface or to another CPU.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use portdemux::interface;
use portdemux_tests::frames;
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, OneTarget},
    statistics::Spread,
};

/// The cost of a packet up to the moment at which its program has said where it goes, in nanoseconds over an
/// empty program, over the limit program, which lets it pass, and over a program that looks at nothing and
/// sends everything to the target; all in the same rounds. What the kernel does then is not in it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    to: &'static str,
    frame: &'static str,
    redirect_over_empty: Spread,
    over_empty: Spread,
    over_limit: Spread,
    over_redirect: Spread,
}

/// How many frames can wait for the CPU; none is sent.
const QUEUE: u32 = 2048;

/// Measures packets for 443, whose rule names a target. Frames are not really sent, so that any interface does.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let present = interface::list()?;
    let lo = present.iter().find(|interface| interface.name == "lo");
    let lo = OneTarget::Interface(lo.context("there is no interface lo")?.index);
    let cpu = OneTarget::Cpu { queue: QUEUE };
    let mac = "\nmac = \"02:00:5e:10:00:04\"";
    let kinds = [
        ("interface", "interface:lo", "", lo),
        ("interface, mac", "interface:lo", mac, lo),
        ("cpu", "cpu:0", "", cpu),
    ];
    let mut rows = Vec::new();
    for (name, to, more, minimal) in kinds {
        let bench = Bench::new()?;
        let text = format!("[[rule]]\nport = [\"443/tcp\", \"443/udp\"]\nto = \"{to}\"{more}\n");
        bench.put_text_in_force(name, &text)?;
        for (frame, bytes) in [
            (
                "TCP4",
                frames::ipv4(frames::tcp(40_000, 443)).frame().bytes(),
            ),
            (
                "TCP6",
                frames::ipv6(frames::tcp(40_000, 443)).frame().bytes(),
            ),
        ] {
            let programs = [
                bench.baseline("empty", 0)?,
                bench.baseline("limit", 0)?,
                bench.redirecting(minimal)?,
                bench.dispatcher()?,
            ];
            for program in programs.iter().skip(2) {
                ensure!(program.redirects(&bytes)?, "443 is not sent to {to}");
            }
            let [empty, limit, redirect, ours] = interleave(&programs, &bytes, rounds, repeat)?;
            rows.push(Row {
                to: name,
                frame,
                redirect_over_empty: Spread::of_differences(&redirect, &empty),
                over_empty: Spread::of_differences(&ours, &empty),
                over_limit: Spread::of_differences(&ours, &limit),
                over_redirect: Spread::of_differences(&ours, &redirect),
            });
        }
    }
    Ok(rows)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}  {:<5}  {:>20}  {:>22}  {:>22}  {:>24}\n",
        "TO",
        "FRAME",
        "REDIRECT - EMPTY, ns",
        "PORTDEMUX - EMPTY, ns",
        "PORTDEMUX - LIMIT, ns",
        "PORTDEMUX - REDIRECT, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<14}  {:<5}  {:>20}  {:>22}  {:>22}  {:>24}",
            row.to,
            row.frame,
            row.redirect_over_empty,
            row.over_empty,
            row.over_limit,
            row.over_redirect
        );
    }
    text
}
