//! What a process that stays owes to who started it: word that it is ready, and to go on as the binary that took the
//! place of its own.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            net::{SocketAddr, UnixDatagram},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};

/// Tells the service manager something (`sd_notify(3)`), if one started this process and wants to know.
pub(crate) fn notify(state: &str) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let send = || {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&address)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    // It waits for this, and says so when it has waited long enough.
    let _: std::io::Result<usize> = send();
}

/// What stands behind the path of a program whose file was removed or replaced (`proc_pid_exe(5)`).
const REPLACED: &[u8] = b" (deleted)";

/// Whether another binary took the place of this process's, as an upgrade of a package does.
#[must_use]
pub(crate) fn is_replaced() -> bool {
    replacement().is_some_and(|path| path.is_file())
}

/// Becomes the binary that took the place of this process's.
///
/// # Errors
///
/// It does not start; this one is what it was.
pub(crate) fn restart(words: &[String]) -> Result<()> {
    let path = replacement().context("find the binary that replaced this one")?;
    let error = Command::new(&path).args(words).exec();
    Err(error).with_context(|| format!("start {}", path.display()))
}

fn replacement() -> Option<PathBuf> {
    let path = fs::read_link("/proc/self/exe")
        .ok()?
        .into_os_string()
        .into_vec();
    let path = path.strip_suffix(REPLACED)?;
    Some(OsStr::from_bytes(path).into())
}
