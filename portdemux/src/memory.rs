//! The memory of the command.
//!
//! Where there is no more, the standard library ends the process with a signal, or waits for ever if it wanted to say
//! where. This says it and ends the process as any failure does. That can come between any two steps, as a kill can:
//! what is in force is whole.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{self, Write as _},
    process,
    sync::OnceLock,
};

/// The command for the instance that is meant.
static COMMAND: OnceLock<String> = OnceLock::new();

/// Says how the command for the instance is written, while there is memory.
pub(crate) fn know_command(command: String) {
    let _: Result<(), String> = COMMAND.set(command);
}

/// The system's memory, which says when there is no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

#[expect(unsafe_code, reason = "an allocator is unsafe by its contract")]
// SAFETY: every call is handed to the system's allocator as it comes, and what that returns is returned, unless it is
// nothing: then there is no return.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises what the system's allocator asks for.
        had(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        had(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        had(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; all memory comes from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn had(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        let command = COMMAND.get().map_or("portdemux", String::as_str);
        let mut text = [0; 200];
        let mut rest = &mut text[..];
        let _ = writeln!(
            rest,
            "error: {size} bytes of memory cannot be had\n help: {command} status says what is in force"
        );
        let left = rest.len();
        let said = &text[..text.len() - left];
        // Without a lock and without memory. There is nowhere to say that standard error is closed.
        let _ = rustix::io::write(io::stderr(), said);
        process::exit(1);
    }
    pointer
}
