//! The control plane of portdemux: rules files, the maps the kernel reads, counters and reports.
//!
//! The command is one user of it, in [`cli`]; nothing else prints. A program of one's own has a [`control::Control`] of an
//! instance, which opens it, attaches it to interfaces and puts rules in force. What comes of that is returned, and what
//! happens meanwhile goes to [`control::Events`]:
//!
//! ```no_run
//! use portdemux::{
//!     control::{Apply, Control, Event, Events, RulesText, attach::To},
//!     instance::InstancePaths,
//! };
//!
//! fn main() -> anyhow::Result<()> {
//!     let name = "default".parse().map_err(anyhow::Error::msg)?;
//!     let paths = InstancePaths::new(name, "/sys/fs/bpf".into(), "/run/portdemux".into());
//!     let events = Events::new(|event| {
//!         if let Event::Warning { what, .. } = event {
//!             eprintln!("{what}");
//!         }
//!     });
//!     let control = Control::new(paths, events);
//!
//!     // The programs are in the kernel, and stay there when this one ends.
//!     let to = To { interfaces: vec!["eth0".into()], ..To::default() };
//!     control.attach(&to, None, &|_, _, _| Ok(()))?;
//!
//!     // All of it, or nothing; the last argument can look at what packets would be decided by, and object.
//!     let rules = RulesText::new("rules", "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\n");
//!     let applied = control.apply(&rules, Apply::default(), &|_, _, _| Ok(()))?;
//!     println!("{:?}", applied.change.generation);
//!
//!     let snapshot = control.open()?.snapshot();
//!     for port in snapshot.ports() {
//!         println!("{port:?}: {:?}", snapshot.traffic(port).received);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Every verb of the command is a function of [`control::Control`] in the same way: `detach` and `remove`, `edit` (a rule is
//! added, removed or promoted), `change_set`, `save`, `confirm` and `undo`, `add_sockets`, `forget_flows`, `upgrade`. `ask`
//! gives what says what becomes of a packet. [`cli::run`] runs a whole command line, and writes to the caller's writers.
//!
//! Whoever only reads has an [`instance::Instance`]; a function that changes something takes an [`instance::Writer`],
//! which only the instance's lock gives. A change is one transaction of features, each with its way back.
#![deny(unsafe_code)]

pub mod attached;
pub mod background;
mod bounded;
pub mod capabilities;
pub mod capture;
pub mod change;
pub mod cli;
pub mod clock;
pub mod confirm;
pub mod control;
pub mod dataplane;
mod durable;
pub mod error;
pub mod explain;
mod figures;
pub mod flows;
pub mod follower;
pub mod host;
pub mod image;
pub mod instance;
pub mod interface;
pub mod listeners;
pub mod lockout;
pub mod maps;
pub mod members;
pub mod memory;
mod netlink;
mod presence;
pub mod records;
pub mod recover;
pub mod rules;
mod service;
pub mod session;
pub mod snapshot;
pub mod socket_groups;
pub mod sockets;
pub mod syscalls;
pub mod unconfirmed;
pub mod upgrade;
