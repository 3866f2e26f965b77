//! The objects that `portdemux-ebpf` compiles to.
//!
//! Without the feature `programs` there are none: everything but loading works, and no BPF toolchain is needed.

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapError};

use crate::maps::not_created;

/// An object of this build.
#[cfg(feature = "programs")]
macro_rules! object {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name))
    };
}
#[cfg(not(feature = "programs"))]
macro_rules! object {
    ($name:literal) => {
        &[]
    };
}

/// The program that is attached to interfaces.
pub static DISPATCHER: &[u8] = object!("portdemux-xdp");
/// Those that are attached where flows are tracked.
pub static FLOWS: &[u8] = object!("portdemux-flows");
/// Those that hand packets to sockets.
pub static SOCKETS: &[u8] = object!("portdemux-sockets");
/// Those that count what targets do not take.
pub static REDIRECT_DROPS: &[u8] = object!("portdemux-redirect-drops");
/// The shadow program, which says what it saw.
pub static SHADOW: &[u8] = object!("portdemux-shadow");
/// What the benchmark compares with.
pub static BASELINE: &[u8] = object!("portdemux-baseline");

/// An object that is ready for its programs to be loaded, with the maps that only they use.
///
/// # Errors
///
/// One of its maps cannot be had, or this build has no objects.
pub(super) fn prepared(loader: &mut EbpfLoader<'_>, object: &[u8], what: &str) -> Result<Ebpf> {
    ensure!(
        cfg!(feature = "programs"),
        "{what} is not part of this build, which was made without the feature `programs`"
    );
    loader
        .load(object)
        .map_err(|error| {
            if let EbpfError::MapError(MapError::CreateError { name, io_error }) = error {
                let asked_for = format!("create the map {name}, which {what} works with");
                not_created(io_error, asked_for)
            } else {
                error.into()
            }
        })
        .with_context(|| format!("prepare {what}"))
}
