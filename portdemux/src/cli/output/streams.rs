//! What a command says, on standard output and standard error or wherever its caller wants it, and what became of it.
//!
//! Nothing that a command does depends on them: saying something never fails. A reader that has gone away is
//! a reader that has enough. Any other failure is kept for the end, when the work is done.
//!
//! What a verb says is held back until it has given up its lock, as a terminal or a pipe that takes nothing
//! would else keep every other change from being made, and an unconfirmed one from being undone.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

/// Where something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// The two streams of a command. Copies are the same two.
#[derive(Clone)]
pub(super) struct Streams(Arc<Mutex<Said>>);

struct Said {
    output: Box<dyn Write + Send>,
    error: Box<dyn Write + Send>,
    /// What waits until it may be written; none where everything is written at once.
    held: Option<Vec<(Stream, String)>>,
    /// Whether the output takes anything.
    is_read: bool,
    /// Why not, unless its reader went away.
    failure: Option<io::Error>,
}

impl Said {
    fn write(&mut self, stream: Stream, text: &str) {
        match stream {
            // There is nowhere to say that standard error cannot be written.
            Stream::Error => drop(self.error.write_all(text.as_bytes())),
            Stream::Output if self.is_read => {
                let written = self.output.write_all(text.as_bytes());
                if let Err(error) = written.and_then(|()| self.output.flush()) {
                    self.is_read = false;
                    self.failure = (error.kind() != io::ErrorKind::BrokenPipe).then_some(error);
                }
            }
            Stream::Output => {}
        }
    }
}

impl Streams {
    pub(super) fn new(output: Box<dyn Write + Send>, error: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Said {
            output,
            error,
            held: None,
            is_read: true,
            failure: None,
        })))
    }

    /// Says something, once it may be said.
    pub(super) fn say(&self, stream: Stream, text: &str) {
        self.with(|said| match &mut said.held {
            Some(held) => held.push((stream, text.to_owned())),
            None => said.write(stream, text),
        });
    }

    /// Whether what is written to the output from here on comes anywhere.
    pub(super) fn is_read(&self) -> bool {
        self.with(|said| said.is_read)
    }

    /// Holds back what is said until [`Self::release`].
    pub(super) fn hold(&self) {
        self.with(|said| said.held = Some(Vec::new()));
    }

    /// Says what was held back.
    ///
    /// # Errors
    ///
    /// The output could not be written, though its reader is there.
    pub(super) fn release(&self) -> io::Result<()> {
        self.with(|said| {
            for (stream, text) in said.held.take().into_iter().flatten() {
                said.write(stream, &text);
            }
            said.failure.take().map_or(Ok(()), Err)
        })
    }

    /// Forgets what was held back, and goes on holding back.
    pub(super) fn discard(&self) {
        self.with(|said| {
            if let Some(held) = &mut said.held {
                held.clear();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Said) -> T) -> T {
        // Nothing is done under the lock that could leave it poisoned.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}
