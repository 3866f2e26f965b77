//! The maps and programs in the kernel, and everything that reads or changes them.
//!
//! An instance ([`crate::instance`]) is a set of maps and the links of the interfaces it is attached to, all
//! pinned in bpffs: the kernel holds the truth and no process has to stay. Maps are read and written
//! through shared memory, a ruleset is put in force with one 8-byte store ([`maps`]).

mod blocks;
pub mod counters;
pub(crate) mod damage;
pub mod destinations;
pub mod egress;
pub mod flows;
pub(crate) mod layout;
pub mod links;
mod log;
pub(crate) mod mapped;
pub mod maps;
pub mod objects;
pub(crate) mod pins;
mod quiesce;
pub mod redirect_drops;
mod refused;
pub mod shadow_program;
mod state;
pub mod steering;
mod tables;
pub mod takeover;
pub mod targets;
pub mod tracking;
pub(crate) mod trusted;
