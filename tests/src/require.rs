//! What a test needs of the machine, and what becomes of it where that is missing.

use std::{env, fs, path::Path};

/// Something without which a test cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The privileges of root in the machine's first user namespace.
    Root,
    /// A program in one of the directories for programs.
    Tool(&'static str),
    /// The kernel's BPF.
    Bpf,
}

/// What a lab needs.
pub const LAB: &[Need] = &[
    Need::Root,
    Need::Tool("ip"),
    Need::Tool("nsenter"),
    Need::Tool("ethtool"),
];

/// What a lab with portdemux in it needs.
pub const WIRE: &[Need] = &[
    Need::Root,
    Need::Tool("ip"),
    Need::Tool("nsenter"),
    Need::Tool("ethtool"),
    Need::Bpf,
];

/// Whether everything that a test needs is there. If not, says what is missing; the test is to end
/// without a word.
///
/// # Panics
///
/// If something is missing although `PORTDEMUX_REQUIRE_BPF` is 1: a test that did not run is a
/// failure.
#[must_use]
pub fn have(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(
        env::var_os("PORTDEMUX_REQUIRE_BPF").is_none_or(|value| value != "1"),
        "PORTDEMUX_REQUIRE_BPF is 1, but: {missing}"
    );
    #[expect(
        clippy::print_stderr,
        reason = "a test has no other way to say that it did not run"
    )]
    {
        eprintln!("skipped: {missing}");
    }
    false
}

impl Need {
    fn missing(self) -> Option<String> {
        let is_there = match self {
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::Tool(name) => find(name),
            Self::Bpf => fs::read_to_string("/proc/filesystems")
                .is_ok_and(|list| list.lines().any(|line| line.ends_with("\tbpf"))),
        };
        if is_there {
            return None;
        }
        Some(match self {
            Self::Root => "needs root".to_owned(),
            Self::Tool(name) => format!("needs the program {name}"),
            Self::Bpf => "needs a kernel with BPF".to_owned(),
        })
    }
}

fn find(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Not everyone's PATH has the directories for the administrator's programs.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).to_owned()))
        .any(|directory| directory.join(program).is_file())
}
