//! All frames of a capture, one after the other.

use std::{collections::BTreeSet, io::Read, net::IpAddr};

use anyhow::Result;
use portdemux_common::{
    conntrack::Direction,
    parse::{self, Address},
};

pub use super::table::Tally;
use super::{Basis, agreement::Agreement, explained::ip_address, table::FrameTable};
use crate::capture::{Capture, CaptureError};

/// How much text is gathered before it is written.
const CHUNK: usize = 64 * 1024;

/// How explained frames are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object in each line.
    Json,
    /// A table whose lines have at most so many characters, with a summary at its end.
    Table {
        /// How many.
        columns: usize,
    },
}

/// Which way frames go.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// The host's addresses: what comes from one of them and is for none goes out. Without any, everything comes in.
    pub addresses: BTreeSet<IpAddr>,
    /// The way of the frames that are explained, if it is not both. The others are followed if that is asked for.
    pub only: Option<Direction>,
}

impl Ways {
    /// Which way a frame goes.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> Direction {
        if self.addresses.is_empty() {
            return Direction::Received;
        }
        let parsed = parse::parse(bytes);
        let is_own = |address: Option<Address>| {
            address.is_some_and(|address| self.addresses.contains(&ip_address(address)))
        };
        if is_own(parsed.source(bytes)) && !is_own(parsed.destination(bytes)) {
            Direction::Sent
        } else {
            Direction::Received
        }
    }
}

/// What was found in a capture.
#[derive(Debug)]
pub struct Findings {
    /// How many frames came to what.
    pub tally: Tally,
    /// How many frames were captured in part only. They are explained as they stand in the capture;
    /// one that is cut within its packet is malformed so.
    pub cut: u64,
    /// Why the capture could not be read to its end, if it could not.
    pub error: Option<CaptureError>,
}

/// Explains the frames of a capture that go the `ways` that are asked for and writes that with `write`, which says
/// whether anybody still reads it;
/// the kernel is asked, too, if there is an [`Agreement`]. None if nobody read it to its end.
///
/// A capture that cannot be read to its end is explained as far as it goes. Of a capture that comes
/// bit by bit through a pipe everything is written as it comes.
///
/// # Errors
///
/// The kernel does not run the shadow program.
pub fn explain<R: Read>(
    capture: &mut Capture<R>,
    basis: &Basis<'_>,
    mut agreement: Option<&mut Agreement>,
    format: Format,
    ways: &Ways,
    mut write: impl FnMut(&str) -> bool,
) -> Result<Option<Findings>> {
    let columns = match format {
        Format::Table { columns } => columns,
        Format::Json => usize::MAX,
    };
    let table = FrameTable::new(basis, columns);
    let mut text = String::with_capacity(CHUNK + 1024);
    let mut findings = Findings {
        tally: Tally::new(),
        cut: 0,
        error: None,
    };
    if format != Format::Json {
        table.head(&mut text);
    }
    loop {
        if text.len() >= CHUNK || capture.is_drained() {
            if !write(&text) {
                return Ok(None);
            }
            text.clear();
        }
        let frame = match capture.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                findings.error = Some(error);
                break;
            }
        };
        let direction = ways.of(frame.bytes);
        let mut explained = basis.explain_going(direction, frame.number, frame.bytes, frame.time);
        if ways.only.is_some_and(|only| only != direction) {
            continue;
        }
        findings.cut += u64::from(frame.is_cut());
        let log = match &mut agreement {
            Some(agreement) => agreement.check(basis, &mut explained)?,
            None => None,
        };
        findings.tally.count(&explained);
        match format {
            Format::Json => {
                text.push_str(&serde_json::to_string(&explained.line(log))?);
                text.push('\n');
            }
            Format::Table { .. } => table.row(&explained, log.as_deref(), &mut text),
        }
    }
    if format != Format::Json {
        findings.tally.write(&mut text);
    }
    Ok(write(&text).then_some(findings))
}
