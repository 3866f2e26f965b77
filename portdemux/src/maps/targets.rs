//! The maps of targets: what stands at the slots of the destinations that rules name.
//!
//! A change of rules fills the slots that the new rules need before it puts them in force, and clears those
//! that nobody needs any more after it. What stands at a slot that both need stays as it is.

mod outer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{HashMap, Map, MapData, MapError, MapInfo},
    programs::ProgramType,
    sys::is_program_supported,
};
use aya_obj::generated::bpf_map_type;
use portdemux_common::{
    capacity::{DESTINATION_SLOTS, XSK_QUEUES},
    entry::Action,
    redirect_drops::TargetKey,
    ruleset::RulesetImage,
    target::MacWords,
};

use crate::{
    error::Unavailable,
    image::Destinations,
    interface::Interface,
    maps::{
        self,
        mapped::Mapped,
        pins::unpin,
        possible_cpus,
        trusted::{LISTED, Trusted, is_there},
        used,
    },
    rules::Destination,
};

/// Name of the map of interfaces that are destinations.
pub const DEVICES: &str = "DEVICES";
/// Name of the map of their MAC addresses.
pub const MACS: &str = "MACS";
/// Name of the map of CPUs that are destinations.
pub const CPUS: &str = "CPUS";
/// Name of the map of the maps of `AF_XDP` sockets.
pub const XSKS: &str = "XSKS";

/// Name of the directory in which the maps of `AF_XDP` sockets are pinned, one for each program.
pub(crate) const XSK_DIRECTORY: &str = "xsk";

/// The maps of targets of an instance.
#[derive(Debug)]
pub struct Targets {
    directory: PathBuf,
    macs: Mapped,
}

/// Creates the maps of targets and pins them.
pub(crate) fn create(directory: &Path) -> Result<()> {
    let cpus = u32::try_from(possible_cpus()?)?;
    let slots = u32::try_from(DESTINATION_SLOTS)?;
    pin(
        &new(DEVICES, bpf_map_type::BPF_MAP_TYPE_DEVMAP, 8, slots)?,
        &directory.join(DEVICES),
    )?;
    pin(
        &new(CPUS, bpf_map_type::BPF_MAP_TYPE_CPUMAP, 8, cpus)?,
        &directory.join(CPUS),
    )?;
    maps::create(&directory.join(MACS), MACS, size_of::<MacWords>(), 1)?;
    // Without AF_XDP no rule names a program, and the programs that are loaded need some map all the same.
    let inner = xskmap().or_else(|_| {
        new(
            XSKS,
            bpf_map_type::BPF_MAP_TYPE_DEVMAP,
            4,
            u32::try_from(XSK_QUEUES)?,
        )
    })?;
    let outer = outer::create(XSKS, slots, inner.fd().as_fd()).map_err(|error| {
        maps::not_created(error, maps::asked_for(XSKS, size_of::<u64>(), slots))
    })?;
    pin(&MapData::from_fd(outer)?, &directory.join(XSKS))
}

/// A map of `AF_XDP` sockets.
///
/// # Errors
///
/// The kernel has none.
fn xskmap() -> Result<MapData> {
    new(
        "XSK",
        bpf_map_type::BPF_MAP_TYPE_XSKMAP,
        4,
        u32::try_from(XSK_QUEUES)?,
    )
}

fn new(name: &str, kind: bpf_map_type, value: u32, entries: u32) -> Result<MapData> {
    maps::new(name, kind, [4, value as usize], entries, 0)
}

fn pin(map: &MapData, path: &Path) -> Result<()> {
    map.pin(path)
        .with_context(|| format!("pin {}", path.display()))
}

