//! What a socket lookup costs.

use std::{fmt::Write as _, net::TcpListener, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramFd, SkLookup},
};
use portdemux::{
    dataplane::{objects, steering},
    syscalls,
};
use portdemux_tests::netns::Netns;
use serde::Serialize;

use super::{programs::Bench, statistics::Spread};

/// The cost of a lookup under some rules, in nanoseconds over an empty program, which ran in the same
/// rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    rules: &'static str,
    lookup: &'static str,
    over_empty: Spread,
}

/// What comes in for a port; `struct bpf_sk_lookup` (Linux `include/uapi/linux/bpf.h`).
fn context(is_v6: bool, port: u16) -> Vec<u8> {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const TCP: u32 = 6;
    let (remote, local) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let mut remote_v6 = [0_u8; 16];
    remote_v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let mut local_v6 = remote_v6;
    (remote_v6[15], local_v6[15]) = (1, 2);
    let family = if is_v6 { AF_INET6 } else { AF_INET };
    let v4 = |address: [u8; 4]| if is_v6 { [0; 4] } else { address };
    let v6 = |address: [u8; 16]| if is_v6 { address } else { [0; 16] };
    let no_cookie = [0; 8];
    let no_interface = [0; 4];
    let fields: [&[u8]; 12] = [
        &no_cookie,
        &family.to_ne_bytes(),
        &TCP.to_ne_bytes(),
        &v4(remote),
        &v6(remote_v6),
        &40_000_u16.to_be_bytes(),
        &[0; 2],
        &v4(local),
        &v6(local_v6),
        &u32::from(port).to_ne_bytes(),
        &no_interface,
        // Up to a multiple of 8.
        &[0; 4],
    ];
    fields.concat()
}

const RULES: [(&str, Option<&str>); 4] = [
    ("no rule", None),
    ("1 port", Some("\"443/tcp\"")),
    ("1,000 ports", Some("\"443-1442/tcp\"")),
    ("all ports", Some("\"0-65535/tcp\"")),
];

/// Measures lookups of a port that a rule hands to a socket, and of one that none does.
///
/// In a network namespace of its own, whose lookups the program is attached to.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let namespace = Netns::new("bench")?;
    namespace.enter(|| {
        let _listener = TcpListener::bind("[::]:8080")?;
        let bench = Bench::new()?;
        let mut rows = Vec::new();
        for (name, ports) in RULES {
            let rule = ports.map(|ports| {
                format!("[[rule]]\nname = \"web\"\nport = {ports}\nto = \"socket:[::1]:8080\"\n")
            });
            let text = rule.unwrap_or_else(|| "# none\n".into());
            bench.change_text(name, text)?;
            let lookups = [
                ("IPv4", false, 443),
                ("IPv6", true, 443),
                ("other", false, 442),
            ];
            for (lookup, is_v6, port) in lookups {
                let context = context(is_v6, port);
                let empty = load(baseline()?, "empty_lookup")?;
                let ours = load(steering::load(&bench.writer.maps)?, steering::LOOK)?;
                let mut samples = [Vec::new(), Vec::new()];
                for program in [&empty, &ours] {
                    time(program, &context, repeat)?;
                }
                for _ in 0..rounds {
                    for (program, samples) in [&empty, &ours].into_iter().zip(&mut samples) {
                        samples.push(time(program, &context, repeat)?);
                    }
                }
                let [empty, ours] = samples;
                rows.push(Row {
                    rules: name,
                    lookup,
                    over_empty: Spread::of_differences(&ours, &empty),
                });
            }
        }
        Ok(rows)
    })
}

struct Loaded {
    program: ProgramFd,
    _object: Ebpf,
}

fn baseline() -> Result<Ebpf> {
    Ok(EbpfLoader::new().load(objects::BASELINE)?)
}

fn load(mut object: Ebpf, name: &str) -> Result<Loaded> {
    let program: &mut SkLookup = object
        .program_mut(name)
        .with_context(|| name.to_owned())?
        .try_into()?;
    program.load()?;
    Ok(Loaded {
        program: program.fd()?.try_clone()?,
        _object: object,
    })
}

fn time(program: &Loaded, context: &[u8], repeat: u32) -> Result<f64> {
    /// `SK_PASS`.
    const PASS: u32 = 1;
    let ran = syscalls::run_lookup(program.program.as_fd(), context, repeat)
        .context("run the program")?;
    ensure!(ran.result == PASS, "a lookup was refused");
    Ok(f64::from(ran.nanoseconds))
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<12}  {:<6}  {:>22}\n",
        "SOCKET RULES", "LOOKUP", "PORTDEMUX - EMPTY, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<12}  {:<6}  {:>22}",
            row.rules, row.lookup, row.over_empty
        );
    }
    text
}
