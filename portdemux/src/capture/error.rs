//! What can be wrong with a capture file, as it is told to whoever asked for it.

use std::{
    fmt,
    io::{self, Read},
};

use super::{input::Input, link_type::LinkType};
use crate::figures::grouped;

/// A capture file that cannot be read, or not to its end.
#[derive(Debug)]
pub struct CaptureError {
    /// What the file is called.
    pub file: String,
    /// How many frames were read before.
    pub frames: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a capture file; positions count the file's bytes from 0.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named by the messages below")]
pub enum Problem {
    /// It cannot be opened.
    Open(io::Error),
    /// It cannot be read.
    Read(io::Error),
    /// It has not one byte.
    Empty,
    /// It is neither pcap nor pcapng; `start` holds its first bytes.
    NotACapture { start: Vec<u8> },
    /// It is compressed; `unpacker` undoes it to the standard output.
    Compressed {
        format: &'static str,
        unpacker: &'static str,
    },
    /// It holds frames of another kind.
    LinkType(LinkType),
    /// The next frame comes from an interface of another kind.
    InterfaceLinkType { interface: u32, link_type: LinkType },
    /// A section says in neither byte order what its byte order is.
    ByteOrder { at: u64 },
    /// A section is of a version that is not known.
    Version { version: u16, at: u64 },
    /// It ends within its header.
    HeaderCut { end: u64 },
    /// It ends within the next frame or what is said about it.
    FrameCut { end: u64 },
    /// It ends within a block without a frame.
    BlockCut { at: u64, end: u64 },
    /// The next frame has more bytes than any.
    FrameTooLong { length: u32, at: u64 },
    /// The next frame is longer than the block that holds it.
    FrameBeyondBlock { length: u32, at: u64, block: u32 },
    /// A block cannot have the length that it says it has.
    BlockLength { at: u64, length: u32 },
    /// A block says at its end that it has another length.
    BlockEnds { at: u64, length: u32, tail: u32 },
    /// The next frame comes from an interface that the file does not describe.
    NoInterface {
        interface: u32,
        interfaces: usize,
        at: u64,
    },
}

impl CaptureError {
    pub(super) fn new(file: impl Into<String>, frames: u64, problem: Problem) -> Self {
        Self {
            file: file.into(),
            frames,
            problem,
        }
    }

    /// What to do about it, if there is something; `command` is the one for the instance.
    #[must_use]
    pub fn help(&self, command: &str) -> Option<String> {
        match &self.problem {
            Problem::NotACapture { .. } | Problem::Empty => {
                Some("pcap and pcapng are read, as tcpdump -w and dumpcap write them".into())
            }
            Problem::Compressed { unpacker, .. } => Some(format!(
                "{unpacker} {} | {command} explain --pcap -",
                self.file
            )),
            Problem::LinkType(link_type) | Problem::InterfaceLinkType { link_type, .. }
                if link_type.is_cooked() =>
            {
                Some("capture on one interface, not on any: tcpdump -i eth0 -w FILE".into())
            }
            Problem::Open(_)
            | Problem::Read(_)
            | Problem::LinkType(_)
            | Problem::InterfaceLinkType { .. }
            | Problem::ByteOrder { .. }
            | Problem::Version { .. }
            | Problem::HeaderCut { .. }
            | Problem::FrameCut { .. }
            | Problem::BlockCut { .. }
            | Problem::FrameTooLong { .. }
            | Problem::FrameBeyondBlock { .. }
            | Problem::BlockLength { .. }
            | Problem::BlockEnds { .. }
            | Problem::NoInterface { .. } => None,
        }
    }

