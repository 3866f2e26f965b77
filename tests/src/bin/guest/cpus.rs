//! What an instance takes by how many CPUs the machine can have, and what CPUs count that come later.

use std::{fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use portdemux_tests::{
    cli::Portdemux,
    frames::{ipv4, udp},
    lab::{INTERFACE, Lab},
    wait::{PATIENCE, wait_until},
};

/// The ports to which packets come, more than a CPU has blocks of counters for.
const PORTS: std::ops::Range<u16> = 1..65_535;

pub(crate) fn run() -> Result<()> {
    let possible = aya::util::nr_cpus().map_err(|(_, error)| error)? as u64;
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "native"])?;
    let without = memory(&portdemux)?;
    // On 2 CPUs 32 MiB, with 64 that there can be 94, with 128 158.
    ensure!(
        without <= (30 + possible) << 20,
        "{without} bytes with {possible} possible CPUs"
    );
    let mut cpus: Vec<usize> = (0..2).collect();
    let mut sent = 0;
    for &cpu in &cpus {
        sent += scan(&lab, cpu)?;
    }
    counted(&portdemux, sent, cpus.len() as u64)?;
    if possible > 2 {
        let later = cpus.len();
        come_online(later)?;
        cpus.push(later);
        let before = handled_by(later)?;
        sent += scan(&lab, later)?;
        ensure!(
            handled_by(later)? > before,
            "CPU {later} has handled no packet"
        );
        counted(&portdemux, sent, cpus.len() as u64)?;
    }
    let after = memory(&portdemux)?;
    ensure!(after == without, "{without} bytes became {after}");
    let rules = portdemux.rules_file("[default]\ninbound = \"drop\"\n[flows]\n")?;
    portdemux.ok(&["apply", &rules.display().to_string()])?;
    let with_flows = memory(&portdemux)?;
    ensure!(
        with_flows - without <= 32 << 20,
        "flows take {} bytes",
        with_flows - without
    );
    portdemux.ok(&["detach", "--all"])?;
    Ok(())
}

fn memory(portdemux: &Portdemux) -> Result<u64> {
    let status = portdemux.json(&["status"])?;
    status["kernel_memory_bytes"]
        .as_u64()
        .context("status does not say how much memory the instance takes")
}

/// Sends a packet to each port from a CPU, which handles them too; returns how many.
fn scan(lab: &Lab, cpu: usize) -> Result<u64> {
    let socket = lab.client_socket()?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let mut only = CpuSet::new();
            only.set(cpu)?;
            sched_setaffinity(Pid::from_raw(0), &only)
                .with_context(|| format!("go to CPU {cpu}"))?;
            for port in PORTS {
                socket.send_when_there_is_room(&ipv4(udp(40_000, port)).frame().bytes())?;
            }
            Ok(())
        });
        sender.join().expect("a sender does not panic")
    })?;
    Ok(PORTS.len() as u64)
}

/// Waits until as many packets are counted, of them as many for each port.
fn counted(portdemux: &Portdemux, sent: u64, each: u64) -> Result<()> {
    wait_until("all packets", PATIENCE, || {
        Ok(portdemux.stats()?.interface(INTERFACE)?.received.packets >= sent)
    })?;
    let stats = portdemux.stats()?;
    let received = stats.interface(INTERFACE)?.received.packets;
    ensure!(received == sent, "{received} of {sent} packets are counted");
    for port in [PORTS.start, 443, 30_000, PORTS.end - 1] {
        let received = stats.port(&format!("{port}/udp"))?.received.packets;
        ensure!(received == each, "{received} of {each} for port {port}");
    }
    Ok(())
}

fn come_online(cpu: usize) -> Result<()> {
    let online = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
    let state =
        fs::read_to_string(&online).with_context(|| format!("read {}", online.display()))?;
    ensure!(state.trim() == "0", "CPU {cpu} is online already");
    fs::write(&online, "1").with_context(|| format!("bring CPU {cpu} online"))
}

/// How many packets a CPU has handled (`/proc/net/softnet_stat`: a line for each that is online, packets first, its
/// number 13th).
fn handled_by(cpu: usize) -> Result<u64> {
    let table = fs::read_to_string("/proc/net/softnet_stat").context("read softnet_stat")?;
    let number = |text: Option<&&str>| {
        text.and_then(|text| u64::from_str_radix(text, 16).ok())
            .context("softnet_stat has another form")
    };
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if number(words.get(12))? == cpu as u64 {
            return number(words.first());
        }
    }
    Ok(0)
}
