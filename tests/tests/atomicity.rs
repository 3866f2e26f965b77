//! While one ruleset takes the place of another, a packet meets the one or the other, never a mix.
//!
//! The two rulesets disagree about everything, and yet drop the same packets: each claims two ports,
//! one that it lets through at any address but drops at the server's, and one that it drops at any
//! address. The other ruleset has them the other way round.
//!
//! | port | A, any address | A, server's | B, any address | B, server's |
//! |------|----------------|-------------|----------------|-------------|
//! | 1001 | local          | **drop**    | **drop**       |             |
//! | 1002 | **drop**       |             | local          | **drop**    |
//!
//! Whoever decides by the ports of the one and the addresses of the other lets a packet through.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use portdemux::{
    dataplane::links,
    image,
    instance::{InstancePaths, Writer},
    maps::counters::Outcome,
    rules::{Ruleset, file},
};
use portdemux_common::{
    reason::{Reason, Verdict},
    wire::Transport,
};
use portdemux_tests::{
    bpffs::Bpffs,
    cli::Portdemux,
    frames,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    run::Running,
    wait::PATIENCE,
};

/// The ports that both rulesets drop.
const PORTS: [u16; 2] = [1001, 1002];
/// Rules that only make the tables larger, so that writing them takes longer.
const FILLERS: u16 = 3_000;
/// How often one ruleset takes the place of the other.
const CHANGES: usize = 2_000;
/// How often the program runs for one system call.
const REPEAT: u32 = 20_000;
/// `XDP_PASS` of Linux `include/uapi/linux/bpf.h`.
const XDP_PASS: u32 = 2;

/// One of the two rulesets.
fn text(is_a: bool) -> String {
    text_of(is_a, is_a)
}

/// The claims at any address of one of the rulesets, and those at the server's of one.
fn text_of(any_is_a: bool, exact_is_a: bool) -> String {
    let (local, dropped) = if any_is_a { (1001, 1002) } else { (1002, 1001) };
    let here = if exact_is_a { 1001 } else { 1002 };
    let mut text = format!(
        "[[rule]]\nname = \"here\"\nport = \"{here}/udp\"\naddress = \"192.0.2.2\"\nto = \"drop\"\n\
         [[rule]]\nname = \"anywhere\"\nport = \"{local}/udp\"\n\
         [[rule]]\nname = \"nowhere\"\nport = \"{dropped}/udp\"\nto = \"drop\"\n"
    );
    for number in 0..FILLERS {
        // Rules and addresses that the other ruleset does not have.
        let name = if exact_is_a { 'a' } else { 'b' };
        let (high, low) = (number / 250, number % 250 + 1);
        let port = 2_000 + 2 * number + u16::from(exact_is_a);
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"{name}{number}\"\nport = \"{port}/udp\"\naddress = \"198.51.{high}.{low}\""
        );
    }
    text
}

/// An instance that no interface has.
struct Instance {
    writer: Writer,
    _bpffs: Bpffs,
    _state: tempfile::TempDir,
}

impl Instance {
    fn new() -> Result<Self> {
        let bpffs = Bpffs::new()?;
        let state = tempfile::tempdir()?;
        let paths = InstancePaths::new(
            "atomicity".parse().map_err(anyhow::Error::msg)?,
            bpffs.path().into(),
            state.path().into(),
        );
        Ok(Self {
            writer: paths.lock()?.open_or_create()?,
            _bpffs: bpffs,
            _state: state,
        })
    }

    /// Puts rulesets in force beside each other, so that the map of tables is as large as any two of them need: a program
    /// that is attached is replaced when that grows, and one that is only run is not.
    fn make_room(&self, rulesets: &[&Ruleset]) -> Result<()> {
        for ruleset in rulesets.iter().chain(rulesets) {
            self.put_in_force(ruleset)?;
        }
        Ok(())
    }

    fn put_in_force(&self, ruleset: &Ruleset) -> Result<()> {
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        self.writer.maps.install(
            &names,
            [0; 32],
            |ids| image::compile(ruleset, ids),
            &portdemux::dataplane::renew,
        )?;
        Ok(())
    }

    /// The program that interfaces have, on this instance's maps.
    fn program(&self) -> Result<Ebpf> {
        let mut object = links::load(&self.writer.maps, 0, None)?;
        let program: &mut Xdp = object
            .program_mut(links::PROGRAM)
            .context("no program")?
            .try_into()?;
        program.load()?;
        Ok(object)
    }

