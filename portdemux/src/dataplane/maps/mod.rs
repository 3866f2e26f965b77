//! The maps of an instance, and the ruleset they hold.

use std::{
    collections::HashMap,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use bytemuck::Zeroable as _;
use portdemux_common::{
    counters::{CpuCounters, MAX_INTERFACES},
    flows::Shape,
    fragments::Buckets,
    limits::LimitWords,
    ruleset::{Header, RULE_PLACES, RuleId, RuleSet, RulesetImage, Rulesets},
    state::{Generation, Interface, Ledger, RULE_NAME_LENGTH},
};

use super::{
    counters::Counters,
    flows::{self, Flows},
    links,
    losses::{self, Losses},
    mapped::Mapped,
    quiesce, sources,
    steering::Steering,
    targets::{self, Needed, Targets},
};
use crate::image::{self, Compiled, Destinations};

/// Name of the map of rulesets.
pub const RULESETS: &str = "RULESETS";
/// Name of the map of counters.
pub const COUNTERS: &str = "COUNTERS";
/// Name of the map that says what came of first fragments.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Name of the map that says when the next answer to a rejected packet is due.
pub const ANSWERS: &str = "ANSWERS";
/// Name of the map that only the control plane uses.
pub const LEDGER: &str = "LEDGER";
/// Name of the map of what is left of rates.
pub const LIMITS: &str = "LIMITS";
pub use super::{
    losses::{LOSSES, TARGET_PLACES},
    sources::SOURCES,
    steering::{SOCKETS, STEERING},
    targets::{CPUS, DEVICES, MACS, XSKS},
};
/// Every map of an instance.
pub const ALL: [&str; 15] = [
    RULESETS,
    COUNTERS,
    FRAGMENTS,
    LEDGER,
    SOURCES,
    LIMITS,
    ANSWERS,
    DEVICES,
    MACS,
    CPUS,
    XSKS,
    SOCKETS,
    STEERING,
    LOSSES,
    TARGET_PLACES,
];

/// Where the generation in force stands in its map.
pub(super) const GENERATION: usize = offset_of!(Rulesets, generation);

/// A rule's name, padded with zeros.
type RuleName = [u64; RULE_NAME_LENGTH / 8];

pub(super) const BPF_MAP_TYPE_ARRAY: u32 = 2;
pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The maps of an instance, shared with the kernel and with other processes.
#[derive(Debug)]
pub struct Maps {
    pub(super) rulesets: Mapped,
    /// The tables of sources; a larger map takes the place of one that is full.
    pub(super) sources: RwLock<Arc<Mapped>>,
    /// What only the programs read and write.
    fragments: Mapped,
    pub(super) ledger: Mapped,
    limits: Mapped,
    answers: Mapped,
    /// What stands at the places of destinations.
    pub targets: Targets,
    /// What those did not take.
    pub losses: Losses,
    /// Which sockets get what comes for rules.
    pub steering: Steering,
    /// The counters.
    pub counters: Counters,
    pub(super) directory: PathBuf,
}

/// A ruleset that is to follow the one in force.
pub struct Prepared {
    /// What packets will be decided by.
    pub ruleset: Compiled,
    /// The rules that are in force under no name yet.
    new_rules: Vec<(RuleId, RuleName)>,
    /// The destinations that are in force nowhere yet, by place.
    new_destinations: Destinations,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("header", &self.ruleset.header)
            .finish_non_exhaustive()
    }
}

impl Maps {
    /// Creates the maps and pins them in a directory of bpffs.
    pub(super) fn create(directory: &Path) -> Result<()> {
        let cpus = u32::try_from(possible_cpus()?)?;
        for (name, size, count) in [
            (RULESETS, size_of::<Rulesets>(), 1),
            (COUNTERS, size_of::<CpuCounters>(), cpus),
            (FRAGMENTS, size_of::<Buckets<u64>>(), 1),
            (LEDGER, size_of::<Ledger>(), 1),
            (LIMITS, size_of::<LimitWords>(), 1),
            (SOURCES, size_of::<u64>(), sources::FEWEST_WORDS),
            (ANSWERS, size_of::<u64>(), 1),
        ] {
            create(&directory.join(name), name, size, count)?;
        }
        targets::create(directory)?;
        losses::create(directory)?;
        Steering::create(directory)?;
        let fragments = open_fragments(directory)?;
        fragments.write(offset_of!(Buckets<u64>, seed), &[random()?]);
        Ok(())
    }

