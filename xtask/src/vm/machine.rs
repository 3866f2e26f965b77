//! A guest, from its start to its end.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::{
    command::{self, Command, Stdio},
    say, setup,
};

/// How long all checks of one kernel may take: far more than they need where nothing else runs.
const PATIENCE: Duration = Duration::from_mins(15);
/// What lines of the guest's own begin with (`tests/src/bin/guest`).
const MARK: &str = "guest: ";

/// What is started.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initrd: &'a Path,
    /// Everything that the guest says goes there.
    pub(super) log: &'a Path,
    pub(super) checks: &'a [String],
    /// Possible CPUs, of which two are online.
    pub(super) cpus: u32,
    /// In MiB.
    pub(super) memory: u32,
    pub(super) is_short: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    kernel: String,
    asked: Vec<String>,
    passed: Vec<String>,
    failed: Vec<String>,
    /// Programs with how many instructions the verifier took for them.
    pub(super) verified: Vec<(String, u64)>,
    is_complete: bool,
}

impl Outcome {
    /// What did not pass, in words.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self
            .failed
            .iter()
            .map(|failed| format!("Linux {}: {failed}", self.kernel))
            .collect();
        let silent = |check: &&String| {
            !self.passed.contains(check)
                && !self
                    .failed
                    .iter()
                    .any(|failed| failed.starts_with(check.as_str()))
        };
        for check in self.asked.iter().filter(silent) {
            failures.push(format!(
                "Linux {}: {check} did not say how it ended",
                self.kernel
            ));
        }
        if !self.is_complete {
            failures.push(format!(
                "Linux {}: the guest did not come to its end",
                self.kernel
            ));
        }
        failures
    }

    /// Adds what came of another guest with the same kernel.
    pub(super) fn add(&mut self, other: Self) {
        self.asked.extend(other.asked);
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.verified.extend(other.verified);
        self.is_complete &= other.is_complete;
    }

    fn take(&mut self, line: &str) {
        // What the firmware has printed may stand before the first one.
        if let Some((_, said)) = line.split_once(MARK) {
            let said = without_the_kernel(said);
            match said.split_once(' ') {
                Some(("passed", check)) => self.passed.push(check.to_owned()),
                Some(("failed", check)) => self.failed.push(check.to_owned()),
                _ => self.is_complete |= said == "end",
            }
            say::progress(format_args!("  {said}"));
            return;
        }
        // A row of the table of `xtask/examples/load.rs`.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [object, program, _, _, _, verified, _] = words.as_slice()
            && object.starts_with("portdemux-")
            && let Ok(verified) = verified.parse()
        {
            self.verified.push(((*program).to_owned(), verified));
        }
    }
}

/// What the guest said in a line that the kernel may have gone on with: its messages begin with the time, in brackets.
fn without_the_kernel(said: &str) -> &str {
    let is_time = |text: &str| {
        let time = text
            .split_once(']')
            .map_or("", |(time, _)| time.trim_start());
        let mut parts = time.split('.');
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        parts
            .by_ref()
            .take(2)
            .filter(|part| is_number(part))
            .count()
            == 2
            && parts.next().is_none()
    };
    let mut brackets = said.match_indices('[');
    match brackets.find(|(at, _)| is_time(&said[at + 1..])) {
        Some((at, _)) => &said[..at],
        None => said,
    }
}

/// Starts a guest and reads what it says until it ends.
///
/// # Errors
///
/// If QEMU does not start, or the guest does not end in time.
pub(super) fn run(machine: &Machine) -> Result<Outcome> {
    let begin = Instant::now();
    let mut log =
        File::create(machine.log).with_context(|| format!("write {}", machine.log.display()))?;
    let mut child = command::spawn(&mut qemu(machine)?)?;
    let stdout = child.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut outcome = Outcome {
        kernel: machine.kernel.version.clone(),
        asked: machine.checks.to_vec(),
        ..Outcome::default()
    };
    let ended = loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
            Ok(line) => {
                writeln!(log, "{line}").context("write the log")?;
                outcome.take(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        child.kill().context("end QEMU")?;
    }
    child.wait().context("wait for QEMU")?;
    say::progress(format_args!(
        "  {:.0} s; what it said is in {}",
        begin.elapsed().as_secs_f64(),
        machine.log.display()
    ));
    if !ended {
        bail!("it did not end within {} s", PATIENCE.as_secs());
    }
    Ok(outcome)
}

fn qemu(machine: &Machine) -> Result<Command> {
    let cpus = match machine.cpus {
        // Each a socket of its own: CPUs of one socket that come later have no place in its cache's maps. One is there
        // and comes later.
        many @ 3.. => format!("3,maxcpus={many},sockets={many}"),
        few => few.to_string(),
    };
    let mut append =
        "console=ttyS0 panic=-1 oops=panic quiet mitigations=off tsc=unstable no_timer_check"
            .to_owned();
    if machine.is_short {
        append.push_str(" PORTDEMUX_GUEST_SHORT=1");
    }
    if machine.cpus > 2 {
        append.push_str(" maxcpus=2");
    }
    // Not as arguments: a kernel hands those of its own on that it does not know.
    append.push_str(" PORTDEMUX_GUEST_CHECKS=");
    append.push_str(&machine.checks.join(","));
    let mut qemu = Command::new(setup::qemu()?);
    // Without -cx16 guests crash at random under emulation.
    qemu.args([
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max,-cx16",
        "-smp",
        &cpus,
    ])
    .args([
        "-m",
        &machine.memory.to_string(),
        "-nographic",
        "-no-reboot",
        "-net",
        "none",
    ])
    .arg("-kernel")
    .arg(&machine.kernel.image)
    .arg("-initrd")
    .arg(machine.initrd)
    .args(["-append", &append])
    .stdin(Stdio::null())
    .stdout(Stdio::piped());
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_is_understood() {
        let mut outcome = Outcome {
            asked: ["load", "rules"].map(str::to_owned).to_vec(),
            ..Outcome::default()
        };
        assert_eq!(outcome.failures().len(), 3);
        for line in [
            "portdemux-xdp        portdemux_plain         10546      5          0    322502    13247",
            "\u{1b}c\u{1b}[?7lguest: passed load",
            "guest: failed rules: no such file",
        ] {
            outcome.take(line);
        }
        assert_eq!(outcome.verified, [("portdemux_plain".to_owned(), 322_502)]);
        assert_eq!(outcome.passed, ["load"]);
        assert_eq!(outcome.failures().len(), 2);
        outcome.take("guest: end[   20.100504] sysrq: Power Off");
        assert_eq!(outcome.failures(), ["Linux : rules: no such file"]);
    }

    #[test]
    fn what_the_kernel_adds_is_not_the_guest_s() {
        for (line, said) in [
            ("end", "end"),
            ("end[   20.100504] sysrq: Power Off", "end"),
            (
                "failed rules: [2001:db8::1]:80 of [1.2]x",
                "failed rules: [2001:db8::1]:80 of ",
            ),
            (
                "failed rules: [::1]:80, [0], [a.b]",
                "failed rules: [::1]:80, [0], [a.b]",
            ),
        ] {
            assert_eq!(without_the_kernel(line), said);
        }
    }
}
