//! Waiting until no program reads a ruleset that is no longer in force.

use std::{fs, io, thread};

use rustix::{
    process::setpriority_process,
    thread::{CpuSet, MembarrierCommand, membarrier, sched_getaffinity, sched_setaffinity},
};

/// Returns when every program that was running at the call has ended.
///
/// An XDP program runs with soft interrupts disabled, and a thread cannot run on a CPU while such a
/// section does: once this process has run on every CPU that is online, none that was running is
/// left. That takes microseconds; a grace period of RCU takes 5 to 15 ms on an idle machine. Where
/// such a section can be preempted (`PREEMPT_RT`) or a CPU is not allowed to this process, the grace
/// period is waited for (Linux `kernel/sched/membarrier.c`, `MEMBARRIER_CMD_GLOBAL`).
///
/// # Errors
///
/// Neither way is open.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    if !is_realtime() && visit_every_cpu().is_ok() {
        return Ok(());
    }
    Ok(membarrier(MembarrierCommand::Global)?)
}

fn is_realtime() -> bool {
    match fs::read_to_string("/sys/kernel/realtime") {
        Ok(text) => text.trim() == "1",
        // Where that cannot be seen, what is right for both is done.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Runs a thread on each online CPU in turn.
fn visit_every_cpu() -> io::Result<()> {
    let online = parse_cpu_list(&fs::read_to_string("/sys/devices/system/cpu/online")?)?;
    let allowed = sched_getaffinity(None)?;
    if !online
        .iter()
        .all(|&cpu| cpu < CpuSet::MAX_CPU && allowed.is_set(cpu))
    {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    thread::scope(|scope| {
        let visit = thread::Builder::new().spawn_scoped(scope, || {
            // A busy CPU lets this thread in at once; where that is not allowed, it takes its turn.
            let _: rustix::io::Result<()> = setpriority_process(None, -20);
            for cpu in online {
                let mut set = CpuSet::new();
                set.set(cpu);
                // Returns on that CPU: the call moves the thread before it ends.
                sched_setaffinity(None, &set)?;
            }
            Ok(())
        });
        visit?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the visiting thread panicked")))
    })
}

/// Reads a list of CPUs as in `0-3,8` (Linux `Documentation/admin-guide/cputopology.rst`).
fn parse_cpu_list(text: &str) -> io::Result<Vec<usize>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("CPU list {text:?}"));
    let number = |text: &str| text.parse::<usize>().map_err(|_| invalid());
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        match part.split_once('-') {
            Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
            None => cpus.push(number(part)?),
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_names_single_cpus_and_ranges() {
        assert_eq!(parse_cpu_list("0-2,5,7-8\n").unwrap(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_cpu_list("0\n").unwrap(), [0]);
        assert!(parse_cpu_list("").is_err());
        assert!(parse_cpu_list("a-b").is_err());
    }

    #[test]
    fn waiting_ends() {
        wait_for_programs().unwrap();
    }
}