    /// Opens the maps pinned in a directory.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let map = |name: &str, size: usize, count: usize| -> Result<Mapped> {
            open(&directory.join(name), size, Some(count))
        };
        let cpus = possible_cpus()?;
        let sources = open(&directory.join(SOURCES), size_of::<u64>(), None)?;
        Ok(Self {
            rulesets: map(RULESETS, size_of::<Rulesets>(), 1)?,
            sources: RwLock::new(Arc::new(sources)),
            fragments: open_fragments(directory)?,
            ledger: map(LEDGER, size_of::<Ledger>(), 1)?,
            limits: map(LIMITS, size_of::<LimitWords>(), 1)?,
            answers: map(ANSWERS, size_of::<u64>(), 1)?,
            targets: Targets::open(directory)?,
            losses: Losses::open(directory)?,
            steering: Steering::open(directory)?,
            counters: Counters::new(map(COUNTERS, size_of::<CpuCounters>(), cpus)?, cpus),
            directory: directory.to_owned(),
        })
    }

    /// How large the tables of flows are, if flows are tracked.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        let mut shape = Shape::zeroed();
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(&mut shape));
        self.ledger.read(offset_of!(Ledger, flows), words);
        (shape.seed != 0).then_some(shape)
    }

    /// Writes down how large the tables of flows are.
    pub(super) fn set_shape(&self, shape: Option<Shape>) {
        let shape = shape.unwrap_or_default();
        let words = bytemuck::cast_slice(std::slice::from_ref(&shape));
        self.ledger.write(offset_of!(Ledger, flows), words);
    }

    /// The tables of flows, if flows are tracked.
    ///
    /// # Errors
    ///
    /// They should be there and cannot be opened.
    pub fn flows(&self) -> Result<Option<Flows>> {
        let open = |shape| Flows::open(&flows::directory(&self.directory), shape);
        self.shape().map(open).transpose()
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.rulesets.word(GENERATION).load(Ordering::Acquire))
    }

    /// The header of the ruleset in force.
    #[must_use]
    pub fn header(&self) -> Header {
        self.read_consistently(|start| {
            let mut header = Header::zeroed();
            self.rulesets.read(
                start,
                bytemuck::cast_slice_mut(std::slice::from_mut(&mut header)),
            );
            header
        })
    }

    /// The ruleset in force with its tables of sources, which begin at 0 wherever they lie in the map.
    #[must_use]
    pub fn compiled(&self) -> Compiled {
        loop {
            let mut image = self.image();
            let sources = sources::read(&self.sources(), &image.header.sources);
            if self.generation().0 == image.header.generation {
                image.header.sources.begin = 0;
                return Compiled {
                    destinations: self.destinations(&image),
                    image,
                    sources,
                };
            }
        }
    }

    pub(super) fn sources(&self) -> Arc<Mapped> {
        // Nothing is done under the lock that could leave it poisoned.
        Arc::clone(&self.sources.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The ruleset in force.
    #[must_use]
    pub fn image(&self) -> Box<RulesetImage> {
        self.read_consistently(|start| {
            let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
            let header = bytemuck::cast_slice_mut(std::slice::from_mut(&mut image.header));
            self.rulesets.read(start, header);
            let parts = image::parts(&image.header);
            let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *image));
            for part in parts {
                let begin = start + part.start * size_of::<u64>();
                self.rulesets.read(begin, &mut words[part]);
            }
            image
        })
    }

    /// Reads from the half that is in force, again if it was replaced meanwhile.
    fn read_consistently<T>(&self, read: impl Fn(usize) -> T) -> T {
        loop {
            let generation = self.generation();
            let value = read(half(generation));
            if self.generation() == generation {
                return value;
            }
        }
    }

    /// How much kernel memory the maps take, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let sources = self.sources();
        let maps = [
            &self.rulesets,
            &self.fragments,
            &self.ledger,
            &self.limits,
            &self.answers,
            &sources,
        ];
        let bytes: usize = maps.iter().map(|map| map.bytes()).sum();
        let flows = self
            .flows()
            .ok()
            .flatten()
            .map_or(0, |flows| flows.memory());
        let maps = bytes
            + self.counters.memory()
            + self.targets.memory()
            + self.losses.memory()
            + self.steering.memory();
        maps as u64 + flows
    }

    /// The names of the rules that the ruleset in force uses, by id.
    #[must_use]
    pub fn rule_names(&self, image: &RulesetImage) -> HashMap<RuleId, String> {
        used(image)
            .map(|rule| (rule, self.rule_name(rule)))
            .collect()
    }

    fn rule_name(&self, rule: RuleId) -> String {
        text(bytemuck::cast_slice(&self.padded_name(rule)))
    }

    fn padded_name(&self, rule: RuleId) -> RuleName {
        let mut name = RuleName::default();
        self.ledger.read(rule_name_offset(rule), &mut name);
        name
    }

    /// Puts a ruleset in force and returns its generation.
    ///
    /// [`Maps::prepare`] and [`Maps::put_in_force`] in one. The caller holds the instance's lock.
    ///
    /// # Errors
    ///
    /// There are too many rules, or the wait for running programs failed; nothing was changed.
    pub fn install(
        &self,
        names: &[&str],
        text_hash: [u8; 32],
        compile: impl FnOnce(&[RuleId]) -> Result<Compiled>,
    ) -> Result<Generation> {
        self.put_in_force(&self.prepare(names, text_hash, compile)?)
    }

    /// Compiles a ruleset that is to follow the one in force; nothing is written.
    ///
    /// `names` are the names of its rules in the order in which `compile` numbers them; it is told
    /// the id of each. A rule that is in force under the same name keeps its id and so its
    /// counters; a new one begins at zero.
    ///
    /// # Errors
    ///
    /// There are too many rules or destinations.
    pub fn prepare(
        &self,
        names: &[&str],
        text_hash: [u8; 32],
        compile: impl FnOnce(&[RuleId]) -> Result<Compiled>,
    ) -> Result<Prepared> {
        let places = self.assign_places(names)?;
        let ids: Vec<RuleId> = places.iter().map(|&(id, _)| id).collect();
        let mut ruleset = compile(&ids)?;
        let new_destinations =
            self.assign_destinations(&mut ruleset.image, &mut ruleset.destinations)?;
        let image = &mut ruleset.image;
        image.header.generation = self.generation().next().0;
        image.header.text_hash = text_hash;
        for &id in &ids {
            image.rules[id as usize / 64] |= 1 << (id % 64);
        }
        let new = places.iter().zip(names).filter(|((_, is_new), _)| *is_new);
        Ok(Prepared {
            new_rules: new.map(|(&(id, _), name)| (id, padded(name))).collect(),
            new_destinations,
            ruleset,
        })
    }

    /// Puts a ruleset in force that was prepared under the same lock, and returns its generation.
    ///
    /// Until the last step, a store of 8 bytes, nothing that a packet can see has changed, and at
    /// whatever step this process ends, one of the two rulesets is in force as a whole.
    ///
    /// # Errors
    ///
    /// The wait for running programs failed, or there are too many sources; nothing was changed.
    pub fn put_in_force(&self, prepared: &Prepared) -> Result<Generation> {
        let Compiled {
            image,
            sources: words,
            ..
        } = &prepared.ruleset;
        let new = Generation(image.header.generation);
        // A packet that began before the last change may still read the half that is written next,
        // and count for a rule that is in force no more.
        quiesce::wait_for_programs().context("wait for running programs to end")?;
        let mut header = image.header;
        sources::place(self, &mut header.sources, words)?;
        header.limits_seed = match self.header().limits_seed {
            0 => random()?,
            seed => seed,
        };
        for (id, name) in &prepared.new_rules {
            self.counters.reset_rule(*id);
            self.limits.write(limit_offset(*id), &[0; 2]);
            self.ledger.write(rule_name_offset(*id), name);
        }
        let before = self.needed_in_force();
        let needed = Needed::of(image, &prepared.ruleset.destinations);
        self.enter_destinations(&prepared.new_destinations);
        self.fill_targets(&needed)?;
        self.know_targets(&before, &needed)?;
        write_image(&self.rulesets, half(new), image);
        self.rulesets.write(
            half(new),
            bytemuck::cast_slice(std::slice::from_ref(&header)),
        );
        self.rulesets
            .word(GENERATION)
            .store(new.0, Ordering::Release);
        if !before.is_empty() {
            // What decided by the rules before may be on its way to what they named.
            quiesce::wait_for_programs().context("wait for running programs to end")?;
            self.targets.clear(&before, &needed)?;
        }
        Ok(new)
    }

    /// Gives every rule an id: its own if it is in force, else the lowest free one, and says which
    /// are new.
    fn assign_places(&self, names: &[&str]) -> Result<Vec<(RuleId, bool)>> {
        let mut rules: RuleSet = [0; RULE_PLACES / 64];
        let start = half(self.generation()) + offset_of!(RulesetImage, rules);
        self.rulesets.read(start, &mut rules);
        let in_force: Vec<RuleId> = bits(&rules).collect();
        let mut free = all_ids().filter(|&id| rules[id as usize / 64] & 1 << (id % 64) == 0);
        // Rules mostly stand in the order of their ids, as they were given them in that order: the
        // one that is next is the one, and only where it is not the others are searched.
        let mut next = 0;
        let mut places_by_name: Option<HashMap<RuleName, usize>> = None;
        let mut find = |name: &RuleName| {
            let is_next = in_force
                .get(next)
                .is_some_and(|&id| self.padded_name(id) == *name);
            if !is_next {
                let places = places_by_name.get_or_insert_with(|| {
                    let names = in_force.iter().map(|&id| self.padded_name(id));
                    names.zip(0..).collect()
                });
                next = *places.get(name)?;
            }
            next += 1;
            Some(in_force[next - 1])
        };
        names
            .iter()
            .map(|name| match find(&padded(name)) {
                Some(id) => Ok((id, false)),
                None => free
                    .next()
                    .map(|id| (id, true))
                    .context("no place is free for a new rule while the old ones are in force"),
            })
            .collect()
    }

    /// The interfaces that programs were attached to, with their places.
    #[must_use]
    pub fn interfaces(&self) -> Vec<(usize, Interface)> {
        (0..MAX_INTERFACES)
            .map(|place| (place, self.interface(place)))
            .filter(|(_, interface)| interface.name[0] != 0)
            .collect()
    }

    /// Whether the program is attached to any interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let mut known = self.interfaces().into_iter();
        known.any(|(place, _)| self.directory.join(format!("link{place}")).exists())
    }

    pub(super) fn interface(&self, place: usize) -> Interface {
        let mut interface = Interface::zeroed();
        self.ledger.read(
            interface_offset(place),
            bytemuck::cast_slice_mut(std::slice::from_mut(&mut interface)),
        );
        interface
    }

    /// Finds the place of an interface: the one it had, else a free one, else that of an interface
    /// that is detached. Returns what stands there if it is its own.
    ///
    /// `is_attached` says whether a program runs on the interface that a place belongs to.
    ///
    /// # Errors
    ///
    /// Every place belongs to an interface that a program runs on.
    pub(super) fn place_for(
        &self,
        interface: &Interface,
        is_attached: impl Fn(usize) -> bool,
    ) -> Result<(usize, Option<Interface>)> {
        let mut here = self.interfaces();
        let all: Vec<usize> = here.iter().map(|&(place, _)| place).collect();
        here.retain(|(_, known)| known.netns == interface.netns);
        // By its index, as a name can have gone over to another interface.
        let same = here
            .iter()
            .find(|(_, known)| known.index == interface.index)
            .or_else(|| {
                here.iter()
                    .find(|(place, known)| known.name == interface.name && !is_attached(*place))
            });
        if let Some(&(place, known)) = same {
            return Ok((place, Some(known)));
        }
        let place = (0..MAX_INTERFACES)
            .find(|place| !all.contains(place))
            .or_else(|| (0..MAX_INTERFACES).find(|&place| !is_attached(place)))
            .with_context(|| format!("an instance has at most {MAX_INTERFACES} interfaces"))?;
        self.counters.reset_interface(place);
        Ok((place, None))
    }

    /// Writes down what interface a place belongs to.
    pub(super) fn enter_interface(&self, place: usize, interface: &Interface) {
        self.ledger.write(
            interface_offset(place),
            bytemuck::cast_slice(std::slice::from_ref(interface)),
        );
    }

    /// Writes down that the program on an interface is this binary's.
    pub(super) fn note_version(&self, place: usize) {
        let interface = Interface {
            version: links::padded(env!("CARGO_PKG_VERSION")),
            ..self.interface(place)
        };
        self.enter_interface(place, &interface);
    }

    /// Forgets an interface; its place can be given to another.
    pub(super) fn forget_interface(&self, place: usize) {
        self.enter_interface(place, &Interface::zeroed());
    }
}

