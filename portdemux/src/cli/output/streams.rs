//! Standard output and standard error of this process, and what became of what was said on them.
//!
//! Nothing that a command does depends on them: saying something never fails. A reader that has gone away is
//! a reader that has enough. Any other failure is kept for the end, when the work is done.
//!
//! What a verb says is held back until it has given up its lock, as a terminal or a pipe that takes nothing
//! would else keep every other change from being made, and an unconfirmed one from being undone.

use std::{
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

/// Where something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

#[derive(Debug)]
struct Said {
    /// What waits until it may be written; none where everything is written at once.
    held: Option<Vec<(Stream, String)>>,
    /// Whether standard output takes anything.
    is_read: bool,
    /// Why not, unless its reader went away.
    failure: Option<io::Error>,
}

static SAID: Mutex<Said> = Mutex::new(Said {
    held: None,
    is_read: true,
    failure: None,
});

impl Said {
    fn write(&mut self, stream: Stream, text: &str) {
        match stream {
            // There is nowhere to say that standard error cannot be written.
            Stream::Error => drop(io::stderr().write_all(text.as_bytes())),
            Stream::Output if self.is_read => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(text.as_bytes());
                if let Err(error) = written.and_then(|()| stdout.flush()) {
                    self.is_read = false;
                    self.failure = (error.kind() != io::ErrorKind::BrokenPipe).then_some(error);
                }
            }
            Stream::Output => {}
        }
    }
}

/// Says something, once it may be said.
pub(super) fn say(stream: Stream, text: &str) {
    with(|said| match &mut said.held {
        Some(held) => held.push((stream, text.to_owned())),
        None => said.write(stream, text),
    });
}

/// Whether what is written to standard output from here on comes anywhere.
pub(super) fn is_read() -> bool {
    with(|said| said.is_read)
}

/// Holds back what is said until [`release`].
pub(super) fn hold() {
    with(|said| said.held = Some(Vec::new()));
}

/// Says what was held back.
///
/// # Errors
///
/// Standard output could not be written, though its reader is there.
pub(super) fn release() -> io::Result<()> {
    with(|said| {
        for (stream, text) in said.held.take().into_iter().flatten() {
            said.write(stream, &text);
        }
        said.failure.take().map_or(Ok(()), Err)
    })
}

/// Forgets what was held back, and goes on holding back.
pub(super) fn discard() {
    with(|said| {
        if let Some(held) = &mut said.held {
            held.clear();
        }
    });
}

fn with<T>(act: impl FnOnce(&mut Said) -> T) -> T {
    // Nothing is done under the lock that could leave it poisoned.
    act(&mut SAID.lock().unwrap_or_else(PoisonError::into_inner))
}