    /// What is wrong, and with what.
    fn describe(&self) -> (Subject, String) {
        match &self.problem {
            Problem::Open(error) => (Subject::File, format!("cannot be opened: {error}")),
            Problem::Empty => (Subject::File, "is empty".into()),
            Problem::NotACapture { start } => (
                Subject::File,
                format!("is not a capture file: it begins with {}", hex(start)),
            ),
            Problem::Compressed { format, .. } => {
                (Subject::File, format!("is compressed with {format}"))
            }
            Problem::LinkType(link_type) => (
                Subject::File,
                format!("holds frames of link type {link_type}, not Ethernet"),
            ),
            Problem::HeaderCut { end } => (
                Subject::File,
                format!("is cut off in its header, at byte {}", grouped(*end)),
            ),
            Problem::Read(error) if self.frames == 0 => {
                (Subject::File, format!("cannot be read: {error}"))
            }
            Problem::Read(error) => (Subject::Rest, format!("cannot be read further: {error}")),
            Problem::FrameCut { end } => (
                Subject::Frame,
                format!("is cut off at byte {} of the file", grouped(*end)),
            ),
            Problem::FrameTooLong { length, at } => (
                Subject::Frame,
                format!(
                    "at byte {} of the file says that it has {} bytes: no frame is so long",
                    grouped(*at),
                    grouped(*length)
                ),
            ),
            Problem::FrameBeyondBlock { length, at, block } => (
                Subject::Frame,
                format!(
                    "at byte {} of the file says that it has {} bytes, in a block of {}",
                    grouped(*at),
                    grouped(*length),
                    grouped(*block)
                ),
            ),
            Problem::InterfaceLinkType {
                interface,
                link_type,
            } => (
                Subject::Frame,
                format!("comes from interface {interface} of link type {link_type}, not Ethernet"),
            ),
            Problem::NoInterface {
                interface,
                interfaces,
                at,
            } => (
                Subject::Frame,
                format!(
                    "at byte {} of the file comes from interface {interface}, and the file \
                     describes {interfaces} from 0 on",
                    grouped(*at)
                ),
            ),
            Problem::BlockCut { at, end } => (
                Subject::Block(*at),
                format!("is cut off at byte {}", grouped(*end)),
            ),
            Problem::BlockLength { at, length } => (
                Subject::Block(*at),
                format!(
                    "says that it has {} bytes, which it cannot",
                    grouped(*length)
                ),
            ),
            Problem::BlockEnds { at, length, tail } => (
                Subject::Block(*at),
                format!(
                    "says that it has {} bytes, and at its end {}",
                    grouped(*length),
                    grouped(*tail)
                ),
            ),
            Problem::ByteOrder { at } => (
                Subject::Block(*at),
                "begins a section and does not say its byte order".into(),
            ),
            Problem::Version { at, version } => (
                Subject::Block(*at),
                format!("begins a section of version {version}; only version 1 is read"),
            ),
        }
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, what) = self.describe();
        write!(f, "{}: ", self.file)?;
        match subject {
            Subject::File => return f.write_str(&what),
            Subject::Rest => f.write_str(&what)?,
            Subject::Frame => write!(f, "frame {} {what}", grouped(self.frames + 1))?,
            Subject::Block(at) => {
                write!(f, "the block at byte {} of the file {what}", grouped(at))?;
            }
        }
        match self.frames {
            0 => f.write_str("; no frame was read before"),
            1 => f.write_str("; the one frame before was read"),
            frames => write!(f, "; the {} frames before it were read", grouped(frames)),
        }
    }
}

/// What a problem is one of.
enum Subject {
    /// The file as a whole: no frame can be read.
    File,
    /// What is left of the file.
    Rest,
    /// The next frame.
    Frame,
    /// The block at this byte.
    Block(u64),
}

impl std::error::Error for CaptureError {}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Problem {
    pub(super) fn header_cut<R: Read>(input: &Input<R>) -> Self {
        Self::HeaderCut { end: input.end() }
    }

    pub(super) fn frame_cut<R: Read>(input: &Input<R>) -> Self {
        Self::FrameCut { end: input.end() }
    }

    pub(super) fn block_cut<R: Read>(input: &Input<R>, at: u64) -> Self {
        Self::BlockCut {
            at,
            end: input.end(),
        }
    }
}

/// The name of the compression that a file's first bytes tell of, and what undoes it to the standard
/// output.
pub(super) const fn compression(magic: [u8; 4]) -> Option<(&'static str, &'static str)> {
    match magic {
        [0x1f, 0x8b, ..] => Some(("gzip", "gunzip -c")),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(("zstd", "zstdcat")),
        [0x04, 0x22, 0x4d, 0x18] => Some(("lz4", "lz4cat")),
        [0xfd, b'7', b'z', b'X'] => Some(("xz", "xzcat")),
        [b'B', b'Z', b'h', _] => Some(("bzip2", "bzcat")),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
