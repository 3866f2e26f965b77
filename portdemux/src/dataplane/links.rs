//! Programs on interfaces: loading, attaching, replacing, detaching.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        loaded_programs,
        xdp::XdpLink,
    },
    util::KernelVersion,
};
use portdemux_common::{
    answer::{self, ANY_MAC},
    counters::MAX_INTERFACES,
    flows::Shape,
    state::{self, Mode, NAME_LENGTH},
};

use super::{
    flows,
    maps::{
        ANSWERS, COUNTERS, CPUS, DEVICES, FRAGMENTS, LIMITS, MACS, Maps, RULESETS, SOCKETS,
        STEERING, XSKS, possible_cpus,
    },
    objects,
    pins::{Lock, Places},
    sent,
    sources::SOURCES,
};
use crate::{
    capabilities::{self, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON},
    error::{Advice, Help as _},
    interface::{self, Interface, XdpHook},
};

/// The program's name in its object.
pub const PROGRAM: &str = "portdemux";

/// The same for kernels that have no frames in several buffers.
pub const PLAIN_PROGRAM: &str = "portdemux_plain";

/// The program that is attached where flows are tracked.
pub const FLOW_PROGRAM: &str = "portdemux_flow";

/// The same for kernels that have no frames in several buffers.
pub const FLOW_PLAIN_PROGRAM: &str = "portdemux_flowp";

/// The maps that all programs of an instance share.
pub(super) const SHARED: [&str; 12] = [
    RULESETS, COUNTERS, FRAGMENTS, SOURCES, LIMITS, ANSWERS, DEVICES, MACS, CPUS, XSKS, SOCKETS,
    STEERING,
];

/// The first kernel with `xdp.frags`.
const FRAGS_SINCE: KernelVersion = KernelVersion::new(5, 18, 0);

/// How long a program may take to leave an interface when its link is gone.
const PARTING: Duration = Duration::from_secs(3);

/// In which mode to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Native if the driver can, else generic.
    Auto,
    /// Native or not at all.
    Native,
    /// Generic.
    Generic,
}

/// How an interface came to be attached.
#[derive(Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The program was attached.
    Attached {
        /// In which mode.
        mode: Mode,
        /// Why the driver could not take it, if that had been tried.
        refused: Option<String>,
    },
    /// The program on it was replaced without a moment in between.
    Replaced {
        /// In which mode it runs.
        mode: Mode,
    },
}

/// A link as it is pinned.
#[derive(Debug)]
pub struct Pinned {
    /// The interface's place.
    pub place: usize,
    /// The id of the program that runs, if the kernel says.
    pub program: Option<u32>,
}

impl Pinned {
    /// The interface that the program runs on, whatever it is called today.
    #[must_use]
    pub fn carrier<'a>(&self, present: &'a [Interface]) -> Option<&'a Interface> {
        let id = self.program?;
        present
            .iter()
            .find(|interface| interface.programs.iter().any(|program| program.id == id))
    }
}

/// Attaches the program to an interface, or replaces the one that this instance has there.
///
/// # Errors
///
/// Another XDP program is on the interface, the mode cannot be had, the kernel refuses.
pub fn attach(
    places: &Places,
    maps: &Maps,
    interface: &Interface,
    netns: u64,
    wish: Wish,
) -> Result<Attachment> {
    let mut entry = state::Interface {
        name: padded(&interface.name),
        version: padded(env!("CARGO_PKG_VERSION")),
        netns,
        index: interface.index,
        // What is asked for, until it is known.
        mode: match wish {
            Wish::Auto | Wish::Native => Mode::Native,
            Wish::Generic => Mode::Generic,
        } as u32,
        mac: interface.mac.map_or(ANY_MAC, answer::mac),
    };
    let present = interface::list()?;
    let pinned = pinned(places);
    let is_attached = |place| {
        pinned
            .iter()
            .any(|link| link.place == place && link.carrier(&present).is_some())
    };
    let (place, old) = maps.place_for(&entry, is_attached)?;
    maps.enter_interface(place, &entry);
    let result = attach_at(places, maps, interface, place, wish);
    match (&result, old) {
        (Ok(Attachment::Attached { mode, .. } | Attachment::Replaced { mode }), _) => {
            entry.mode = *mode as u32;
            maps.enter_interface(place, &entry);
        }
        (Err(_), Some(old)) => maps.enter_interface(place, &old),
        (Err(_), None) => maps.forget_interface(place),
    }
    result
}