/// Creates a map and pins it.
pub(super) fn create(path: &Path, name: &str, size: usize, count: u32) -> Result<()> {
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY,
        4,
        u32::try_from(size)?,
        count,
        BPF_F_MMAPABLE,
    );
    MapData::create(map, name, None)
        .with_context(|| format!("create the map {name}"))?
        .pin(path)
        .with_context(|| format!("pin {}", path.display()))?;
    Ok(())
}

fn open_fragments(directory: &Path) -> Result<Mapped> {
    open(
        &directory.join(FRAGMENTS),
        size_of::<Buckets<u64>>(),
        Some(1),
    )
}

/// A number that nobody can guess.
///
/// # Errors
///
/// The kernel gives none.
pub(super) fn random() -> Result<u64> {
    let mut number = [0; 8];
    rustix::rand::getrandom(&mut number[..], rustix::rand::GetRandomFlags::empty())
        .context("ask the kernel for a random number")?;
    Ok(u64::from_ne_bytes(number))
}

/// Opens a pinned map of values of this size, of this many if that is known.
pub(super) fn open(path: &Path, size: usize, count: Option<usize>) -> Result<Mapped> {
    let data = MapData::from_pin(path)
        .with_context(|| format!("open the pinned map {}", path.display()))?;
    let info = data
        .info()
        .with_context(|| format!("ask about {}", path.display()))?;
    if info.value_size() as usize != size {
        bail!(
            "{} holds values of {} bytes and not of {size}: it is not a map of this version",
            path.display(),
            info.value_size()
        );
    }
    let entries = info.max_entries() as usize;
    if let Some(count) = count.filter(|&count| count != entries) {
        bail!(
            "{} has {entries} entries and not {count}: it is not a map of this version and machine",
            path.display(),
        );
    }
    Mapped::new(data.fd(), size * entries)
        .with_context(|| format!("map {} into memory", path.display()))
}

