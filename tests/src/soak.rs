//! Traffic of every kind under rules that change all the time, and not one packet miscounted.
//!
//! At the client's end of a wire a packet socket writes down all that is sent, at the server's end others all
//! that the program lets through and all that the host answers. From time to time the traffic is held up, and
//! every counter has to say what they saw.

mod changes;
mod ledger;
mod traffic;

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use changes::Changes;
use ledger::Ledger;
use portdemux_common::capacity::PORT_SLOTS;
use traffic::Senders;

use crate::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
};

/// How many bytes the tables of the largest ruleset made here take: a number for each source port and for each port with
/// a shadow, and little else.
const LARGEST: u64 = 2 * 4 * PORT_SLOTS as u64 + (64 << 10);

/// How many bytes the map of tables can come to take: a ruleset in force that begins behind the room for another, and
/// two more.
const TABLES: u64 = 4 * LARGEST;

/// How long the traffic flows between two looks at the counters.
const INTERVAL: Duration = Duration::from_secs(5);

/// What a look found, after which everything goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Since when the traffic flows.
    pub after: Duration,
    /// Frames that the client sent, all of which were counted.
    pub sent: u64,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that the host sent.
    pub answered: u64,
    /// Ports of which every counter was held to what was seen.
    pub ports: usize,
    /// Reasons that were given.
    pub reasons: usize,
    /// Changes of rules, sets and programs that were made meanwhile.
    pub changes: u64,
    /// Flows that are remembered, and half-open ones.
    pub flows: [u64; 2],
    /// Flows for which there is room, and half-open ones.
    pub room: [u64; 2],
    /// Memory of the kernel that the maps take, in bytes, without the map of tables.
    pub memory: u64,
    /// What that takes, in bytes.
    pub tables: u64,
    /// Programs in the kernel that use the maps.
    pub programs: usize,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5.0} s  {} frames sent and counted, {} dropped, {} answered; {} ports, {} reasons; \
             {} changes; flows {} of {}, half-open {} of {}; {} KiB and {} KiB of tables, {} programs",
            self.after.as_secs_f64(),
            self.sent,
            self.dropped,
            self.answered,
            self.ports,
            self.reasons,
            self.changes,
            self.flows[0],
            self.room[0],
            self.flows[1],
            self.room[1],
            self.memory >> 10,
            self.tables >> 10,
            self.programs
        )
    }
}

/// Soaks an instance in `mode` for some time and shows every look.
///
/// # Errors
///
/// If any counter differs from what was seen, a table is fuller than it can be, or memory or programs
/// become more; or if a lab cannot be made.
pub fn run(mode: &str, time: Duration, seed: u64, show: impl Fn(&Look)) -> Result<Look> {
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let mut changes = Changes::new(&portdemux, seed);
    changes.begin()?;
    let mut ledger = Ledger::open(&lab)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
    ledger.begin()?;
    let ledger = Mutex::new(ledger);
    let gate = RwLock::new(());
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        let traffic = Senders {
            lab: &lab,
            gate: &gate,
            is_over: &is_over,
            seed,
        };
        let reader = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                lock(&ledger).read()?;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let senders = traffic.start(scope)?;
        let mut soak = || -> Result<Look> {
            let mut first: Option<Look> = None;
            loop {
                let next = Instant::now() + INTERVAL.min(time / 3);
                while Instant::now() < next {
                    changes.make_one()?;
                }
                let mut look = {
                    let _held_up = gate.write().map_err(|_| anyhow!("a sender panicked"))?;
                    lock(&ledger).agrees(&portdemux)?
                };
                look.after = begun.elapsed();
                look.changes = changes.made();
                show(&look);
                // Buckets fill unevenly, so that there are twice as many places as are asked for.
                let indices = [2 * look.room[0], look.room[1]];
                for (count, indices) in look.flows.iter().zip(indices) {
                    ensure!(*count <= indices, "{count} flows in {indices} places");
                }
                let first = first.get_or_insert_with(|| look.clone());
                // The map of tables grows with the largest ruleset there was, and does not shrink.
                let lasting = |look: &Look| (look.memory, look.programs, look.room);
                ensure!(
                    lasting(&look) == lasting(first) && look.tables <= TABLES,
                    "memory or programs became more: {first}\n{look}"
                );
                if begun.elapsed() >= time {
                    return Ok(look);
                }
            }
        };
        let result = soak();
        is_over.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        let result = read.and(result);
        for (what, sender) in senders {
            let sent = sender.join().map_err(|_| anyhow!("{what} panicked"))?;
            let sent = sent.with_context(|| format!("send {what}"))?;
            // Whatever the rules were, it was tried.
            ensure!(result.is_err() || sent > 0, "no {what} was sent");
        }
        result
    })
}

fn lock<'a, 'l>(ledger: &'a Mutex<Ledger<'l>>) -> MutexGuard<'a, Ledger<'l>> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
