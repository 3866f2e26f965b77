//! The maps and programs of this binary take the place of those of an older instance, under traffic.
//!
//! What is made stands beside what runs, in a directory that is nobody's yet; two renames put it in the older one's
//! place, and that goes below it until nothing runs that uses it. Each step can be done again, so whoever is killed
//! leaves something that another finishes: before the renames nothing has happened, after them the older directory
//! lies in the newer one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{MapData, MapInfo},
    programs::links::{FdLink, PinnedLink},
};
use rustix::thread::{MembarrierCommand, membarrier};

use super::{links, redirect_drops, steering};
use crate::{
    instance::{AbiDirectory, InstancePaths, Lock, Writer},
    maps::{
        self, Maps, Prepared,
        damage::is_damage,
        earlier::{self, CARRIED, CounterSet, Earlier},
        flows::{self, FlowTables},
        layout::KEPT,
        pins::{remove_tree, unpin},
        quiesce,
        targets::XSK_DIRECTORY,
        trusted::is_there,
    },
};

/// A ruleset that goes on under the same generation.
#[derive(Debug)]
pub struct Continued {
    /// What packets are decided by; its rules have the ids that they have in the older instance.
    pub prepared: Prepared,
    /// How many changes of sets it has.
    pub changes: u64,
}

/// An instance that was made and that nobody uses yet, and its programs, which the kernel has taken.
pub struct Staged {
    programs: Vec<(usize, Ebpf)>,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slots: Vec<usize> = self.programs.iter().map(|&(slot, _)| slot).collect();
        f.debug_struct("Staged").field("slots", &slots).finish()
    }
}

/// Makes the maps of an instance beside those of an older one, with all that it has, and loads the programs.
///
/// # Errors
///
/// The kernel refuses; the older instance is as it was.
pub fn stage(older: &Writer, ruleset: Option<&Continued>) -> Result<Staged> {
    let staged = older.paths.with(AbiDirectory::Staged);
    let directory = staged.pins();
    remove_tree(&directory)?;
    let result = make(&directory, &older.maps, ruleset)
        .and_then(|maps| load(&older.paths, &maps))
        .and_then(|made| {
            // Last, as whoever places sources looks for programs to replace.
            pin_links(&older.paths.pins(), &directory)?;
            Ok(made)
        });
    if result.is_err() {
        remove_tree(&directory)?;
    }
    result
}

fn make(directory: &Path, before: &Maps, ruleset: Option<&Continued>) -> Result<Maps> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    Maps::create(directory)?;
    let old = &before.directory;
    keep(before, old, directory)?;
    if before.keeps(maps::XSKS) {
        pin_all(&old.join(XSK_DIRECTORY), &directory.join(XSK_DIRECTORY))?;
    }
    if let Some(shape) = before.shape() {
        let tables = maps::flow_directory::directory(directory);
        FlowTables::create(&tables, shape, None)?;
        keep(before, &flows::directory_of(old, &shape), &tables)?;
    }
    let maps = Maps::open(directory)?;
    maps.adopt_ledger(before);
    if let Some(ruleset) = ruleset {
        maps.adopt(before, &ruleset.prepared, ruleset.changes, &super::renew)?;
    }
    Ok(maps)
}

/// Remembers the flows of an older instance that stand in tables of their own.
fn adopt_flows(before: &Maps, maps: &Maps) -> Result<()> {
    let if_whole = |tables: Result<Option<FlowTables>>| match tables {
        // Flows cannot be taken from damaged tables, nor remembered there.
        Err(error) if is_damage(&error) => Ok(None),
        tables => tables,
    };
    let Some(tables) = if_whole(maps.flows())? else {
        return Ok(());
    };
    if !before.keeps(flows::FLOWS)
        && let Some(others) = if_whole(before.flows())?
    {
        tables.adopt(&others);
    }
    // The programs still have them where whoever replaced them was killed.
    if let Some(others) = before.flows_before()? {
        tables.adopt(&others);
    }
    Ok(())
}

/// Goes on with the maps that hold what they did.
fn keep(before: &Maps, from: &Path, to: &Path) -> Result<()> {
    for (name, _) in KEPT {
        let (old, new) = (from.join(name), to.join(name));
        if !before.keeps(name) || !is_there(&old)? || !is_there(&new)? {
            continue;
        }
        let shape = |path: &Path| -> Result<_> {
            let info =
                MapInfo::from_pin(path).with_context(|| format!("open {}", path.display()))?;
            Ok((info.key_size(), info.value_size(), info.max_entries()))
        };
        ensure!(
            shape(&old)? == shape(&new)?,
            "{} has another size than this version gives it",
            old.display()
        );
        fs::remove_file(&new).with_context(|| format!("remove {}", new.display()))?;
        pin_map(&old, &new)?;
    }
    Ok(())
}

fn pin_map(from: &Path, to: &Path) -> Result<()> {
    MapData::from_pin(from)
        .with_context(|| format!("open the pinned map {}", from.display()))?
        .pin(to)
        .with_context(|| format!("pin {}", to.display()))
}

