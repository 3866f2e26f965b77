//! The objects that `portdemux-ebpf` compiles to.
//!
//! Without the feature `programs` there are none: everything but loading works, and no BPF toolchain is needed.

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
