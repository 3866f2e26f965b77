//! What becomes of a frame, and why: the core that the network card's path runs, run on the host.
//!
//! Frames come from a capture file ([`capture`]) or are made from what a user asks about
//! ([`packet`]). A [`Basis`] is the ruleset they are explained under, [`Explained`] what the core says
//! about one of them; it is shown as JSON, as a line of a table or as a report. With a
//! [`crate::dataplane::shadow_program::ShadowProgram`] the kernel is asked about the same frames ([`agreement`]).
//!
//! **Invariant:** nothing here parses or decides. Whatever is shown comes from
//! [`portdemux_common::parse`] and [`portdemux_common::pipeline`], by way of [`crate::host`].

pub mod agreement;
mod basis;
pub mod capture;
mod describe;
mod explained;
pub mod packet;
pub mod packet_state;
pub mod report;
mod table;

#[cfg(test)]
mod tests;

pub use basis::Basis;
pub(crate) use explained::ip_address;
pub use explained::{Explained, FrameReport, Shadow};
