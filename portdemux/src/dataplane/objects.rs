//! The objects that `portdemux-ebpf` compiles to.

/// The program that is attached to interfaces.
pub static DISPATCHER: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-xdp"));

/// Those that are attached where flows are tracked.
pub static FLOWS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-flows"));

/// Those that hand packets to sockets.
pub static SOCKETS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-sockets"));

/// Those that count what targets do not take.
pub static REDIRECT_DROPS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-redirect-drops"));

/// The shadow program, which says what it saw.
pub static SHADOW: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-shadow"));

/// What the benchmark compares with.
pub static BASELINE: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portdemux-baseline"));
