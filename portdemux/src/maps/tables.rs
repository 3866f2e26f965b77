//! The map of the tables of rulesets that only some packets ask, in which those of two rulesets have room beside each
//! other: first what their claims and terms are found in, then the tables of sources.

use std::{
    fs,
    net::IpAddr,
    ops::Range,
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
    ruleset::{Header, LINE, Part, RulesetImage, TableIndex},
    sources::{Admission, MAX_WORDS, SourceTable, Sources},
};

use crate::{
    error::Help as _,
    image::{
        self,
        sources::{
            ControlWord, Numbering,
            live::{self, Become},
            store::{NoRoom, Store},
        },
    },
    maps::{self, Maps, layout::AddressLayout, mapped::Mapped},
};

/// Name of the map of tables.
pub const TABLES: &str = "TABLES";

/// How many words the map of an instance has whose rulesets need few tables or none.
pub(crate) const FEWEST_WORDS: usize = 1 << 16;

const WORD: usize = size_of::<u64>();
/// Bytes of a value of the map.
pub(crate) const LINE_BYTES: usize = LINE * WORD;

/// Gives the map that is pinned to all programs that have another: the programs do, which lie above the maps.
pub(crate) type Renew<'r> = &'r dyn Fn(&Maps) -> Result<()>;

/// The part of the map that a ruleset has, in words.
fn part(header: &Header) -> Range<usize> {
    let (tables, sources) = (&header.tables, &header.sources);
    let begin = tables.begin as usize;
    begin..(begin + tables.words as usize).max(sources.begin as usize + sources.words as usize)
}

/// Writes the tables of an image and of its sources where no program reads, and says in `header`, which is to be the
/// image's, where that is; the map grows if it must.
///
/// The ruleset in force stays, and no program reads the one before any more.
pub(crate) fn slot(
    maps: &Maps,
    header: &mut Header,
    image: &RulesetImage,
    sources: &[u64],
    renew: Renew<'_>,
) -> Result<()> {
    let in_force = maps.header();
    header.tables = image::index(header);
    header.tables.capacity = in_force.tables.capacity;
    let tables = header.tables.words as usize;
    // Room for changes of sources: another quarter, and a little.
    let room = match sources.len() {
        0 => 0,
        length => (length + length / 4 + (1 << 12)).next_multiple_of(LINE),
    };
    let map = maps.tables_of(&in_force);
    if map.bytes() != FEWEST_WORDS * WORD {
        // It grew once; whoever did that may have been stopped before all programs had the new one.
        renew(maps)?;
    }
    let mut capacity = map.bytes() / WORD;
    let (Range { start, end }, all) = (part(&in_force), tables + room);
    let slot = if all <= start {
        0
    } else {
        if end + all > capacity {
            let enough = end + all;
            capacity = (enough + all).min(MAX_WORDS).max(enough);
            debug_assert!(capacity.is_multiple_of(LINE), "parts are whole lines");
            grow(maps, &in_force, capacity, renew)?;
        }
        end
    };
    header.tables.capacity = u32::try_from(capacity)?;
    begin_at(header, slot)?;
    header.sources.begin = u32::try_from(slot + tables)?;
    header.sources.words = u32::try_from(room)?;
    let map = maps.tables();
    write(&map, &header.tables, image);
    map.write((slot + tables) * WORD, sources);
    Ok(())
}

/// Says that the tables of the ruleset with this header, which are measured, lie from this word on, which begins a line.
pub(crate) fn begin_at(header: &mut Header, slot: usize) -> Result<()> {
    let tables = &mut header.tables;
    tables.begin = u32::try_from(slot)?;
    header.lines = tables
        .parts
        .map(|first| (tables.begin + first) >> LINE.ilog2());
    Ok(())
}

/// Writes the tables of an image where an index says.
pub(crate) fn write(map: &Mapped, index: &TableIndex, image: &RulesetImage) {
    let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(image));
    let [_, tables @ ..] = image::parts(&image.header);
    for (first, table) in index.parts.iter().zip(tables) {
        map.write((index.begin + first) as usize * WORD, &words[table]);
    }
}

/// Reads the tables of an image whose head is known; `older` says how slots of addresses look in it, if not as in
/// this binary's.
pub(crate) fn read_into(map: &Mapped, image: &mut RulesetImage, older: Option<AddressLayout>) {
    const ADDRESS_PARTS: [usize; 2] = [Part::V4 as usize, Part::V6 as usize];
    let (index, [_, tables @ ..]) = (image.header.tables, image::parts(&image.header));
    let begin = index
        .parts
        .map(|first| (index.begin + first) as usize * WORD);
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(image));
    for (part, table) in tables.into_iter().enumerate() {
        if older.is_none() || !ADDRESS_PARTS.contains(&part) {
            map.read(begin[part], &mut words[table]);
        }
    }
    if let Some(older) = older {
        older.read(map, ADDRESS_PARTS.map(|part| begin[part]), image);
    }
}

