//! Captures written here byte by byte, sound ones and all the ways in which they are not.

mod damage;
mod formats;

use super::*;

/// Writes captures in one of the two byte orders.
#[derive(Clone, Copy)]
struct Writer {
    big: bool,
}

const LITTLE: Writer = Writer { big: false };
const BIG: Writer = Writer { big: true };

impl Writer {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|&word| self.u32(word)).collect()
    }

    fn pcap(self, magic: u32, link_type: u32, frames: &[&[u8]]) -> Vec<u8> {
        let mut file = self.words(&[magic]);
        file.extend([self.u16(2), self.u16(4)].concat());
        file.extend(self.words(&[0, 0, 65_535, link_type]));
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            file.extend(self.words(&[1, 2, length, length]));
            if magic == 0xa1b2_cd34 {
                file.extend([0xee; 8]);
            }
            file.extend_from_slice(frame);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12).unwrap();
        [self.words(&[kind, length]), body, self.words(&[length])].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        let body = [
            self.words(&[0x1a2b_3c4d]),
            version,
            self.words(&[u32::MAX, u32::MAX]),
        ];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    fn interface(self, link_type: u16, snap_length: u32) -> Vec<u8> {
        let body = [self.u16(link_type), self.u16(0)].concat();
        self.block(1, &[body, self.words(&[snap_length])].concat())
    }

    fn enhanced(self, interface: u32, frame: &[u8], wire_length: u32) -> Vec<u8> {
        let captured = u32::try_from(frame.len()).unwrap();
        let mut body = self.words(&[interface, 0, 0, captured, wire_length]);
        body.extend_from_slice(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        // An option, epb_flags.
        body.extend([self.u16(2), self.u16(4), [1, 0], [0, 0], [0, 0], [0, 0]].concat());
        self.block(6, &body)
    }

    fn simple(self, frame: &[u8], wire_length: u32) -> Vec<u8> {
        self.block(3, &[&self.words(&[wire_length]), frame].concat())
    }
}

/// A source that gives one byte at a time, as a slow pipe may.
struct Dripping<'a>(&'a [u8]);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

fn read(file: &[u8]) -> (Vec<(Vec<u8>, u32)>, Option<CaptureError>) {
    read_from(file)
}

fn read_from(source: impl Read) -> (Vec<(Vec<u8>, u32)>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::new("trace.pcap", source) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => {
                frames.push((frame.bytes.to_vec(), frame.wire_length));
                assert_eq!(frame.number, frames.len() as u64);
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn whole(frames: &[&[u8]]) -> Vec<(Vec<u8>, u32)> {
    let length = |frame: &[u8]| u32::try_from(frame.len()).unwrap();
    frames
        .iter()
        .map(|frame| (frame.to_vec(), length(frame)))
        .collect()
}

fn complaint(file: &[u8]) -> String {
    let (_, error) = read(file);
    error.expect("a complaint").to_string()
}

const FRAMES: [&[u8]; 4] = [&[1; 60], &[], &[2; 61], &[3; 1514]];
