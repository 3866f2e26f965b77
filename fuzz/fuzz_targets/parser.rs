//! The parser says of every frame, and of what it quotes, what the reference says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portdemux_tests::{answer::Answer, reference};

fuzz_target!(|frame: &[u8]| {
    assert_eq!(Answer::of(frame), reference::answer(frame));
    assert_eq!(Answer::of_quoted(frame), reference::quoted(frame));
});
