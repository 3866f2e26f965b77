//! Programs and kernels that do not go together, in a line or two.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    process,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{programs::ProgramError, util::KernelVersion};

use crate::error::Help as _;

/// The first kernel that has all that the programs use.
const FLOOR: KernelVersion = KernelVersion::new(5, 15, 0);
/// What older ones lack, by the kernel that first had it.
const LACKS: [(KernelVersion, &str); 2] = [
    (
        KernelVersion::new(5, 12, 0),
        "compare-and-exchange in BPF programs (Linux 5.12)",
    ),
    (
        FLOOR,
        "the cookie of a network namespace in sock_ops programs (Linux 5.15)",
    ),
];

/// Checks that the kernel is none that lacks what the programs use.
///
/// # Errors
///
/// Says what it lacks. A kernel that does not say its version is asked by loading.
pub(super) fn check_floor() -> Result<()> {
    let Ok(version) = KernelVersion::current() else {
        return Ok(());
    };
    match lacked(version) {
        None => Ok(()),
        Some(lacked) => Err(anyhow!(
            "this is Linux {}, which lacks {lacked}: portdemux runs on Linux 5.15 and newer",
            release()
        ))
        .help(|| "boot a newer kernel; nothing was changed".into()),
    }
}

fn lacked(version: KernelVersion) -> Option<&'static str> {
    let lacked = LACKS.iter().find(|(since, _)| version < *since);
    lacked.map(|(_, what)| *what)
}

/// The kernel's name for itself.
fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "of an unknown version".into(),
        |text| text.trim().to_owned(),
    )
}

/// Loads a program, which `load` does; of what the verifier says against it, a line is in the error, and where all of
/// it is.
///
/// The kernel verifies a program before it makes the descriptor for it, and aya (0.14, `retry_with_verifier_logs`) loads
/// what failed again and again with room for more of the log, whatever it failed for: half a minute where too many files
/// are open. So it is seen to first that a descriptor can be had.
///
/// # Errors
///
/// The kernel refuses the program, or too many files are open.
pub(super) fn load(program: &str, load: impl FnOnce() -> Result<(), ProgramError>) -> Result<()> {
    let failure = || format!("load {program} into the kernel");
    let spare = io::stderr().as_fd().try_clone_to_owned();
    drop(spare.with_context(failure)?);
    let (io_error, log) = match load() {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => (io_error, verifier_log.to_string()),
        other => return other.with_context(failure),
    };
    let failure = anyhow!(io_error).context(failure());
    let Some((first, last)) = ends(&log) else {
        return Err(failure);
    };
    let failure = failure.context(format!("the kernel's verifier says: {first} … {last}"));
    if is_misinformed(first) {
        let failure = failure.context(
            "the kernel did not answer what it supports, as where too many files are open or memory is short",
        );
        return Err(failure).help(|| "try again; nothing was changed".into());
    }
    Err(failure).help(|| match keep(&log) {
        Ok(file) => format!("all that it says is in {}", file.display()),
        Err(err) => format!("all that it says cannot be kept: {err}"),
    })
}

/// Whether the kernel refuses what it was told about a program's functions.
///
/// aya (0.14, `sys/feature_probe.rs`) asks the kernel whether it takes descriptions of types by loading small ones. One
/// that fails for another reason is taken for a no: the descriptions are left out, and what names them is not.
fn is_misinformed(first: &str) -> bool {
    first.starts_with("invalid type id") && first.contains("func info")
}

/// The first line of a verifier's log, and the last that is not about the verification itself.
fn ends(log: &str) -> Option<(&str, &str)> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let mut lines = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter(|line| !STATISTICS.iter().any(|start| line.starts_with(start)));
    let first = lines.next()?;
    Some((first, lines.next_back().unwrap_or(first)))
}

/// Writes a log to a new file that nobody else can have prepared.
fn keep(log: &str) -> io::Result<PathBuf> {
    for number in 0_u32.. {
        let name = format!("portdemux-verifier-{}-{number}.log", process::id());
        let path = env::temp_dir().join(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(mut file) => return file.write_all(log.as_bytes()).map(|()| path),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_below_the_floor_lacks_something_and_no_other_does() {
        let lacks = |minor| lacked(KernelVersion::new(5, minor, 0));
        assert!(lacks(10).is_some_and(|what| what.contains("5.12")));
        assert!(lacks(14).is_some_and(|what| what.contains("5.15")));
        assert_eq!(lacks(15), None);
        assert_eq!(lacked(KernelVersion::new(6, 1, 0)), None);
    }

    #[test]
    fn a_log_is_its_first_line_and_the_last_one_that_says_why() {
        let log = "func#0 @0\n0: R1=ctx()\n; let x = 1;\nR3 unbounded memory access\n\
                   verification time 12 usec\nprocessed 5 insns (limit 1000000)\n\n";
        assert_eq!(ends(log), Some(("func#0 @0", "R3 unbounded memory access")));
        assert_eq!(ends("\n"), None);
    }

    #[test]
    fn a_kernel_that_could_not_be_asked_is_no_fault_of_the_program() {
        let load = |log: &str| {
            let refused: Result<(), ProgramError> = Err(ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(22),
                verifier_log: aya_obj::VerifierLog::new(log.into()),
            });
            format!(
                "{:#}",
                load("the program", || refused).expect_err("a refusal")
            )
        };
        let text = load("invalid type id 173 in func info\n");
        assert!(
            text.contains("too many files are open") && text.contains("try again"),
            "{text}"
        );
        assert!(!text.contains(".log"), "{text}");
    }

    #[test]
    fn a_refusal_is_short_and_the_log_is_kept_whole() {
        let log = format!("0: first\n{}R3 last\n", "1: more\n".repeat(10_000));
        let refused: Result<(), ProgramError> = Err(ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(22),
            verifier_log: aya_obj::VerifierLog::new(log.clone()),
        });
        let error = load("the program", || refused).expect_err("a refusal");
        let text = format!("{error:#}");
        assert!(
            text.len() < 400 && text.contains("0: first … R3 last"),
            "{text}"
        );
        let file = text
            .split_whitespace()
            .map(|word| word.trim_end_matches(':'))
            .find(|word| word.contains("portdemux-verifier-"))
            .expect("where it is");
        assert_eq!(fs::read_to_string(file).expect("a file"), log);
        fs::remove_file(file).expect("to remove it");
    }
}
