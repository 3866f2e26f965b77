//! What a person sees while nothing else can be said yet.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

/// How long nothing needs to be said.
const SOON: Duration = Duration::from_millis(500);

/// What takes long at the moment.
static CURRENT: Mutex<Option<ProgressLine>> = Mutex::new(None);

/// Begins to say on a terminal what takes long, in one short line.
pub(in crate::cli) fn begin(what: &'static str) {
    set(Some(ProgressLine::of(what)));
}

/// Says no more of it.
pub(in crate::cli) fn end() {
    set(None);
}

fn set(progress: Option<ProgressLine>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = progress;
}

/// Says on a terminal what takes long, for as long as it lives.
#[derive(Debug)]
struct ProgressLine(Option<(Sender<()>, JoinHandle<()>)>);

impl ProgressLine {
    fn of(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (end, ended) = mpsc::channel();
        let watch = move || {
            if ended.recv_timeout(SOON) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            say(what);
            // Nothing is sent: this returns when the sender is gone.
            let _ = ended.recv();
            say("\r\x1b[K");
        };
        // Without a thread the work goes on in silence.
        let thread = Builder::new().spawn(watch).ok();
        Self(thread.map(|thread| (end, thread)))
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

/// Writes at once, and past what is held back.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