fn attach_at(
    places: &Places,
    maps: &Maps,
    interface: &Interface,
    place: usize,
    wish: Wish,
) -> Result<Attachment> {
    let shape = maps.shape();
    let mut object = load(maps, place, shape)?;
    if shape.is_some() {
        // First, so that no flow that a packet of the peer may belong to goes unseen.
        sent::attach(places, &mut object, place, &interface.name)?;
    }
    let attached = attach_received(
        (places, maps),
        &mut object,
        interface,
        place,
        wish,
        shape.is_some(),
    );
    if attached.is_err() && replaceable(&places.link(place), interface).is_none() {
        sent::detach(places, place, Some(&interface.name))?;
    }
    attached
}

/// Attaches the program that sees what an interface receives.
fn attach_received(
    (places, maps): (&Places, &Maps),
    object: &mut Ebpf,
    interface: &Interface,
    place: usize,
    wish: Wish,
    tracks: bool,
) -> Result<Attachment> {
    let pin = places.link(place);
    let program = received(object, tracks)?;
    program.load().context("load the program into the kernel")?;

    if let Some(mode) = replaceable(&pin, interface) {
        if let (Wish::Native, Mode::Generic) | (Wish::Generic, Mode::Native) = (wish, mode) {
            return Err(anyhow::anyhow!(
                "{} is attached in {} mode, which cannot change while it is attached",
                interface.name,
                mode_name(mode)
            ))
            .help(|| format!("portdemux detach {} first", interface.name));
        }
        program
            .attach_to_link(open_link(&pin)?)
            .with_context(|| format!("replace the program on {}", interface.name))?;
        return Ok(Attachment::Replaced { mode });
    }

    // A link that is left from an interface that vanished is no use to the one that is there now.
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", pin.display()));
        }
        Ok(()) | Err(_) => {}
    }
    refuse_foreign_program(places, interface)?;
    if matches!(wish, Wish::Generic) {
        maps.leave_cpus()?;
    }
    let (id, mode, refused) = match wish {
        Wish::Generic => (
            program.attach_to_if_index(interface.index, XdpMode::Skb),
            Mode::Generic,
            None,
        ),
        Wish::Native => (
            program.attach_to_if_index(interface.index, XdpMode::Driver),
            Mode::Native,
            None,
        ),
        Wish::Auto => match program.attach_to_if_index(interface.index, XdpMode::Driver) {
            Ok(id) => (Ok(id), Mode::Native, None),
            Err(error) => {
                let why = reason(&error);
                maps.leave_cpus()?;
                (
                    program.attach_to_if_index(interface.index, XdpMode::Skb),
                    Mode::Generic,
                    Some(why),
                )
            }
        },
    };
    let id = id.map_err(|error| refusal(&error, interface, mode))?;
    let link: FdLink = program
        .take_link(id)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the kernel has no bpf_link for XDP (5.9 and newer have)"))?;
    link.pin(&pin)
        .with_context(|| format!("pin {}", pin.display()))?;
    Ok(Attachment::Attached { mode, refused })
}

/// The program of an object that sees what an interface receives.
fn received(object: &mut Ebpf, tracks: bool) -> Result<&mut Xdp> {
    let is_old = KernelVersion::current().is_ok_and(|version| version < FRAGS_SINCE);
    let name = match (tracks, is_old) {
        (false, false) => PROGRAM,
        (false, true) => PLAIN_PROGRAM,
        (true, false) => FLOW_PROGRAM,
        (true, true) => FLOW_PLAIN_PROGRAM,
    };
    let program = object
        .program_mut(name)
        .context("the object has no program")?;
    Ok(program.try_into()?)
}

/// The programs in the kernel that use a map.
pub(super) fn programs_with(map: u32) -> Vec<u32> {
    loaded_programs()
        .flatten()
        .filter(|program| {
            let maps = program.map_ids().ok().flatten();
            maps.is_some_and(|maps| maps.contains(&map))
        })
        .map(|program| program.id())
        .collect()
}

