//! All frames of a capture, one after the other.

use std::io::Read;

use anyhow::Result;

pub use super::table::Tally;
use super::{Basis, agreement::Agreement, table::Table};
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

/// Explains every frame of a capture and writes that with `write`, which says whether anybody still reads it;
/// the kernel is asked, too, if there is an [`Agreement`]. None if nobody read it to its end.
///
/// A capture that cannot be read to its end is explained as far as it goes. Of a capture that comes
/// bit by bit through a pipe everything is written as it comes.
///
/// # Errors
///
/// The kernel does not run the twin.
pub fn explain<R: Read>(
    capture: &mut Capture<R>,
    basis: &Basis,
    mut agreement: Option<&mut Agreement>,
    format: Format,
    mut write: impl FnMut(&str) -> bool,
) -> Result<Option<Findings>> {
    let columns = match format {
        Format::Table { columns } => columns,
        Format::Json => usize::MAX,
    };
    let table = Table::new(basis, columns);
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
        findings.cut += u64::from(frame.is_cut());
        let explained = basis.explain(frame.number, frame.bytes);
        findings.tally.count(&explained);
        let log = match &mut agreement {
            Some(agreement) => agreement.check(&explained)?,
            None => None,
        };
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
