//! What a program logs with `aya-log-ebpf`, as texts.

use std::{
    fmt,
    sync::mpsc::{self, Receiver, Sender},
};

use anyhow::Result;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Metadata, Record};

/// The log of one program.
pub(super) struct ProgramLog {
    /// Turns the kernel's records into texts.
    logger: EbpfLogger<LogSink>,
    lines: Receiver<String>,
}

/// Where the texts go.
struct LogSink(Sender<String>);

impl ProgramLog {
    /// The log of an object's programs, which are loaded with a level other than 0.
    ///
    /// # Errors
    ///
    /// The object logs nothing.
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let (sender, lines) = mpsc::channel();
        Ok(Self {
            logger: EbpfLogger::init_with_logger(object, LogSink(sender))?,
            lines,
        })
    }

    /// Takes what was logged since the last time.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.logger.flush();
        self.lines.try_iter().collect()
    }
}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramLog").finish_non_exhaustive()
    }
}

impl log::Log for LogSink {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Both ends are held by the same value: nobody is left to miss it.
        let _ = self.0.send(record.args().to_string());
    }

    fn flush(&self) {}
}
