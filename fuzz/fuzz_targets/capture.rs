//! A capture file is frames, in bounded memory, however it is handed out; or it is an error.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use portdemux::capture::{Capture, MAX_FRAME};

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(bytes);
    let in_drops = frames(Drops(bytes));
    assert_eq!(whole, in_drops);
});

/// The bytes of a frame, and when it was captured, in nanoseconds since 1970.
type Frame = (Vec<u8>, Option<u64>);

/// Everything that is read of a file, and the error at its end.
fn frames(source: impl Read) -> (Vec<Frame>, Option<String>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::new("capture", source) {
        Ok(capture) => capture,
        Err(err) => return (frames, Some(err.to_string())),
    };
    loop {
        match capture.next_frame() {
            Ok(None) => return (frames, None),
            Err(err) => return (frames, Some(err.to_string())),
            Ok(Some(frame)) => {
                assert_eq!(frame.number, frames.len() as u64 + 1);
                assert!(frame.bytes.len() <= MAX_FRAME as usize);
                frames.push((frame.bytes.to_vec(), frame.time));
            }
        }
    }
}

/// A file that is handed out a few bytes at a time.
struct Drops<'b>(&'b [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = buffer.len().min(3);
        self.0.read(&mut buffer[..few])
    }
}
