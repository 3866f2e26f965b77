//! The control plane of portdemux: rules files, the maps the kernel reads, counters and reports.
#![deny(unsafe_code)]

pub mod capture;
pub mod dataplane;
pub mod error;
pub mod image;
pub mod rules;
