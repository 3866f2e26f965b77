//! Frames that were sent to a target and that it did not take.
//!
//! A redirected packet has its verdict and its reason before the kernel knows what its target makes of it. What
//! the target then does not take is told of by tracepoints of the kernel; here is what they mean.

use bytemuck::{Pod, Zeroable};

use crate::capacity::DESTINATION_SLOTS;

/// Which kind of target a frame was on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// An interface.
    Interface,
    /// A CPU.
    Cpu,
    /// An `AF_XDP` socket.
    Xsk,
}

/// Why a target did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedirectDrop {
    /// The interface is down.
    InterfaceDown,
    /// Its driver takes no frames from other drivers, or not as things are: a veth whose other end has neither
    /// an XDP program nor GRO.
    InterfaceTakesNone,
    /// The frame is longer than its MTU allows.
    InterfaceTooLong,
    /// Its driver took fewer frames than it was given and named no error: its queue is full, or the other end of a
    /// veth takes no frames of that length.
    InterfaceNoRoom,
    /// It did not take the frame for another reason.
    InterfaceRefused,
    /// As many frames wait for the CPU as may.
    CpuFull,
    /// The CPU had no memory to take the frame up.
    CpuNoMemory,
    /// The frame could not be handed to another CPU.
    CpuRefused,
    /// The socket's ring of received frames is full.
    XskFull,
    /// The program gave the kernel no buffer for the frame (its fill ring is empty).
    XskNoBuffer,
    /// The frame is longer than the program's buffers.
    XskTooLong,
    /// The socket is not bound to the queue that the frame came by.
    XskElsewhere,
    /// The socket did not take the frame for another reason.
    XskRefused,
}

impl RedirectDrop {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::InterfaceDown,
        Self::InterfaceTakesNone,
        Self::InterfaceTooLong,
        Self::InterfaceNoRoom,
        Self::InterfaceRefused,
        Self::CpuFull,
        Self::CpuNoMemory,
        Self::CpuRefused,
        Self::XskFull,
        Self::XskNoBuffer,
        Self::XskTooLong,
        Self::XskElsewhere,
        Self::XskRefused,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InterfaceDown => "interface_down",
            Self::InterfaceTakesNone => "interface_takes_none",
            Self::InterfaceTooLong => "interface_too_long",
            Self::InterfaceNoRoom => "interface_no_room",
            Self::InterfaceRefused => "interface_refused",
            Self::CpuFull => "cpu_full",
            Self::CpuNoMemory => "cpu_no_memory",
            Self::CpuRefused => "cpu_refused",
            Self::XskFull => "xsk_full",
            Self::XskNoBuffer => "xsk_no_buffer",
            Self::XskTooLong => "xsk_too_long",
            Self::XskElsewhere => "xsk_elsewhere",
            Self::XskRefused => "xsk_refused",
        }
    }

    /// Of which kind the targets are that can have it.
    #[must_use]
    pub const fn kind(self) -> TargetKind {
        match self {
            Self::InterfaceDown
            | Self::InterfaceTakesNone
            | Self::InterfaceTooLong
            | Self::InterfaceNoRoom
            | Self::InterfaceRefused => TargetKind::Interface,
            Self::CpuFull | Self::CpuNoMemory | Self::CpuRefused => TargetKind::Cpu,
            Self::XskFull
            | Self::XskNoBuffer
            | Self::XskTooLong
            | Self::XskElsewhere
            | Self::XskRefused => TargetKind::Xsk,
        }
    }

    /// Where it is counted in a target's [`Row`].
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> usize {
        match self {
            Self::InterfaceDown | Self::CpuFull | Self::XskFull => 0,
            Self::InterfaceTakesNone | Self::CpuNoMemory | Self::XskNoBuffer => 1,
            Self::InterfaceTooLong | Self::CpuRefused | Self::XskTooLong => 2,
            Self::InterfaceNoRoom | Self::XskElsewhere => 3,
            Self::InterfaceRefused | Self::XskRefused => 4,
        }
    }

    /// What it means that a frame could not be put on its way to a target, by the error's number (Linux 6.18:
    /// `kernel/bpf/devmap.c`, `__xdp_enqueue`; `kernel/bpf/cpumap.c`, `cpu_map_enqueue`; `net/xdp/xsk.c`,
    /// `xsk_rcv`).
    #[inline(always)]
    #[must_use]
    pub const fn of_redirect(kind: TargetKind, error: i32) -> Self {
        match (kind, error.wrapping_neg()) {
            (TargetKind::Interface, ENETDOWN) => Self::InterfaceDown,
            (TargetKind::Interface, EOPNOTSUPP) => Self::InterfaceTakesNone,
            (TargetKind::Interface, EMSGSIZE) => Self::InterfaceTooLong,
            (TargetKind::Interface, _) => Self::InterfaceRefused,
            (TargetKind::Cpu, _) => Self::CpuRefused,
            (TargetKind::Xsk, ENOBUFS) => Self::XskFull,
            (TargetKind::Xsk, ENOMEM) => Self::XskNoBuffer,
            (TargetKind::Xsk, ENOSPC) => Self::XskTooLong,
            (TargetKind::Xsk, EINVAL) => Self::XskElsewhere,
            (TargetKind::Xsk, _) => Self::XskRefused,
        }
    }

    /// What it means that an interface transmitted fewer frames than it was given: its driver's error, or 0 if
    /// there was no room for the rest (Linux 6.18, `kernel/bpf/devmap.c`, `bq_xmit_all`).
    #[inline(always)]
    #[must_use]
    pub const fn of_transmission(error: i32) -> Self {
        match error.wrapping_neg() {
            0 | ENOSPC | ENOBUFS => Self::InterfaceNoRoom,
            // A veth has nobody at its other end that polls (drivers/net/veth.c, `veth_xdp_xmit`).
            ENXIO => Self::InterfaceTakesNone,
            _ => Self::of_redirect(TargetKind::Interface, error),
        }
    }
}

