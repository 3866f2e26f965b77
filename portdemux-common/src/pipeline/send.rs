//! A packet that goes out: it makes a flow, and nothing is held up.

use core::{borrow::Borrow as _, hint::cold_path};

use super::{Egress, Scratch};
use crate::{
    conntrack::{self, Direction},
    entry::Entry,
    ids::Generation,
    packet::Packet as _,
    parse::{self, Continuation, Parsed},
    ruleset::RulesetTables as _,
};

/// Notes a packet in its flow.
///
/// Of a TCP segment nothing but the headers can be read at once, and what is sent is a clone of it. To have more read
/// copies the segment, so it is done only where a header is missing.
#[inline(always)]
pub fn send<E: Egress>(environment: E) {
    let mut is_pulled = false;
    loop {
        let frame = environment.frame();
        let written = write_down(environment, &frame);
        if is_pulled || !environment.is_short(&frame) {
            if let Some(mut scratch) = written {
                let _ = note(environment, &mut scratch);
            }
            return;
        }
        cold_path();
        // Where it fails, what can be read is read.
        environment.pull(&frame);
        is_pulled = true;
    }
}

/// Reads a packet and writes it down, if it is of a kind that has flows.
#[inline(always)]
fn write_down<E: Egress>(environment: E, frame: &E::Frame) -> Option<E::Scratch> {
    parse::parse_sound(frame, WriteDown(environment))??;
    // Taken up anew: the ways through the parser would not meet in what they hand on.
    let mut scratch = environment.scratch()?;
    scratch.metadata.read(frame);
    Some(scratch)
}

/// Writes down what was read, if it is of a kind that has flows.
struct WriteDown<E>(E);

impl<E: Egress> Continuation<E::Frame> for WriteDown<E> {
    type Output = Option<()>;

    #[inline(always)]
    fn sound(self, frame: &E::Frame, parsed: &Parsed) -> Option<()> {
        let Self(environment) = self;
        parsed.version?;
        let mut scratch = environment.scratch()?;
        let generation = Generation(environment.ruleset()?.borrow().header().generation);
        let length = frame.length() as u64;
        scratch
            .metadata
            .write_down(parsed, Entry::UNCLAIMED, generation, length, false);
        Some(())
    }
}

/// Notes the packet that was written down.
#[inline(always)]
fn note<E: Egress>(environment: E, scratch: &mut Scratch) -> Option<()> {
    const OUT: Direction = Direction::Sent;
    let ruleset = environment.ruleset()?;
    let ruleset: &E::Rules = ruleset.borrow();
    let Scratch {
        metadata, tracked, ..
    } = scratch;
    *tracked = metadata.sent(environment.segments());
    environment.barrier();
    if tracked.tuple.is_none() {
        return None;
    }
    let port = metadata.source_slot() as usize;
    environment.count(port, tracked.packets, tracked.bytes);
    let tables = environment.tables();
    conntrack::seek(tables, tracked, environment.tick());
    environment.barrier();
    let serves = ruleset.port(port).is_some_and(Entry::is_claimed);
    let timeouts = &ruleset.header().defaults.timeouts;
    conntrack::send(tables, tracked, serves, metadata.may_begin(), timeouts);
    environment.barrier();
    conntrack::remember(tables, tracked, OUT, timeouts)
}