/// What the kernel must have for a kind of destination.
#[must_use]
pub const fn feature(action: Action) -> &'static str {
    match action {
        Action::Interface => "BPF_MAP_TYPE_DEVMAP",
        Action::Cpu => "BPF_MAP_TYPE_CPUMAP",
        Action::Xsk => "BPF_MAP_TYPE_XSKMAP (CONFIG_XDP_SOCKETS)",
        Action::Socket => "BPF_PROG_TYPE_SK_LOOKUP",
        Action::Local | Action::Drop | Action::Reject => "nothing",
    }
}

/// Whether the kernel has what a kind of destination needs: it is asked for such a map, or such a program.
///
/// # Errors
///
/// The kernel does not have it.
pub fn probe(action: Action) -> Result<()> {
    match action {
        Action::Interface => new("PROBE", bpf_map_type::BPF_MAP_TYPE_DEVMAP, 8, 1).map(drop),
        Action::Cpu => new("PROBE", bpf_map_type::BPF_MAP_TYPE_CPUMAP, 8, 1).map(drop),
        Action::Xsk => new("PROBE", bpf_map_type::BPF_MAP_TYPE_XSKMAP, 4, 1).map(drop),
        Action::Socket => match is_program_supported(ProgramType::SkLookup) {
            Ok(true) => Ok(()),
            Ok(false) => Err(anyhow::anyhow!("programs of this type are refused")),
            Err(error) => Err(error.into()),
        },
        Action::Local | Action::Drop | Action::Reject => Ok(()),
    }
}