/// Pins all maps of a directory in another one too, if it is there.
fn pin_all(from: &Path, to: &Path) -> Result<()> {
    if !is_there(from)? {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for name in names(from)? {
        pin_map(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Pins the links of an instance in another directory too. Maps have names in capitals, links have not.
fn pin_links(from: &Path, to: &Path) -> Result<()> {
    for name in names(from)? {
        let (old, new) = (from.join(&name), to.join(&name));
        let is_link = name.chars().next().is_some_and(char::is_lowercase);
        if !is_link || redirect_drops::is_program(&name) || old.is_dir() {
            continue;
        }
        let link = PinnedLink::from_pin(&old).with_context(|| format!("open {}", old.display()))?;
        FdLink::from(link)
            .pin(&new)
            .with_context(|| format!("pin {}", new.display()))?;
    }
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let read = || format!("read {}", directory.display());
    let entries = fs::read_dir(directory).with_context(read)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().with_context(read)
}

/// Loads the programs for what an older instance is attached to, so that the kernel has taken them before
/// anything changes.
fn load(older: &InstancePaths, maps: &Maps) -> Result<Staged> {
    let programs = links::loaded(older, maps)?;
    if steering::is_steering(older) {
        steering::check(maps).context("load the programs for sockets")?;
    }
    Ok(Staged { programs })
}

/// Puts an instance that is staged in the place of the older one; its programs run from then on.
///
/// # Errors
///
/// Something cannot be moved, or the kernel refuses; [`finish`] does the rest.
pub fn publish(lock: &Lock, abi: u32, staged: Staged) -> Result<()> {
    let older = &lock.paths;
    let beside = older.with(AbiDirectory::Staged);
    let sign = older.sign();
    remove_tree(&sign)?;
    fs::create_dir(&sign).with_context(|| format!("create {}", sign.display()))?;
    // A binary of the older ABI finds its pins whole before this, and after it those of another ABI.
    let moved = fs::rename(older.pins(), beside.overtaken_at(abi));
    if moved.is_err() {
        remove_tree(&sign)?;
    }
    moved.context("move the older pins aside")?;
    rename_staged(older)?;
    remove_tree(&sign)?;
    exchange(&lock.own().open()?, staged.programs)
}

fn rename_staged(paths: &InstancePaths) -> Result<()> {
    let staged = paths.with(AbiDirectory::Staged);
    let own = paths.with(AbiDirectory::Own);
    fs::rename(staged.pins(), own.pins()).context("move the pins to their place")
}

/// A takeover that began and is to be finished.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The ABI of the older instance.
    pub abi: u32,
    older: PathBuf,
}

/// Looks whether a takeover began that is to be finished.
///
/// # Errors
///
/// That cannot be seen, or the newer instance not get its name.
pub fn begun(paths: &InstancePaths) -> Result<Option<Begun>> {
    let own = paths.with(AbiDirectory::Own);
    let staged = paths.with(AbiDirectory::Staged);
    if !is_there(&own.pins())? && staged.overtaken()?.is_some() {
        rename_staged(paths)?;
    }
    let begun = own.overtaken()?;
    Ok(begun.map(|(abi, older)| Begun { abi, older }))
}

/// Does what is left of a takeover that began.
///
/// # Errors
///
/// The kernel refuses; it can be tried again.
pub fn finish(lock: &Lock, begun: &Begun) -> Result<()> {
    let own = lock.own();
    let pins = own.paths.pins();
    remove_tree(&own.paths.sign())?;
    let writer = own.open()?;
    if !is_there(&pins.join(CARRIED))? {
        let programs = links::outdated(&writer)?;
        exchange(&writer, programs)?;
    }
    carry(CounterSet::Traffic, &pins)?;
    if writer.maps.shape().is_some() {
        carry(CounterSet::Flows, &pins)?;
    }
    remove_tree(&begun.older)
}

/// Gives this binary's programs to an instance of its ABI.
///
/// # Errors
///
/// The kernel refuses one; those before it are replaced.
pub fn renew(writer: &Writer) -> Result<()> {
    let programs = links::loaded(&writer.paths, &writer.maps)?;
    links::exchange(writer, programs)?;
    steering::refresh(writer).context("replace the programs for sockets")?;
    redirect_drops::refresh(writer).context("replace the programs that count redirect drops")
}

/// Exchanges the programs under their links, each in one step.
fn exchange(writer: &Writer, programs: Vec<(usize, Ebpf)>) -> Result<()> {
    let older = writer.paths.overtaken()?;
    let before = match &older {
        Some((_, older)) => Some(Maps::open(older)?),
        None => None,
    };
    let adopt_flows = || match &before {
        Some(before) => adopt_flows(before, &writer.maps),
        None => Ok(()),
    };
    adopt_flows()?;
    links::exchange(writer, programs)?;
    // Those that began meanwhile: now, so that their replies come in, and again when no older program runs.
    adopt_flows()?;
    steering::refresh(writer).context("replace the programs for sockets")?;
    if let Some((_, older)) = &older {
        redirect_drops::exchange(writer, older)
            .context("replace the programs that count redirect drops")?;
    }
    // Programs of sockets can be interrupted where those of interfaces cannot.
    quiesce::wait_for_programs().context("wait for running programs to end")?;
    membarrier(MembarrierCommand::Global).context("wait for running programs to end")?;
    adopt_flows()
}

/// Writes down what was counted before, once no program counts there any more.
fn carry(kind: CounterSet, pins: &Path) -> Result<()> {
    let path = kind.directory(pins).join(CARRIED);
    if is_there(&path)? {
        return Ok(());
    }
    let unfinished = path.with_file_name(format!("{CARRIED}_new"));
    let mut set = vec![0; kind.own_bytes() / size_of::<u64>()];
    Earlier::beside(kind, pins)?.add(0, &mut set);
    unpin(&unfinished)?;
    earlier::write_carried(&unfinished, &set)?;
    fs::rename(&unfinished, &path).with_context(|| format!("move a map to {}", path.display()))
}