    /// How many packets for either port were received and dropped.
    fn counted(&self) -> [(u64, u64); 2] {
        PORTS.map(|port| {
            let traffic = self.writer.maps.counters.port(Transport::Udp, port);
            (traffic.received.packets, traffic.dropped.packets)
        })
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.writer.maps.counters.outcomes()
    }

    /// Makes sure that each of so many packets, of which so many were seen to be let through, met
    /// the one ruleset or the other.
    fn none_met_a_mix(&self, packets: u64, passed: u64) -> Result<()> {
        let counted = self.counted();
        ensure!(passed == 0, "{passed} packets passed");
        ensure!(
            counted
                .iter()
                .all(|(received, dropped)| received == dropped),
            "{counted:?}"
        );
        ensure!(
            counted.iter().map(|(received, _)| received).sum::<u64>() == packets,
            "{counted:?}"
        );
        for outcome in self.outcomes() {
            ensure!(
                outcome.verdict == Verdict::Drop && outcome.reason == Reason::RuleDrop,
                "{outcome:?}"
            );
        }
        Ok(())
    }
}

/// Runs the program so often on a packet for a port, and says whether the last one passed.
fn run(program: &Xdp, port: u16, repeat: u32) -> Result<bool> {
    let frame = frames::ipv4(frames::udp(40_000, port)).frame().bytes();
    let mut options = TestRunOptions::new();
    options.data_in = Some(&frame);
    options.repeat = repeat;
    let result = program.test_run(options).context("run the program")?;
    Ok(result.return_value == XDP_PASS)
}

/// Runs the program on packets for both ports, on every CPU and without a pause, while `change`
/// does. Returns how many runs there were, and how many system calls ended with a packet let through.
fn run_while(instance: &Instance, change: impl FnOnce() -> Result<()>) -> Result<(u64, u64)> {
    let object = instance.program()?;
    let program: &Xdp = object
        .program(links::PROGRAM)
        .context("no program")?
        .try_into()?;
    let is_over = AtomicBool::new(false);
    let (runs, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let traffic = |port: u16| -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let has_passed = run(program, port, REPEAT)?;
            runs.fetch_add(u64::from(REPEAT), Ordering::Relaxed);
            passed.fetch_add(u64::from(has_passed), Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = PORTS.map(|port| scope.spawn(move || traffic(port)));
        let changed = change();
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))?;
        }
        changed
    })?;
    Ok((runs.into_inner(), passed.into_inner()))
}

#[test]
fn no_run_of_the_program_sees_a_mix_of_two_rulesets() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let instance = Instance::new()?;
    let rulesets = [false, true].map(|is_a| file::parse("rules", &text(is_a)));
    let [b, a] = rulesets;
    let (a, b) = (a?, b?);
    instance.make_room(&[&b, &a])?;
    let before = instance.writer.maps.generation().0;
    let (runs, passed) = run_while(&instance, || {
        for _ in 0..CHANGES / 2 {
            instance.put_in_force(&b)?;
            instance.put_in_force(&a)?;
        }
        Ok(())
    })?;
    ensure!(instance.writer.maps.generation().0 == before + CHANGES as u64);
    instance.none_met_a_mix(runs, passed)?;
    ensure!(
        runs > CHANGES as u64,
        "only {runs} packets met {CHANGES} changes"
    );
    Ok(())
}

