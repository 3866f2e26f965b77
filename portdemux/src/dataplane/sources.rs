//! The map of the tables of sources, in which those of two rulesets have room beside each other.

use std::{
    fs,
    net::IpAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use portdemux_common::{
    parse::Version,
    policy::Policy,
    sources::{Admission, MAX_WORDS, Sources, Table},
};

use super::{
    links,
    mapped::Mapped,
    maps::{self, Maps},
    steering,
};
use crate::{
    error::Help as _,
    image::sources::{
        Control, Numbering,
        live::{self, Become},
        store::{NoRoom, Store},
    },
};

/// Name of the map of the tables of sources.
pub const SOURCES: &str = "SOURCES";

/// How many words the map of an instance has that uses few sources or none.
pub(super) const FEWEST_WORDS: u32 = 1 << 16;

const WORD: usize = size_of::<u64>();
/// Tables begin at lines of the cache.
const LINE: usize = 8;

/// Writes tables where no program reads, and says where that is; the map grows if it must.
///
/// The ruleset in force stays, and no program reads the one before any more.
pub(super) fn place(maps: &Maps, sources: &mut Sources, words: &[u64]) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    if maps.sources().bytes() != FEWEST_WORDS as usize * WORD {
        // It grew once; whoever did that may have been stopped before all programs had the new one.
        renew(maps)?;
    }
    let in_force = maps.header().sources;
    let (begin, end) = (
        in_force.begin as usize,
        (in_force.begin + in_force.words) as usize,
    );
    // Room for changes: another quarter, and a little.
    let room = (words.len() + words.len() / 4 + (1 << 12)).next_multiple_of(LINE);
    let capacity = maps.sources().bytes() / WORD;
    let place = if room <= begin {
        0
    } else {
        if end + room > capacity {
            let enough = end + room;
            grow(maps, &in_force, (enough + room).min(MAX_WORDS).max(enough))?;
        }
        end
    };
    sources.begin = u32::try_from(place)?;
    sources.words = u32::try_from(room)?;
    maps.sources().write(place * WORD, words);
    Ok(())
}

/// The words of tables that are taken.
pub(super) fn read(map: &Mapped, sources: &Sources) -> Vec<u64> {
    let begin = sources.begin as usize * WORD;
    let is_there = sources.words > 0 && begin + sources.words as usize * WORD <= map.bytes();
    if !is_there {
        return Vec::new();
    }
    let next = map
        .word(begin + Control::Next as usize * WORD)
        .load(Ordering::Acquire);
    let taken = usize::try_from(next).unwrap_or(usize::MAX);
    let mut words = vec![0; taken.min(sources.words as usize)];
    map.read(begin, &mut words);
    words
}

/// The tables in force, which programs read.
struct Live {
    map: Arc<Mapped>,
    begin: usize,
    words: u32,
}

impl Live {
    fn at(&self, place: u32) -> &AtomicU64 {
        self.map.word((self.begin + place as usize) * WORD)
    }
}

impl Store for Live {
    fn next(&self) -> u32 {
        u32::try_from(self.read(Control::Next as u32)).unwrap_or(u32::MAX)
    }

    fn take_to(&mut self, next: u32) -> Result<(), NoRoom> {
        if next > self.words {
            return Err(NoRoom::Full);
        }
        self.publish(Control::Next as u32, next.into());
        Ok(())
    }

    fn read(&self, place: u32) -> u64 {
        if place < self.words {
            self.at(place).load(Ordering::Relaxed)
        } else {
            0
        }
    }

    fn write(&mut self, place: u32, words: &[u64]) {
        self.map.write((self.begin + place as usize) * WORD, words);
    }

    fn publish(&mut self, place: u32, word: u64) {
        self.at(place).store(word, Ordering::Release);
    }
}

/// The tables in force at a moment.
struct Frozen<'l> {
    live: &'l Live,
    now: u64,
}

impl Table for Frozen<'_> {
    fn word(&self, place: u32) -> Option<u64> {
        (place < self.live.words).then(|| self.live.read(place))
    }

    fn now(&self) -> u64 {
        self.now
    }
}

