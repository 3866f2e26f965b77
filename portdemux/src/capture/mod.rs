//! Frames from capture files: pcap and pcapng, as `tcpdump -w` and `dumpcap` write them.
//!
//! Files are read as a stream: memory does not grow with them, a pipe serves as well as a file, and a
//! file that is still being written is read as far as it goes. Both formats say how long everything
//! in them is; what they say is checked before it is believed, and a file that ends early or lies is
//! an error that tells how far it was read. A file is never searched for the next frame after such an
//! error: what would be found could be part of another frame.
//!
//! A frame check sequence at the end of a frame is left there; to the parser it is padding.

mod error;
mod input;
mod link_type;
mod pcap;
mod pcapng;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub use error::{CaptureError, Problem};
use input::Input;
pub use link_type::LinkType;
use pcap::Pcap;
use pcapng::Pcapng;

/// The longest frame that is believed to be one: what libpcap takes as the longest snapshot
/// (`pcap-int.h`, `MAXIMUM_SNAPLEN`).
pub const MAX_FRAME: u32 = 262_144;

/// A frame as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number in the file, from 1.
    pub number: u64,
    /// What was captured of it, from the destination MAC address on.
    pub bytes: &'a [u8],
    /// How many bytes it had on the wire.
    pub wire_length: u32,
    /// When it was captured, in nanoseconds since 1970; nothing if the file does not say.
    pub time: Option<u64>,
}

impl Frame<'_> {
    /// Whether the capture kept less of it than there was on the wire (`tcpdump -s`).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.wire_length as usize
    }
}

/// A capture file that is being read.
pub struct Capture<R> {
    name: String,
    format: FileFormat,
    input: Input<R>,
    frames: u64,
}

enum FileFormat {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// What a format's reader found: where in the buffer a frame lies, its length on the wire, and its time.
struct RawFrame<'a> {
    bytes: &'a [u8],
    wire_length: u32,
    time: Option<u64>,
}

type Result<T, E = CaptureError> = std::result::Result<T, E>;

impl Capture<Box<dyn Read>> {
    /// Opens a capture file; `-` is the standard input.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is no capture of Ethernet frames.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::new("standard input", Box::new(io::stdin().lock()));
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::new(name, Box::new(file)),
            Err(error) => Err(CaptureError::new(name, 0, Problem::Open(error))),
        }
    }
}

impl<R: Read> Capture<R> {
    /// Reads a capture from its first byte on; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is no capture of Ethernet frames.
    pub fn new(name: impl Into<String>, source: R) -> Result<Self> {
        let name = name.into();
        let mut input = Input::new(source);
        match detect(&mut input) {
            Ok(format) => Ok(Self {
                name,
                format,
                input,
                frames: 0,
            }),
            Err(problem) => Err(CaptureError::new(name, 0, problem)),
        }
    }

    /// Whether everything that was read from the source was handed out: the next frame has to be
    /// waited for, if the source is slow.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.input.rest().is_empty()
    }

    /// The next frame, or nothing at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file ends within a frame, lies about a length, or cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let found = match &mut self.format {
            FileFormat::Pcap(pcap) => pcap.next(&mut self.input),
            FileFormat::Pcapng(pcapng) => pcapng.next(&mut self.input),
        };
        match found {
            Ok(None) => Ok(None),
            Ok(Some(RawFrame {
                bytes,
                wire_length,
                time,
            })) => {
                self.frames += 1;
                Ok(Some(Frame {
                    number: self.frames,
                    bytes,
                    wire_length,
                    time,
                }))
            }
            Err(problem) => Err(CaptureError::new(&self.name, self.frames, problem)),
        }
    }
}

/// Tells the format by the first bytes and reads the file's header.
fn detect<R: Read>(input: &mut Input<R>) -> Result<FileFormat, Problem> {
    let Some(magic) = input.peek()? else {
        return Err(match input.rest() {
            [] => Problem::Empty,
            start => Problem::NotACapture {
                start: start.to_vec(),
            },
        });
    };
    if magic == pcapng::SECTION_HEADER {
        return Pcapng::open(input).map(FileFormat::Pcapng);
    }
    if let Some(pcap) = Pcap::open(magic, input)? {
        return Ok(FileFormat::Pcap(pcap));
    }
    Err(match error::compression(magic) {
        Some((format, unpacker)) => Problem::Compressed { format, unpacker },
        None => Problem::NotACapture {
            start: magic.to_vec(),
        },
    })
}