impl Targets {
    /// Opens the maps that are pinned in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        for name in [DEVICES, CPUS, XSKS] {
            // Opened again when it is used; that it is there is to be known before.
            let path = directory.join(name);
            MapData::from_pin(&path)
                .with_context(|| format!("open the pinned map {}", path.display()))?;
        }
        Ok(Self {
            macs: maps::open(&directory.join(MACS), size_of::<MacWords>(), Some(1))?,
            directory: directory.to_owned(),
        })
    }

    /// How much kernel memory they take, in bytes.
    pub(crate) const fn memory(&self) -> usize {
        // An element of a map of devices or of maps is a pointer.
        self.macs.bytes() + 2 * DESTINATION_SLOTS * size_of::<usize>()
    }

    /// Which interface stands at a slot.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn device(&self, slot: u32) -> Result<Option<u32>> {
        let found = find(&self.map::<u64>(DEVICES)?, slot)?;
        // The lower half of the value, which the kernel has as two words.
        Ok(found.map(|value| bytemuck::cast::<u64, [u32; 2]>(value)[0]))
    }

    /// Whether an interface stands at a slot, with the MAC address that it has.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub(crate) fn has_device(&self, slot: u32, interface: &Interface) -> Result<bool> {
        let mut mac = [0];
        self.macs.read(slot as usize * size_of::<u64>(), &mut mac);
        Ok(mac == [mac_word(interface)] && self.device(slot)? == Some(interface.index))
    }

    /// Puts an interface at a slot.
    ///
    /// # Errors
    ///
    /// The kernel refuses, as for one that is gone.
    pub(crate) fn enter_device(&self, slot: u32, interface: &Interface) -> Result<()> {
        let at = slot as usize * size_of::<u64>();
        self.macs.write(at, &[mac_word(interface)]);
        let value: u64 = bytemuck::cast([interface.index, 0]);
        let mut devices = self.map::<u64>(DEVICES)?;
        devices
            .insert(slot, value, 0)
            .with_context(|| format!("make {} a destination", interface.name))
    }

    /// How many frames wait for a CPU, if it is a destination.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn queue(&self, cpu: u16) -> Result<Option<u32>> {
        let found = find(&self.map::<u64>(CPUS)?, cpu.into())?;
        Ok(found.map(|value| bytemuck::cast::<u64, [u32; 2]>(value)[0]))
    }

    fn enter_cpu(&self, cpu: u16, queue: u16) -> Result<()> {
        // Entered again it would be another one, and what waits would be lost.
        if self.queue(cpu)? == Some(queue.into()) {
            return Ok(());
        }
        let value: u64 = bytemuck::cast([u32::from(queue), 0]);
        let mut cpus = self.map::<u64>(CPUS)?;
        cpus.insert(u32::from(cpu), value, 0)
            .with_context(|| format!("make CPU {cpu} a destination"))
    }

    /// Where the map of the sockets of a program is pinned.
    #[must_use]
    pub fn xsk_pin(&self, name: &str) -> PathBuf {
        self.directory.join(XSK_DIRECTORY).join(name)
    }

    /// By what the kernel knows the target at a slot, if it is there and has one.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub(crate) fn key(&self, slot: u32, destination: &Destination) -> Result<Option<TargetKey>> {
        match destination {
            Destination::Interface(_) => Ok(self.device(slot)?.map(TargetKey::interface)),
            Destination::Xsk(name) => {
                let sockets = MapInfo::from_pin(self.xsk_pin(name)).ok();
                Ok(sockets.map(|sockets| TargetKey::sockets(sockets.id())))
            }
            Destination::Local
            | Destination::Drop
            | Destination::Reject
            | Destination::Cpus(_)
            | Destination::Socket(_) => Ok(None),
        }
    }

    fn enter_xsk(&self, slot: u32, name: &str) -> Result<()> {
        let pin_path = self.xsk_pin(name);
        let sockets = if is_there(&pin_path)? {
            MapData::from_pin(&pin_path).with_context(|| format!("open {}", pin_path.display()))?
        } else {
            // Whom the pin is given to finds it there.
            Trusted::create(&self.directory)?.make(XSK_DIRECTORY, LISTED)?;
            let sockets = xskmap()?;
            pin(&sockets, &pin_path)?;
            sockets
        };
        let fd = sockets.fd().as_fd().as_raw_fd();
        let mut xsks = self.map::<i32>(XSKS)?;
        xsks.insert(slot, fd, 0)
            .with_context(|| format!("make xsk:{name} a destination"))
    }

    /// Fills the slots that a ruleset needs and that are not filled.
    ///
    /// Where a program runs in generic mode (`has_generic`), CPUs are left out, so that packets go to the
    /// stack where they came in: handed to another CPU they are lost, as the kernel takes off a link layer
    /// header of a length that it has not yet found out (seen with Linux 6.18, `kernel/bpf/cpumap.c`,
    /// `cpu_map_generic_redirect`).
    pub(crate) fn fill(
        &self,
        needed: &Needed,
        present: &[Interface],
        has_generic: bool,
        unavailable: &mut Unavailable<'_>,
    ) -> Result<()> {
        for (&slot, destination) in &needed.destinations {
            let filled = match destination {
                Destination::Interface(name) => {
                    let found = present.iter().find(|interface| interface.name == *name);
                    found.map_or(Ok(()), |interface| self.fill_device(slot, interface))
                }
                Destination::Xsk(name) => self.enter_xsk(slot, name),
                Destination::Local
                | Destination::Drop
                | Destination::Reject
                | Destination::Cpus(_)
                | Destination::Socket(_) => Ok(()),
            };
            unavailable.judge(filled)?;
        }
        if has_generic {
            unavailable.judge(self.leave_cpus(needed.cpus.keys()))?;
            return Ok(());
        }
        for (&cpu, &queue) in &needed.cpus {
            unavailable.judge(self.enter_cpu(cpu, queue))?;
        }
        Ok(())
    }

    fn fill_device(&self, slot: u32, interface: &Interface) -> Result<()> {
        if self.has_device(slot, interface)? {
            return Ok(());
        }
        self.enter_device(slot, interface)
    }

    /// Takes CPUs off their slots.
    pub(crate) fn leave_cpus<'c>(&self, cpus: impl Iterator<Item = &'c u16>) -> Result<()> {
        let mut map = self.map::<u64>(CPUS)?;
        for &cpu in cpus {
            remove(&mut map, cpu.into())?;
        }
        Ok(())
    }

    /// Clears the slots that a ruleset does not need and the one before it needed.
    pub(crate) fn clear(&self, before: &Needed, needed: &Needed) -> Result<()> {
        for (&slot, destination) in &before.destinations {
            if needed.destinations.contains_key(&slot) {
                continue;
            }
            match destination {
                Destination::Interface(_) => remove(&mut self.map::<u64>(DEVICES)?, slot)?,
                Destination::Xsk(name) => {
                    remove(&mut self.map::<i32>(XSKS)?, slot)?;
                    unpin(&self.xsk_pin(name))?;
                }
                Destination::Local
                | Destination::Drop
                | Destination::Reject
                | Destination::Cpus(_)
                | Destination::Socket(_) => {}
            }
        }
        let left: BTreeSet<&u16> = needed.cpus.keys().collect();
        self.leave_cpus(before.cpus.keys().filter(|cpu| !left.contains(cpu)))
    }

    /// Removes what a change that was killed left of programs that no rule names.
    pub(crate) fn sweep(&self, needed: &Needed) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.directory.join(XSK_DIRECTORY)) else {
            return Ok(());
        };
        let is_needed = |pin: &PathBuf| {
            let mut names = needed.destinations.values();
            names.any(|to| matches!(to, Destination::Xsk(name) if self.xsk_pin(name) == *pin))
        };
        let pins = entries.flatten().map(|entry| entry.path());
        let strays: Vec<PathBuf> = pins.filter(|pin| !is_needed(pin)).collect();
        if strays.is_empty() {
            return Ok(());
        }
        let mut xsks = self.map::<i32>(XSKS)?;
        for slot in (0..).take(DESTINATION_SLOTS) {
            if !needed.destinations.contains_key(&slot) {
                remove(&mut xsks, slot)?;
            }
        }
        strays.iter().try_for_each(|pin| unpin(pin))
    }

    /// A map whose elements are read and written one by one.
    fn map<V: aya::Pod>(&self, name: &str) -> Result<HashMap<MapData, u32, V>> {
        let path = self.directory.join(name);
        let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        // Of all that aya has, this asks least of a map: the sizes of its keys and values.
        HashMap::try_from(Map::HashMap(data)).with_context(|| format!("use {}", path.display()))
    }
}

