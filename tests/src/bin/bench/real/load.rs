//! Real servers, and clients that ask as much of them as they can.

use std::{fs, io::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use portdemux_tests::{
    frames::SERVER_V4,
    lab::Lab,
    run::Running,
    server::{HOST, Server},
};
use serde_json::Value;
use tempfile::NamedTempFile;

/// The ports of the servers.
pub(super) const WEB: u16 = 80;
pub(super) const BULK: u16 = 5201;
pub(super) const NAMES: u16 = 53;

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// Requests to nginx, on 32 connections that stay.
    KeepAlive,
    /// The same with a connection for each.
    Connections,
    /// One stream of bytes to iperf3.
    Bulk,
    /// Queries to dnsmasq.
    Queries,
}

impl Load {
    pub(super) const ALL: [Self; 4] = [
        Self::KeepAlive,
        Self::Connections,
        Self::Bulk,
        Self::Queries,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Connections => "connections",
            Self::Bulk => "bulk TCP",
            Self::Queries => "DNS over UDP",
        }
    }

    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::KeepAlive | Self::Connections => "requests",
            Self::Bulk => "Mbit",
            Self::Queries => "queries",
        }
    }
}

/// The servers, and what their clients need.
pub(super) struct Servers<'a> {
    lab: &'a Lab,
    _running: [Server; 3],
    questions: NamedTempFile,
}

impl<'a> Servers<'a> {
    /// Starts the servers on the last CPU.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        stay_on(cpus - 1)?;
        let servers = [
            Server::nginx(&lab.server, WEB)?,
            Server::iperf3(&lab.server, BULK)?,
            Server::dnsmasq(&lab.server, NAMES)?,
        ];
        // A client that closes first keeps its ports for a minute.
        lab.client.enter(|| {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000")
                .context("give the client more ports")
        })?;
        let mut questions = NamedTempFile::new()?;
        writeln!(questions, "{HOST} A")?;
        Ok(Self {
            lab,
            _running: servers,
            questions,
        })
    }

    /// Runs a client on the first CPU for some seconds; returns what it reached in a second.
    pub(super) fn run(&self, load: Load, seconds: u32) -> Result<f64> {
        stay_on(0)?;
        let client = |program: &str, words: &[&str]| {
            let mut command = self.lab.client.command(program);
            command.args(words);
            output(command, seconds)
        };
        let server = SERVER_V4.to_string();
        let page = format!("http://{server}:{WEB}/");
        let (time, with_unit) = (seconds.to_string(), format!("-d{seconds}s"));
        match load {
            Load::KeepAlive => requests(&client("wrk", &["-t1", "-c32", &with_unit, &page])?),
            Load::Connections => {
                let close = ["-H", "Connection: close"];
                let words = [&["-t1", "-c32", &with_unit], &close[..], &[&page]].concat();
                requests(&client("wrk", &words)?)
            }
            Load::Bulk => {
                let port = BULK.to_string();
                let words = [
                    "--client", &server, "--port", &port, "--time", &time, "--json",
                ];
                let said: Value = serde_json::from_str(&client("iperf3", &words)?)?;
                let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
                Ok(bits.context("iperf3 does not say how much it sent")? / 1e6)
            }
            Load::Queries => {
                let port = NAMES.to_string();
                let questions = self.questions.path().display().to_string();
                let words = [
                    "-s", &server, "-p", &port, "-d", &questions, "-l", &time, "-c", "8", "-T", "1",
                ];
                let said = client("dnsperf", &words)?;
                after(&said, "Queries per second:")
            }
        }
    }
}

/// Requests per second by what wrk said, all of them answered.
fn requests(said: &str) -> Result<f64> {
    ensure!(!said.contains("Non-2xx"), "not all were answered:\n{said}");
    after(said, "Requests/sec:")
}

/// The number behind some words.
fn after(said: &str, words: &str) -> Result<f64> {
    let rest = said.split_once(words).map(|(_, rest)| rest.trim_start());
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    let number = number.with_context(|| format!("nothing was said of {words}\n{said}"))?;
    Ok(number.parse()?)
}

fn output(command: Command, seconds: u32) -> Result<String> {
    let time = Duration::from_secs(u64::from(seconds) + 20);
    Ok(Running::spawn(command)?.wait(time)?.success()?.stdout)
}

/// Keeps this process, and what it starts from now on, on one CPU.
fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    if cpus.set(cpu).is_err() {
        bail!("there is no CPU {cpu}");
    }
    sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on one CPU")
}