impl Maps {
    /// How many changes of sets the tables in force have.
    pub(crate) fn source_changes(&self) -> u64 {
        match self.live() {
            Some((live, _)) => live.read(Control::Changes as u32),
            None => 0,
        }
    }

    /// Says how many changes of sets the tables in force have.
    pub(super) fn set_source_changes(&self, count: u64) {
        if let Some((mut live, _)) = self.live() {
            live.publish(Control::Changes as u32, count);
        }
    }

    /// Changes who is in some of the lists in force: the number of the list, the prefix, and what it
    /// becomes. After it the tables have `count` changes.
    ///
    /// # Errors
    ///
    /// The tables have to be built anew; some of the changes may be made.
    pub(crate) fn change_sources(
        &self,
        numbering: &Numbering,
        changes: &[(u16, IpNet, Become)],
        count: u64,
    ) -> Result<()> {
        let Some((mut live, sources)) = self.live() else {
            return if changes.is_empty() {
                Ok(())
            } else {
                Err(NoRoom::Unwieldy.into())
            };
        };
        if self.sources().bytes() != FEWEST_WORDS as usize * WORD {
            renew(self)?;
        }
        for (atom, prefix, becomes) in changes {
            live::change(&mut live, &sources, numbering, *atom, prefix, *becomes)?;
        }
        live.publish(Control::Changes as u32, count);
        Ok(())
    }

    /// Whether an address is in one of the lists in force; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    /// None if the tables do not say.
    pub(crate) fn is_listed(&self, atom: u16, address: IpAddr, now: u64) -> Option<bool> {
        let (live, sources) = self.live()?;
        let policy = Policy {
            from: atom + 1,
            ..Policy::default()
        };
        let (version, source) = match address {
            IpAddr::V4(address) => (Version::V4, [address.to_bits().into(), 0]),
            IpAddr::V6(address) => {
                let [high, low]: [[u8; 8]; 2] = bytemuck::cast(address.octets());
                (Version::V6, [high, low].map(u64::from_be_bytes))
            }
        };
        let table = Frozen { live: &live, now };
        let sources = Sources {
            begin: 0,
            ..sources
        };
        Some(sources.admit(&table, version, source, &policy) == Admission::Admitted)
    }

    fn live(&self) -> Option<(Live, Sources)> {
        let sources = self.header().sources;
        let map = self.sources();
        let begin = sources.begin as usize;
        let is_there = sources.words > 0 && (begin + sources.words as usize) * WORD <= map.bytes();
        let live = Live {
            map,
            begin,
            words: sources.words,
        };
        is_there.then_some((live, sources))
    }
}

/// Puts a map of this many words in the place of the one there is.
///
/// The tables in force stand at the same place in both, so that it does not matter which of them a
/// program reads until all have the new one.
fn grow(maps: &Maps, in_force: &Sources, capacity: usize) -> Result<()> {
    if capacity > MAX_WORDS {
        return Err(anyhow::anyhow!(
            "the lists of sources take {} MiB, those in force included, {} MiB at most",
            (capacity * WORD) >> 20,
            (MAX_WORDS * WORD) >> 20
        ))
        .help(|| {
            "join prefixes to shorter ones, or let rules share a set; nothing was changed".into()
        });
    }
    let pin = maps.directory.join(SOURCES);
    let unborn = maps.directory.join(format!("{SOURCES}_new"));
    // What a killed writer left.
    let _ = fs::remove_file(&unborn);
    maps::create(&unborn, SOURCES, WORD, u32::try_from(capacity)?)?;
    let grown = maps::open(&unborn, WORD, Some(capacity))?;
    grown.write(
        in_force.begin as usize * WORD,
        &read(&maps.sources(), in_force),
    );
    fs::rename(&unborn, &pin).with_context(|| format!("move the new map to {}", pin.display()))?;
    *maps.sources.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grown);
    renew(maps)
}

/// Gives the map that is pinned to all programs that have another.
fn renew(maps: &Maps) -> Result<()> {
    for place in links::renew(maps).context("give the programs a larger map of sources")? {
        maps.note_version(place);
    }
    steering::renew(maps).context("give the program for sockets a larger map of sources")
}
