//! What this process may do.

use std::fs;

use anyhow::{Context as _, Result};

/// Reads files and lists directories of others (capabilities(7), like all of these).
pub const CAP_DAC_READ_SEARCH: u32 = 2;
/// Changes interfaces and attaches programs to them.
pub const CAP_NET_ADMIN: u32 = 12;
/// Looks into the processes of others.
pub const CAP_SYS_PTRACE: u32 = 19;
/// Stands for [`CAP_PERFMON`] and [`CAP_BPF`], which were split off it in Linux 5.8.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Loads programs that read pointers.
pub const CAP_PERFMON: u32 = 38;
/// Loads programs and makes maps.
pub const CAP_BPF: u32 = 39;

/// The names of those capabilities that this process lacks.
///
/// # Errors
///
/// `/proc` does not show the capabilities of this process.
pub fn lacking(wanted: &[(u32, &'static str)]) -> Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/thread-self/status").context("read /proc")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("/proc does not show the capabilities of this process")?;
    let has = |capability: u32| effective & 1 << capability != 0;
    let lacking = wanted.iter().filter(|&&(capability, _)| {
        let is_part_of_admin = matches!(capability, CAP_PERFMON | CAP_BPF);
        !(has(capability) || is_part_of_admin && has(CAP_SYS_ADMIN))
    });
    Ok(lacking.map(|&(_, name)| name).collect())
}
