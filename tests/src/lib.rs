//! What the tests of portdemux are built from.
//!
//! For the parser: [`frames`] builds frames byte by byte, [`rows`] says what is to be said about each,
//! [`generate`] makes millions of them and [`mod@reference`] is a second implementation to compare with.
//!
//! For the network: [`lab`] joins a client and a server in namespaces of their own ([`netns`],
//! [`veth`]), [`server`] runs real servers there, [`raw`] sends and receives single frames, [`cli`]
//! runs the `portdemux` command on a BPF file system of its own ([`bpffs`]). Everything is gone when
//! it is dropped, also when a test panics; what a killed test leaves, the next one removes.
//! [`probe`] asks which ports let a packet through, [`steps`] kills a program before any of its system
//! calls, [`faults`] makes any of them fail, [`terminal`] shows what a person sees, [`mod@release`] what an older kernel would. [`soak`] is all of it at once. [`require`] says what a test needs, [`wait`] waits for a condition instead of for a time.

pub mod answer;
pub mod bpffs;
pub mod cli;
pub mod faults;
pub mod frames;
pub mod generate;
pub mod lab;
mod leftovers;
pub mod netns;
pub mod probe;
pub mod raw;
pub mod reference;
pub mod release;
pub mod require;
pub mod rows;
pub mod run;
pub mod sequence;
pub mod server;
pub mod soak;
pub mod steps;
pub mod terminal;
mod trace;
pub mod versions;
pub mod veth;
pub mod wait;
