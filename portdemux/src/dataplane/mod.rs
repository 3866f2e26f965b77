//! The programs in the kernel, and what they are attached to.
//!
//! An instance ([`crate::instance`]) is a set of maps ([`crate::maps`]) and the links of the interfaces it is attached to,
//! all pinned in bpffs: the kernel holds the truth and no process has to stay.

pub mod destinations;
pub mod egress;
mod larger_tables;
pub mod links;
mod log;
pub mod objects;
pub mod redirect_drops;
mod refused;
pub mod shadow_program;
pub mod steering;
pub mod takeover;
pub mod tracking;

pub use larger_tables::renew;