/// The words of tables of sources that are taken.
pub(crate) fn read(map: &Mapped, sources: &Sources) -> Vec<u64> {
    let begin = sources.begin as usize * WORD;
    let is_there = sources.words > 0 && begin + sources.words as usize * WORD <= map.bytes();
    if !is_there {
        return Vec::new();
    }
    let next = map
        .word(begin + ControlWord::Next as usize * WORD)
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
    fn at(&self, slot: u32) -> &AtomicU64 {
        self.map.word((self.begin + slot as usize) * WORD)
    }
}

impl Store for Live {
    fn next(&self) -> u32 {
        u32::try_from(self.read(ControlWord::Next as u32)).unwrap_or(u32::MAX)
    }

    fn take_to(&mut self, next: u32) -> Result<(), NoRoom> {
        if next > self.words {
            return Err(NoRoom::Full);
        }
        self.publish(ControlWord::Next as u32, next.into());
        Ok(())
    }

    fn read(&self, slot: u32) -> u64 {
        if slot < self.words {
            self.at(slot).load(Ordering::Acquire)
        } else {
            0
        }
    }

    fn write(&mut self, slot: u32, words: &[u64]) {
        self.map.write((self.begin + slot as usize) * WORD, words);
    }

    fn publish(&mut self, slot: u32, word: u64) {
        self.at(slot).store(word, Ordering::Release);
    }
}

/// The tables in force at a moment.
struct Frozen<'l> {
    live: &'l Live,
    now: u64,
}

impl SourceTable for Frozen<'_> {
    fn word(&self, slot: u32) -> Option<u64> {
        (slot < self.live.words).then(|| self.live.read(slot))
    }

    fn now(&self) -> u64 {
        self.now
    }
}

impl Maps {
    /// The map of tables.
    pub(crate) fn tables(&self) -> Arc<Mapped> {
        // Nothing is done under the lock that could leave it poisoned.
        Arc::clone(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The map of tables that the ruleset with this header lies in: another process may have put a larger one in
    /// the slot of ours.
    pub(crate) fn tables_of(&self, header: &Header) -> Arc<Mapped> {
        let map = self.tables();
        let capacity = header.tables.capacity as usize * WORD;
        if capacity == 0 || capacity == map.bytes() {
            return map;
        }
        let Ok(larger) = maps::open(&self.directory.join(TABLES), LINE_BYTES, None) else {
            return map;
        };
        let larger = Arc::new(larger);
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&larger);
        larger
    }

    /// How many changes of sets the tables in force have.
    pub(crate) fn source_changes(&self) -> u64 {
        match self.live() {
            Some((live, _)) => live.read(ControlWord::Changes as u32),
            None => 0,
        }
    }

    /// Says how many changes of sets the tables in force have.
    pub(crate) fn set_source_changes(&self, count: u64) {
        if let Some((mut live, _)) = self.live() {
            live.publish(ControlWord::Changes as u32, count);
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
        renew: Renew<'_>,
    ) -> Result<()> {
        let Some((mut live, sources)) = self.live() else {
            return if changes.is_empty() {
                Ok(())
            } else {
                Err(NoRoom::Unwieldy.into())
            };
        };
        if self.tables().bytes() != FEWEST_WORDS * WORD {
            renew(self)?;
        }
        for (atom, prefix, becomes) in changes {
            live::change(&mut live, &sources, numbering, *atom, prefix, *becomes)?;
        }
        live.publish(ControlWord::Changes as u32, count);
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
        let header = self.header();
        let (map, sources) = (self.tables_of(&header), header.sources);
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
/// The tables in force stand at the same slot in both, so that it does not matter which of them a
/// program reads until all have the new one.
fn grow(maps: &Maps, in_force: &Header, capacity: usize, renew: Renew<'_>) -> Result<()> {
    if capacity > MAX_WORDS {
        return Err(anyhow::anyhow!(
            "claims and lists of sources take {} MiB, those in force included, {} MiB at most",
            (capacity * WORD) >> 20,
            (MAX_WORDS * WORD) >> 20
        ))
        .help(|| {
            "join prefixes to shorter ones, or let rules share a set; nothing was changed".into()
        });
    }
    let pin = maps.directory.join(TABLES);
    let staging = maps.directory.join(format!("{TABLES}_new"));
    // What a killed writer left.
    let _ = fs::remove_file(&staging);
    let lines = capacity / LINE;
    maps::create(&staging, TABLES, LINE_BYTES, u32::try_from(lines)?)?;
    let grown = maps::open(&staging, LINE_BYTES, Some(lines))?;
    let old = maps.tables();
    let mut words = vec![0; in_force.tables.words as usize];
    let begin = in_force.tables.begin as usize * WORD;
    old.read(begin, &mut words);
    grown.write(begin, &words);
    let sources = &in_force.sources;
    grown.write(sources.begin as usize * WORD, &read(&old, sources));
    fs::rename(&staging, &pin).with_context(|| format!("move the new map to {}", pin.display()))?;
    *maps.tables.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grown);
    renew(maps)
}
