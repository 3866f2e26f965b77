//! What is said where there is little memory.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    release::{Lacking, Release},
    require::{self, Need},
    run::{self, Output},
};

use crate::bed::{RULES, busy};

/// Where a shell keeps a program to so many KiB.
const LIMITED: &str = "ulimit -v \"$0\" && exec \"$@\"";

/// More than any command needs.
const PLENTY: u32 = 1 << 20;

fn within(portdemux: &Portdemux, kib: u32, command: &[&str]) -> Result<Output> {
    let (kib, binary) = (kib.to_string(), cli::binary()?.display().to_string());
    let mut limited = portdemux.command_through(&["sh", "-c", LIMITED, &kib, &binary], command);
    limited.env("RUST_BACKTRACE", "1");
    run::run(limited)
}

#[test]
fn with_little_memory_a_command_does_its_work_or_says_why_not() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    // What it takes to load the command at all is more where it has symbols.
    let (mut too_little, mut enough) = (1, PLENTY);
    while enough - too_little > 64 {
        let middle = u32::midpoint(too_little, enough);
        if within(&portdemux, middle, &["--version"])?.code() == Some(0) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    let mut failures = 0;
    for more in [
        0, 300, 1_000, 2_500, 5_000, 8_000, 11_000, 15_000, 20_000, 30_000, 60_000,
    ] {
        for command in [
            &["attach", INTERFACE][..],
            &["apply", &file],
            &["add", "1/tcp", "--name", "new"],
            &["remove", "new"],
            &["status"],
            &["stats"],
            &["rules"],
            &["export"],
            &["explain", "udp", "192.0.2.1:1", "192.0.2.2:20"],
        ] {
            let output = within(&portdemux, enough + more, command)?;
            let context = || format!("{command:?} with {more} KiB more: {}", output.stderr);
            match output.code() {
                Some(0) => {}
                Some(1) => {
                    ensure!(output.stderr.contains("error: "), "{}", context());
                    failures += 1;
                }
                code => anyhow::bail!("{code:?}, {}", context()),
            }
            ensure!(!output.stderr.contains("panicked"), "{}", context());
        }
        // Whatever came of it, one ruleset is in force as a whole.
        let export = portdemux.ok(&["export"])?;
        ensure!(export.stderr.is_empty(), "{}", export.stderr);
        ensure!(
            export.stdout.starts_with(RULES.trim_end()),
            "{}",
            export.stdout
        );
    }
    ensure!(failures > 10, "{failures} commands had too little");
    let ended = within(&portdemux, PLENTY, &["apply", &file])?;
    ended.success().context("with plenty")?;
    Ok(())
}

/// Kinds of maps (Linux `include/uapi/linux/bpf.h`, `enum bpf_map_type`), with what is said of the first of its kind.
const KINDS: [(u32, &str); 6] = [
    (1, "create the map TARGET_PLACES: "),
    (2, "create the map RULESETS: "),
    (6, "which the program works with"),
    (14, "create the map DEVICES: "),
    (15, "create the map SOCKETS: "),
    (16, "create the map CPUS: "),
];

#[test]
fn without_kernel_memory_it_is_said_how_much_was_asked_for_and_why() -> Result<()> {
    if !require::have(require::WIRE) || !require::have(&[Need::Tool("cc")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let is_told = |said: &str, of: &str, kind: u32| {
        let is_of_program = kind == 6;
        said.contains(of)
            && (is_of_program || said.contains(" KiB of kernel memory, "))
            && (is_of_program || said.contains("this machine can have "))
            && said.contains("Cannot allocate memory")
            && said.contains("(memory.max)")
            && said.contains("nothing was changed")
    };
    for (kind, of) in KINDS {
        portdemux.pretend(Release::without_memory(Lacking::Maps(kind))?);
        let said = portdemux.fails(1, &["attach", INTERFACE])?.stderr;
        ensure!(is_told(&said, of, kind), "{kind}: {said}");
        portdemux.fails(3, &["status"])?;
    }
    portdemux.pretend_nothing();
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.pretend(Release::without_memory(Lacking::Maps(2))?);
    let rules = portdemux.rules_file("[flows]\ntrack = true\n")?;
    let said = portdemux
        .fails(1, &["apply".as_ref(), rules.as_os_str()])?
        .stderr;
    ensure!(is_told(&said, "create the map FLOWS: ", 2), "{said}");
    portdemux.pretend_nothing();
    let status = portdemux.json(&["status"])?;
    ensure!(status["generation"] == 0, "{status}");
    Ok(())
}

/// Open files with which `attach` comes as far as loading a program, and less and more.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 30..=70;

#[test]
fn with_few_files_that_may_be_open_a_command_says_so_at_once() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let binary = cli::binary()?.display().to_string();
    let mut is_enough = false;
    let mut of_programs = 0;
    for count in DESCRIPTORS {
        let words = [
            "sh",
            "-c",
            "ulimit -n \"$0\" && exec \"$@\"",
            &count.to_string(),
            &binary,
        ];
        for arguments in [&["attach", INTERFACE][..], &["stats", "--watch", "0.05"]] {
            if arguments[0] == "stats" && is_enough {
                continue;
            }
            let said = run::run(portdemux.command_through(&words, arguments))?;
            let told = &said.stderr;
            ensure!(
                !told.contains("panicked") && !told.contains("verifier"),
                "{count}: {told}"
            );
            match said.code() {
                Some(0) => is_enough = true,
                Some(1) => ensure!(told.contains("Too many open files"), "{count}: {told}"),
                Some(3) if arguments[0] == "stats" => {}
                code => anyhow::bail!("{count}: {code:?}, {told}"),
            }
            of_programs += usize::from(told.contains("load the program into the kernel"));
        }
    }
    ensure!(is_enough && of_programs > 0, "{of_programs}");
    portdemux.ok(&["status"])?;
    // What shows an instance again and again opens less.
    for count in 3..30 {
        let limit = "ulimit -n \"$0\" && exec timeout 1 \"$@\"";
        let words = ["sh", "-c", limit, &count.to_string(), &binary];
        let said = run::run(portdemux.command_through(&words, &["stats", "--watch", "0.05"]))?;
        ensure!(
            !said.stderr.contains("panicked"),
            "{count}: {}",
            said.stderr
        );
        if said.code() == Some(124) || said.code() == Some(0) {
            break;
        }
    }
    Ok(())
}
