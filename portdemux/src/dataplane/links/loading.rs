//! The programs for an interface, from their object into the kernel.

use std::{
    panic,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp, util::KernelVersion};
use portdemux_common::conntrack::Shape;

use crate::{
    dataplane::{egress, objects, refused},
    maps::{self, CPUS, Maps, flows, possible_cpus},
};

/// The program's name in its object.
pub const PROGRAM: &str = "portdemux";

/// The program that is attached on kernels without frames in several buffers.
pub const PLAIN_PROGRAM: &str = "portdemux_plain";

/// The program that is attached where flows are tracked.
pub const FLOW_PROGRAM: &str = "portdemux_flow";

/// The program that is attached where flows are tracked, on kernels without frames in several buffers.
pub const FLOW_PLAIN_PROGRAM: &str = "portdemux_flowp";

/// The first kernel with `xdp.frags`.
const FRAGS_SINCE: KernelVersion = KernelVersion::new(5, 18, 0);

/// Prepares the programs for the interface at `slot`, with tables of flows if there are such.
///
/// # Errors
///
/// The kernel refuses, or the maps are damaged.
pub fn load(instance: &Maps, slot: usize, shape: Option<Shape>) -> Result<Ebpf> {
    let pins = &instance.directory;
    let mac = instance.interface(slot).mac;
    let slot = u32::try_from(slot)?;
    let cpus = u32::try_from(possible_cpus()?)?;
    let mut loader = EbpfLoader::new();
    // An object has all maps, whatever its programs use, and those that are not found would be made for nothing.
    for name in maps::ALL {
        loader.map_pin_path(name, pins.join(name));
    }
    loader
        .map_max_entries(CPUS, cpus)
        .override_global("INTERFACE", &slot, true)
        .override_global("MAC", &mac, true)
        .override_global("FINDS_SOCKETS", &1_u32, true);
    let shape_or_none = shape.unwrap_or_default();
    let object = if let Some(shape) = shape {
        let tables = flows::directory_of(pins, &shape);
        for name in flows::ALL {
            loader.map_pin_path(name, tables.join(name));
        }
        loader
            .map_max_entries(flows::FLOWS, shape.known + 1)
            .map_max_entries(flows::HALF_OPEN, shape.half_open + 1)
            .override_global("FLOWS_MASK", &shape_or_none.known, true)
            .override_global("HALF_OPEN_MASK", &shape_or_none.half_open, true)
            .override_global("FLOWS_SEED", &shape_or_none.seed, true);
        objects::FLOWS
    } else {
        objects::DISPATCHER
    };
    objects::prepared(&mut loader, object, "the program")
}

/// Loads the programs for the interface at `slot` into the kernel, both at once where flows are tracked: that is most
/// of what attaching takes.
///
/// # Errors
///
/// The kernel refuses one, or the maps are damaged.
pub(super) fn verified(maps: &Maps, slot: usize) -> Result<Ebpf> {
    let shape = maps.shape();
    let mut object = load(maps, slot, shape)?;
    let name = received_name(shape.is_some());
    let mut works: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>> = Vec::new();
    for (found, program) in object.programs_mut() {
        if found == name {
            works.push(Box::new(|| {
                let program: &mut Xdp = program.try_into()?;
                refused::load("the program", || program.load())
            }));
        } else if shape.is_some() && found == egress::PROGRAM {
            works.push(Box::new(|| egress::load(program)));
        }
    }
    at_once(works)?;
    Ok(object)
}

/// Loads the programs for interfaces at several slots, as many at once as there are CPUs; each with its slot.
///
/// # Errors
///
/// The kernel refuses one, or the maps are damaged.
pub(super) fn all_verified(
    maps: &Maps,
    slots: impl IntoIterator<Item = usize>,
) -> Result<Vec<(usize, Ebpf)>> {
    let slots: Vec<usize> = slots.into_iter().collect();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut objects = Vec::new();
    for slots in slots.chunks(cpus) {
        let works = slots
            .iter()
            .map(|&slot| move || Ok((slot, verified(maps, slot)?)));
        objects.extend(at_once(works)?);
    }
    Ok(objects)
}

/// Does several things at once, the first on this thread and each other on one of its own, if that can be had.
///
/// # Errors
///
/// The first one of what was done.
fn at_once<T: Send>(
    works: impl IntoIterator<Item = impl FnOnce() -> Result<T> + Send>,
) -> Result<Vec<T>> {
    let works: Vec<_> = works
        .into_iter()
        .map(|work| Mutex::new(Some(work)))
        .collect();
    let Some((first, others)) = works.split_first() else {
        return Ok(Vec::new());
    };
    thread::scope(|scope| {
        let threads: Vec<_> = others
            .iter()
            .map(|work| thread::Builder::new().spawn_scoped(scope, move || taken(work)))
            .collect();
        let mut results = vec![taken(first)];
        for (thread, work) in threads.into_iter().zip(others) {
            results.push(match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| panic::resume_unwind(panic)),
                Err(_) => taken(work),
            });
        }
        results.into_iter().collect()
    })
}

/// Does what was not done yet.
fn taken<T>(work: &Mutex<Option<impl FnOnce() -> Result<T>>>) -> Result<T> {
    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
    work.context("it was done already")?()
}

/// The program of an object that sees what an interface receives.
pub(super) fn received(object: &mut Ebpf, tracks: bool) -> Result<&mut Xdp> {
    let program = object
        .program_mut(received_name(tracks))
        .context("the object has no program")?;
    Ok(program.try_into()?)
}

fn received_name(tracks: bool) -> &'static str {
    let is_old = KernelVersion::current().is_ok_and(|version| version < FRAGS_SINCE);
    match (tracks, is_old) {
        (false, false) => PROGRAM,
        (false, true) => PLAIN_PROGRAM,
        (true, false) => FLOW_PROGRAM,
        (true, true) => FLOW_PLAIN_PROGRAM,
    }
}