/// Writes an image over the one that stands at `start` bytes: all that a decision under its header
/// reads, and no more.
pub(super) fn write_image(rulesets: &Mapped, start: usize, image: &RulesetImage) {
    let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(image));
    for part in image::parts(&image.header) {
        rulesets.write(start + part.start * size_of::<u64>(), &words[part]);
    }
}

/// The ids of the rules that a ruleset uses, ascending.
pub fn used(image: &RulesetImage) -> impl Iterator<Item = RuleId> {
    bits(&image.rules)
}

fn all_ids() -> impl Iterator<Item = RuleId> {
    (0..).take(RULE_PLACES)
}

fn bits(words: &RuleSet) -> impl Iterator<Item = RuleId> {
    let words = words.iter().zip((0..).step_by(64));
    words
        .filter(|&(&word, _)| word != 0)
        .flat_map(|(&word, first)| {
            (first..first + 64).filter(move |bit| word & 1 << (bit % 64) != 0)
        })
}

/// Where the ruleset of a generation begins.
pub(super) const fn half(generation: Generation) -> usize {
    offset_of!(Rulesets, images) + generation.half() as usize * size_of::<RulesetImage>()
}

const fn rule_name_offset(rule: RuleId) -> usize {
    offset_of!(Ledger, rules) + rule as usize * RULE_NAME_LENGTH
}

const fn limit_offset(rule: RuleId) -> usize {
    offset_of!(LimitWords, rules) + rule as usize * size_of::<[u64; 2]>()
}

const fn interface_offset(place: usize) -> usize {
    offset_of!(Ledger, interfaces) + place * size_of::<Interface>()
}

fn padded(name: &str) -> RuleName {
    let mut words = RuleName::default();
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    words
}

/// A text padded with zeros.
#[must_use]
pub fn text(padded: &[u8]) -> String {
    let end = padded
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..end]).into_owned()
}

/// How many CPUs this machine can have, online or not.
pub(super) fn possible_cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))
}
