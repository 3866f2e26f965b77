//! Sends every UDP datagram that comes for `to = "xsk:NAME"` back to where it came from.
//!
//! It is what a program has to do to take frames from portdemux: open an `AF_XDP` socket on a queue of the
//! interface, put it into the map that `apply` has pinned for the name, under the number of the queue, and
//! take frames from its ring. The kernel takes the socket out of the map when it is closed, however the
//! program ends; frames then go where the rule's `fallback` says.

mod echo;
mod queue;

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, XskMap};
use clap::Parser;
use queue::Queue;

/// Echo UDP datagrams over `AF_XDP`
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  portdemux attach eth0
  portdemux add 7/udp --to xsk:echo
  xsk-echo eth0 /sys/fs/bpf/portdemux/default/abi6/xsk/echo")]
struct Args {
    /// The interface that portdemux is attached to
    interface: String,
    /// The map that is pinned for the name in `to = "xsk:NAME"`
    map: PathBuf,
    /// Which queue of the interface to take; one program, or thread, for each
    #[arg(long, default_value_t = 0)]
    queue: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut queue = Queue::open(&args.interface, args.queue)
        .with_context(|| format!("open queue {} of {}", args.queue, args.interface))?;
    let data = MapData::from_pin(&args.map).with_context(|| {
        format!(
            "open {}: is there a rule for this name?",
            args.map.display()
        )
    })?;
    let mut sockets = XskMap::try_from(Map::XskMap(data))?;
    sockets
        .set(args.queue, queue.fd(), 0)
        .context("put the socket into the map")?;
    writeln!(
        stdout(),
        "echoing on queue {} of {}",
        args.queue,
        args.interface
    )?;
    loop {
        queue.turn_round(echo::reply)?;
    }
}
