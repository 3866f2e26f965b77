//! Bytes of a file in order, with a count of them.

use std::io::{self, ErrorKind, Read};

/// How much is asked of the source at once.
const CHUNK: usize = 256 * 1024;

/// A source that is read in chunks and handed out in pieces.
pub(super) struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    /// What is read and not yet handed out lies in `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Where `buffer[start]` stands in the file.
    position: u64,
}

/// The order of the bytes in a file's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) const fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Big => u64::from_be_bytes(bytes),
            Self::Little => u64::from_le_bytes(bytes),
        }
    }

    pub(super) const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            position: 0,
        }
    }

    /// Where the next byte to be handed out stands in the file, from 0.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// What was read and not yet handed out.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where the file ends, as far as it was read.
    pub(super) const fn end(&self) -> u64 {
        self.position + (self.end - self.start) as u64
    }

    /// The next `N` bytes, which stay where they are; nothing if the file ends before.
    pub(super) fn peek<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        self.fill(N)?;
        Ok(self.rest().first_chunk().copied())
    }

    /// The next `N` bytes, or nothing if the file ends before; then all of it is left.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let array = self.peek()?;
        if array.is_some() {
            self.advance(N);
        }
        Ok(array)
    }

    /// Whether the file has `count` more bytes.
    ///
    /// The buffer grows to `count` bytes if need be: bound it first.
    pub(super) fn holds(&mut self, count: usize) -> io::Result<bool> {
        self.fill(count)
    }

    /// The next `count` bytes, of which [`Self::holds`] said that they are there.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.advance(count.min(self.end - start));
        &self.buffer[start..self.start]
    }

    /// Passes over `count` bytes; says whether the file has as many.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<bool> {
        let mut left = count;
        while left > 0 {
            if self.rest().is_empty() && !self.fill(1)? {
                return Ok(false);
            }
            let available = self.end - self.start;
            let step = usize::try_from(left).map_or(available, |left| left.min(available));
            self.advance(step);
            left -= step as u64;
        }
        Ok(true)
    }

    const fn advance(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Reads on until `count` bytes are there; says whether they are.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.end - self.start < count {
            let held = self.start..self.end;
            let wanted = count.max(CHUNK);
            if self.buffer.len() < wanted {
                // Fresh memory comes zeroed; to zero it here would cost a small file the most.
                let mut buffer = vec![0; wanted];
                buffer[..held.len()].copy_from_slice(&self.buffer[held.clone()]);
                self.buffer = buffer;
            } else {
                self.buffer.copy_within(held.clone(), 0);
            }
            (self.start, self.end) = (0, held.len());
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