/// Whether the programs on all interfaces use a map, and each has one beside it that sees what is sent.
pub(super) fn all_use(places: &Places, map: u32) -> Result<bool> {
    let using = programs_with(map);
    let present = interface::list()?;
    Ok(pinned(places)
        .iter()
        .filter(|link| link.carrier(&present).is_some())
        .all(|link| {
            let uses = link.program.is_some_and(|program| using.contains(&program));
            uses && (places.sent(link.place).exists() || !sent::has_links())
        }))
}

/// Replaces the programs on all interfaces by those that the instance needs: with or without flows.
///
/// Each is replaced in one step, and none is missing at any moment.
///
/// # Errors
///
/// The kernel refuses one; those before it are replaced.
pub(super) fn replace_all(places: &Places, maps: &Maps, _lock: &Lock) -> Result<()> {
    let shape = maps.shape();
    let present = interface::list()?;
    for link in pinned(places) {
        // Of an interface that is gone only the link is left.
        let Some(name) = link.carrier(&present).map(|carrier| &carrier.name) else {
            continue;
        };
        let place = link.place;
        let mut object = load(maps, place, shape)?;
        let pin = places.link(place);
        let link = open_link(&pin)?;
        // Verified before either is exchanged: until both are, they may look at different tables.
        received(&mut object, shape.is_some())?
            .load()
            .context("load the program into the kernel")?;
        if shape.is_some() {
            sent::attach(places, &mut object, place, name)?;
        }
        received(&mut object, shape.is_some())?
            .attach_to_link(link)
            .with_context(|| format!("replace the program on {name}"))?;
    }
    Ok(())
}

fn open_link(pin: &Path) -> Result<XdpLink> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("open {}", pin.display()))?;
    XdpLink::try_from(FdLink::from(link))
        .with_context(|| format!("{} is no XDP link", pin.display()))
}

/// Replaces the programs that do not use the map of sources that is pinned beside their links, each in
/// one step; returns the places of their interfaces. What sees packets on the way out uses no sources.
///
/// # Errors
///
/// The kernel refuses the program.
pub(super) fn renew(maps: &Maps) -> Result<Vec<usize>> {
    let (pins, shape) = (&maps.directory, maps.shape());
    let map = MapInfo::from_pin(pins.join(SOURCES))
        .with_context(|| format!("open {}", pins.join(SOURCES).display()))?;
    let using = programs_with(map.id());
    let mut renewed = Vec::new();
    for place in 0..MAX_INTERFACES {
        let pin = pins.join(format!("link{place}"));
        // A link that cannot be read is one whose interface is gone: no packet meets its program.
        let Some(program) = pin.exists().then(|| program_id(&pin)).flatten() else {
            continue;
        };
        if using.contains(&program) {
            continue;
        }
        let mut object = load(maps, place, shape)?;
        let program = received(&mut object, shape.is_some())?;
        program.load().context("load the program into the kernel")?;
        match program.attach_to_link(open_link(&pin)?) {
            Err(error) if os_error(&error) != Some(ENOLINK) => {
                return Err(error).context("replace the program on an interface");
            }
            Ok(_) | Err(_) => renewed.push(place),
        }
    }
    Ok(renewed)
}