/// What stands under a key, if anything does.
fn find<V: aya::Pod>(map: &HashMap<MapData, u32, V>, key: u32) -> Result<Option<V>> {
    match map.get(&key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context("read a map of targets"),
    }
}

/// Removes what stands under a key, if anything does.
fn remove<V: aya::Pod>(map: &mut HashMap<MapData, u32, V>, key: u32) -> Result<()> {
    match map.remove(&key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(error) => Err(error).context("clear a place in a map of targets"),
    }
}

/// What a ruleset needs in the maps of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Destinations by slot.
    pub destinations: Destinations,
    /// CPUs, and how many frames wait for each.
    pub cpus: BTreeMap<u16, u16>,
}

impl Needed {
    /// What an image needs whose destinations have these slots.
    #[must_use]
    pub fn of(image: &RulesetImage, destinations: &Destinations) -> Self {
        let mut cpus = BTreeMap::new();
        if image.header.cpus != 0 {
            for id in used(image) {
                let target = image.targets[id as usize];
                if target.queue != 0 {
                    let list = image.cpus.iter().skip(target.first as usize);
                    let list = list.take(target.count.into());
                    cpus.extend(list.map(|&cpu| (cpu, target.queue)));
                }
            }
        }
        Self {
            destinations: destinations.clone(),
            cpus,
        }
    }

    /// Whether it needs nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.cpus.is_empty()
    }
}

/// An interface's MAC address as it lies in the map of them.
fn mac_word(interface: &Interface) -> u64 {
    let mut mac = [0; 8];
    mac[..6].copy_from_slice(&interface.mac.unwrap_or_default());
    u64::from_ne_bytes(mac)
}