/// Numbers of errors (Linux `include/uapi/asm-generic/errno.h`).
const ENXIO: i32 = 6;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EMSGSIZE: i32 = 90;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;
const ENOBUFS: i32 = 105;

/// What a target did not take, by [`RedirectDrop::slot`]: packets. All CPUs add to it.
pub type Row = [u64; SLOTS];

/// How many kinds of redirect drops a target can have.
pub const SLOTS: usize = 8;

/// How many rows there are where CPUs have numbers below `cpus`.
#[must_use]
pub const fn rows(cpus: usize) -> usize {
    DESTINATION_SLOTS + cpus
}

/// The row of the first CPU: behind those of all slots.
const FIRST_CPU: u32 = 1 << 13;

const _: () = assert!(FIRST_CPU as usize == DESTINATION_SLOTS);

/// The row of a CPU; that of an interface or an `AF_XDP` program is its slot.
#[inline(always)]
#[must_use]
pub const fn row_of_cpu(cpu: u32) -> u32 {
    FIRST_CPU + cpu
}

/// By what a target is known to the kernel: with it as the key, a map says which slot it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct TargetKey(pub u64);

impl TargetKey {
    /// An interface of the instance's network namespace, by its index.
    #[inline(always)]
    #[must_use]
    pub const fn interface(index: u32) -> Self {
        Self(index as u64)
    }

    /// A map of `AF_XDP` sockets, by its id.
    #[inline(always)]
    #[must_use]
    pub const fn sockets(map: u32) -> Self {
        Self(1 << 32 | map as u64)
    }
}

/// Where the kernel keeps what these programs read of an interface, in bytes from the beginning of each
/// structure. All zeros if that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// The index in `struct net_device`.
    pub index: u32,
    /// The pointer to its network namespace there.
    pub namespace: u32,
    /// The inode number of that in `struct net`.
    pub inode: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_has_a_slot_of_its_own_among_those_of_its_kind() {
        for loss in RedirectDrop::ALL {
            assert!(loss.slot() < SLOTS);
            for other in RedirectDrop::ALL {
                let same_slot = loss.kind() == other.kind() && loss.slot() == other.slot();
                assert_eq!(same_slot, loss == other, "{loss:?} {other:?}");
                assert_eq!(loss.name() == other.name(), loss == other);
            }
        }
    }

    #[test]
    fn an_error_is_a_loss_of_the_kind_of_its_target() {
        for kind in [TargetKind::Interface, TargetKind::Cpu, TargetKind::Xsk] {
            for error in -4095..=0 {
                assert_eq!(RedirectDrop::of_redirect(kind, error).kind(), kind);
            }
        }
        for error in -4095..=0 {
            assert_eq!(
                RedirectDrop::of_transmission(error).kind(),
                TargetKind::Interface
            );
        }
        assert_eq!(
            RedirectDrop::of_transmission(0),
            RedirectDrop::InterfaceNoRoom
        );
        assert_eq!(
            RedirectDrop::of_transmission(-ENETDOWN),
            RedirectDrop::InterfaceDown
        );
        assert_eq!(
            RedirectDrop::of_redirect(TargetKind::Xsk, -ENOMEM),
            RedirectDrop::XskNoBuffer
        );
    }

    #[test]
    fn keys_of_interfaces_and_of_maps_differ() {
        assert_ne!(TargetKey::interface(7), TargetKey::sockets(7));
    }
}