/// Takes the program off the interface at a place, if there is one, and frees nothing else.
///
/// # Errors
///
/// The pin cannot be removed, or something else holds the link.
pub fn detach(places: &Places, place: usize) -> Result<()> {
    let pin = places.link(place);
    let program = program_id(&pin);
    let present = interface::list()?;
    let carrier = carriers(&[Pinned { place, program }], &present).next();
    sent::detach(places, place, carrier)?;
    match fs::remove_file(&pin) {
        Ok(()) => wait_until_gone(program.as_slice()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", pin.display())),
    }
}

/// Waits until none of these programs, whose links are gone, is on an interface of this network
/// namespace.
///
/// The kernel takes a program off some time after the pin of its link was removed: when a grace
/// period is over and a work queue comes to it (Linux `kernel/bpf/inode.c`, `bpf_free_inode`;
/// `kernel/bpf/syscall.c`, `bpf_link_put`).
///
/// # Errors
///
/// One stays, as where something else holds its link; or the interfaces cannot be listed.
pub fn wait_until_gone(programs: &[u32]) -> Result<()> {
    let deadline = Instant::now() + PARTING;
    loop {
        let present = interface::list()?;
        let staying = present.iter().find_map(|interface| {
            let mut on_it = interface.programs.iter();
            let program = on_it.find(|program| programs.contains(&program.id))?;
            Some((interface, program.id))
        });
        let Some((interface, id)) = staying else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let name = &interface.name;
            return Err(anyhow::anyhow!(
                "the kernel does not take program {id} off {name} although its link is removed"
            ))
            .help(|| {
                format!(
                    "something else holds the link: bpftool link show, bpftool net show dev {name}"
                )
            });
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the interfaces of these links, as far as they are in this network namespace, are called today.
fn carriers<'a>(pinned: &[Pinned], present: &'a [Interface]) -> impl Iterator<Item = &'a str> {
    pinned
        .iter()
        .filter_map(|link| Some(link.carrier(present)?.name.as_str()))
}

/// Removes an instance, with its programs and all that is pinned, however damaged that is.
///
/// # Errors
///
/// A pin or a record cannot be removed; something else holds a link.
pub fn remove_instance(places: &Places, lock: &Lock) -> Result<()> {
    let (pinned, present) = (pinned(places), interface::list()?);
    places.remove(lock)?;
    sent::detach_filters(carriers(&pinned, &present));
    let programs: Vec<u32> = pinned.iter().filter_map(|link| link.program).collect();
    wait_until_gone(&programs)
}

/// The links that are pinned.
#[must_use]
pub fn pinned(places: &Places) -> Vec<Pinned> {
    (0..MAX_INTERFACES)
        .filter(|&place| places.link(place).exists())
        .map(|place| Pinned {
            place,
            program: program_id(&places.link(place)),
        })
        .collect()
}

/// The name of a mode.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}

/// Prepares the programs for the interface at `place`, with tables of flows if there are such.
///
/// # Errors
///
/// The kernel refuses, or the maps are damaged.
pub fn load(maps: &Maps, place: usize, shape: Option<Shape>) -> Result<Ebpf> {
    let pins = &maps.directory;
    let mac = maps.interface(place).mac;
    let place = u32::try_from(place)?;
    let cpus = u32::try_from(possible_cpus()?)?;
    let tables = flows::directory(pins);
    let mut loader = EbpfLoader::new();
    for name in SHARED {
        loader.map_pin_path(name, pins.join(name));
    }
    loader
        .map_max_entries(COUNTERS, cpus)
        .map_max_entries(CPUS, cpus)
        .override_global("INTERFACE", &place, true)
        .override_global("MAC", &mac, true)
        .override_global("FINDS_SOCKETS", &1_u32, true);
    let shape_or_none = shape.unwrap_or_default();
    let object = if let Some(shape) = shape {
        for name in flows::ALL {
            loader.map_pin_path(name, tables.join(name));
        }
        loader
            .map_max_entries(flows::FLOWS, shape.known + 1)
            .map_max_entries(flows::HALF_OPEN, shape.half_open + 1)
            .map_max_entries(flows::FLOW_COUNTERS, cpus)
            .override_global("FLOWS_MASK", &shape_or_none.known, true)
            .override_global("HALF_OPEN_MASK", &shape_or_none.half_open, true)
            .override_global("FLOWS_SEED", &shape_or_none.seed, true);
        objects::FLOWS
    } else {
        objects::DISPATCHER
    };
    loader.load(object).context("prepare the program")
}

/// The mode of the link at `pin`, if it still holds a program on this very interface.
fn replaceable(pin: &Path, interface: &Interface) -> Option<Mode> {
    mode_of(program_id(pin)?, interface)
}

/// The mode in which a program runs on an interface, if it does.
#[must_use]
pub fn mode_of(program: u32, interface: &Interface) -> Option<Mode> {
    let mut programs = interface.programs.iter();
    let found = programs.find(|found| found.id == program)?;
    Some(match found.hook {
        XdpHook::Generic => Mode::Generic,
        XdpHook::Native | XdpHook::Offload => Mode::Native,
    })
}

fn program_id(pin: &Path) -> Option<u32> {
    let link = PinnedLink::from_pin(pin).ok()?;
    Some(FdLink::from(link).info().ok()?.program_id())
}

/// Stops where another program is: it is somebody's, and works.
///
/// One that can be on its way off the interface is waited for: a program of portdemux that no
/// instance in this bpffs has, or one that is not there any more when it is asked for its name.
fn refuse_foreign_program(places: &Places, interface: &Interface) -> Result<()> {
    let deadline = Instant::now() + PARTING;
    let (program, name) = loop {
        let present = interface::list()?;
        let on_it = present.iter().find(|other| other.index == interface.index);
        let Some(&program) = on_it.and_then(|on_it| on_it.programs.first()) else {
            return Ok(());
        };
        let name = loaded_programs()
            .flatten()
            .find(|info| info.id() == program.id)
            .and_then(|info| info.name_as_str().map(str::to_owned));
        let can_be_parting = name
            .as_ref()
            .is_none_or(|name| is_our_name(name) && !is_pinned(places, program.id));
        if !can_be_parting || Instant::now() > deadline {
            break (program, name.unwrap_or_else(|| "no name".into()));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let is_ours = is_our_name(&name);
    let whose = if is_ours {
        "another portdemux instance's"
    } else {
        "another"
    };
    Err(anyhow::anyhow!(
        "{} has {whose} XDP program: id {}, {name}, {} mode",
        interface.name,
        program.id,
        program.hook.name()
    ))
    .help(|| {
        if is_ours {
            "detach it there first: portdemux --instance NAME detach".into()
        } else {
            format!(
                "see whose it is with `bpftool prog show id {}`, take it off with its own tool or with \
                 `ip link set {} xdp off`, then attach again",
                program.id, interface.name
            )
        }
    })
}

fn is_our_name(name: &str) -> bool {
    [PROGRAM, PLAIN_PROGRAM, FLOW_PROGRAM, FLOW_PLAIN_PROGRAM].contains(&name)
}

/// Whether an instance in this bpffs has the link of a program.
fn is_pinned(places: &Places, program: u32) -> bool {
    let links = places.all_links();
    links.iter().any(|pin| program_id(pin) == Some(program))
}

fn refusal(error: &ProgramError, interface: &Interface, mode: Mode) -> anyhow::Error {
    let name = &interface.name;
    let failure = anyhow::anyhow!("{}", reason(error))
        .context(format!("attach to {name} in {} mode", mode_name(mode)));
    let advice = match (mode, os_error(error)) {
        (_, Some(EBUSY)) => {
            format!("another program came first: portdemux status, bpftool net show dev {name}")
        }
        (_, Some(EPERM)) => {
            "it takes the capabilities CAP_BPF and CAP_NET_ADMIN: run it as root".into()
        }
        (Mode::Native, _) => {
            format!("portdemux attach {name} --mode generic works on every driver, slower")
        }
        (Mode::Generic, _) => format!("ip -d link show {name} says what kind of interface it is"),
    };
    failure.context(Advice(advice))
}

const EPERM: i32 = 1;
const EBUSY: i32 = 16;
const ENOLINK: i32 = 67;

fn reason(error: &ProgramError) -> String {
    match os_error(error) {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    if let ProgramError::SyscallError(error) = error {
        return error.io_error.raw_os_error();
    }
    None
}

pub(super) fn padded(text: &str) -> [u8; NAME_LENGTH] {
    let mut padded = [0; NAME_LENGTH];
    for (to, from) in padded.iter_mut().zip(text.bytes().take(NAME_LENGTH - 1)) {
        *to = from;
    }
    padded
}

/// Checks up front that this process may load and attach programs.
///
/// # Errors
///
/// Names the capabilities that it lacks.
pub fn check_capabilities() -> Result<()> {
    let missing = capabilities::lacking(&[
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ])?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "this process lacks {}",
        missing.join(" and ")
    ))
    .help(|| "run it as root, or give the binary these capabilities with setcap".into())
}