/// The control of the test above: what it looks at shows one packet that met a mix among many that
/// did not, whichever mix it is.
#[test]
fn one_run_that_saw_a_mix_would_be_noticed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    for (any_is_a, through) in [(true, 0), (false, 1)] {
        let [a, b, mix] = [text(true), text(false), text_of(any_is_a, !any_is_a)]
            .map(|text| file::parse("rules", &text));
        let (a, b, mix) = (a?, b?, mix?);
        let instance = Instance::new()?;
        instance.make_room(&[&a, &b, &mix])?;
        let object = instance.program()?;
        let program: &Xdp = object
            .program(links::PROGRAM)
            .context("no program")?
            .try_into()?;
        let mut packets = 0;
        let mut met = |ruleset, repeat| -> Result<[bool; 2]> {
            instance.put_in_force(ruleset)?;
            let [one, other] = PORTS.map(|port| run(program, port, repeat));
            packets += 2 * u64::from(repeat);
            Ok([one?, other?])
        };
        for ruleset in [&a, &b] {
            ensure!(met(ruleset, REPEAT)? == [false; 2]);
        }
        instance.none_met_a_mix(2 * 2 * u64::from(REPEAT), 0)?;

        // One packet for each port, of which one meets what it should not.
        let mut expected = [false; 2];
        expected[through] = true;
        ensure!(met(&mix, 1)? == expected, "not {expected:?}");
        for ruleset in [&b, &a] {
            ensure!(met(ruleset, REPEAT)? == [false; 2]);
        }

        ensure!(instance.none_met_a_mix(packets, 1).is_err());
        // Had it not been the last of a system call, the counters would tell as well.
        ensure!(instance.none_met_a_mix(packets, 0).is_err());
        let each = 4 * u64::from(REPEAT) + 1;
        let mut counted = [(each, each); 2];
        counted[through].1 -= 1;
        ensure!(instance.counted() == counted, "{:?}", instance.counted());
        let passed: u64 = instance
            .outcomes()
            .iter()
            .filter(|outcome| outcome.verdict == Verdict::Pass)
            .map(|outcome| outcome.counter.packets)
            .sum();
        ensure!(passed == 1, "{:?}", instance.outcomes());
    }
    Ok(())
}

#[test]
fn no_packet_on_a_wire_sees_a_mix_of_two_rulesets() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    for mode in ["native", "generic"] {
        let lab = Lab::new()?;
        let portdemux = Portdemux::new(&lab.server)?;
        let probe = Probe::new(&lab)?;
        portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
        portdemux.apply(&text(true))?;
        let files = [false, true].map(|is_a| -> Result<String> {
            let path = portdemux.state().join(format!("{is_a}.toml"));
            std::fs::write(&path, text(is_a))?;
            Ok(path.display().to_string())
        });
        let [b, a] = files;
        let script = format!(
            "set -e; for i in $(seq 50); do for f in {} {}; do \"$0\" apply $f --instance default; done; done",
            b?, a?
        );
        let binary = portdemux_tests::cli::binary()?.display().to_string();
        let words = ["sh", "-c", &script, &binary];
        let mut changing = Running::spawn(portdemux.command_through(&words, &[]))?;
        // One more that is let through under either, so that silence is no success.
        let burst: Vec<u16> = PORTS.iter().copied().cycle().take(200).chain([9]).collect();
        let mut rounds = 0;
        while changing.is_running()? {
            let passing = probe.passing(&burst)?;
            ensure!(passing.iter().eq([&9]), "{mode}: {passing:?} passed");
            rounds += 1;
        }
        changing.wait(PATIENCE)?.success()?;
        let stats = portdemux.stats()?;
        ensure!(stats.generation()? == 101 && rounds > 20, "{rounds} rounds");
        for port in PORTS {
            let traffic = stats.port(&format!("{port}/udp"))?;
            ensure!(
                traffic.received == traffic.dropped,
                "{mode}: {port}: {traffic:?}"
            );
            ensure!(
                traffic.received.packets == rounds * 100,
                "{mode}: {port}: {traffic:?}"
            );
        }
    }
    Ok(())
}

/// The control of the test above: what it looks at shows packets that met a mix.
#[test]
fn packets_on_a_wire_that_saw_a_mix_would_be_noticed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    for mode in ["native", "generic"] {
        let lab = Lab::new()?;
        let portdemux = Portdemux::new(&lab.server)?;
        let probe = Probe::new(&lab)?;
        portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
        for (any_is_a, through) in [(true, 1001), (false, 1002)] {
            portdemux.apply(&text(any_is_a))?;
            let passing = probe.passing(&[1001, 1002, 9])?;
            ensure!(passing.iter().eq([&9]), "{mode}: {passing:?} passed");
            let before = portdemux.stats()?.port(&format!("{through}/udp"))?;

            portdemux.apply(&text_of(any_is_a, !any_is_a))?;
            let passing = probe.passing(&[1001, 1002, 9])?;
            ensure!(
                passing.iter().eq([&9, &through]),
                "{mode}: {passing:?} passed"
            );
            let after = portdemux.stats()?.port(&format!("{through}/udp"))?;
            ensure!(
                after.received.packets == before.received.packets + 1
                    && after.dropped == before.dropped,
                "{mode}: {before:?}, then {after:?}"
            );
        }
    }
    Ok(())
}
