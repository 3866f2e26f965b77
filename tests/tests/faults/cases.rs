//! Faults that were not dealt with once.

use std::ops::RangeInclusive;

/// The scenario, the call, which of them, and the error.
pub(crate) type Case = (
    &'static str,
    &'static str,
    RangeInclusive<usize>,
    &'static str,
);

/// Threads and memory that could not be had ended in a panic; what could not be tidied up after the switch was told as
/// if nothing had been done, or took the new record with it; a record that could not be read was taken for lost; one
/// that could not be written stayed behind, empty. A follower ended in the middle or said that it ran and did not;
/// what has to be kept for the next boot was not, and nobody was told.
pub(crate) const WRONG_ONCE: &[Case] = &[
    ("add", "clone3", 1..=1, "EIO"),
    ("add", "mmap", 11..=25, "ENOMEM"),
    ("add", "newfstatat", 3..=7, "EIO"),
    ("add", "openat", 24..=24, "EMFILE"),
    ("add", "openat", 39..=40, "EIO"),
    ("add", "read", 11..=12, "EIO"),
    ("add", "unlink", 1..=8, "EACCES"),
    ("apply-boot", "readlink", 1..=12, "EIO"),
    ("apply", "clone3", 1..=1, "ENOMEM"),
    ("apply", "mmap", 11..=20, "EIO"),
    ("apply", "newfstatat", 3..=7, "ENOMEM"),
    ("apply", "openat", 41..=42, "EMFILE"),
    ("apply", "unlink", 1..=8, "EIO"),
    ("apply-confirm", "mmap", 19..=20, "EIO"),
    ("apply-confirm", "newfstatat", 3..=7, "EACCES"),
    ("apply-confirm", "openat", 47..=48, "ENOSPC"),
    ("apply-confirm", "unlink", 1..=7, "EIO"),
    ("apply-plain", "bpf", 67..=76, "EIO"),
    ("apply-plain", "bpf", 88..=89, "EMFILE"),
    ("apply-plain", "bpf", 94..=112, "ENOMEM"),
    ("attach", "bpf", 1..=1, "EIO"),
    ("confirm", "mmap", 13..=18, "EIO"),
    ("confirm-undo", "unlink", 7..=9, "EIO"),
    ("follower", "flock", 1..=1, "EIO"),
    ("follower", "mmap", 27..=32, "EIO"),
    ("follower", "write", 1..=1, "EIO"),
    ("guard", "write", 1..=1, "EIO"),
    ("save", "fsync", 2..=2, "EIO"),
    ("save", "rename", 2..=2, "EIO"),
    ("set-add", "ftruncate", 1..=1, "EIO"),
    ("set-add", "lseek", 1..=1, "ENOMEM"),
    ("set-add", "pwrite64", 2..=2, "ENOSPC"),
    ("set-remove", "ftruncate", 1..=1, "EIO"),
    ("set-remove", "lseek", 1..=1, "ENOMEM"),
    ("set-remove", "pwrite64", 2..=2, "ENOSPC"),
];
