//! The programs for an interface, from their object into the kernel.

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp, util::KernelVersion};
use portdemux_common::flows::Shape;

use crate::dataplane::{
    flows,
    maps::{self, CPUS, Maps, possible_cpus},
    objects,
};

/// The program's name in its object.
pub const PROGRAM: &str = "portdemux";

/// The same for kernels that have no frames in several buffers.
pub const PLAIN_PROGRAM: &str = "portdemux_plain";

/// The program that is attached where flows are tracked.
pub const FLOW_PROGRAM: &str = "portdemux_flow";

/// The same for kernels that have no frames in several buffers.
pub const FLOW_PLAIN_PROGRAM: &str = "portdemux_flowp";

/// The first kernel with `xdp.frags`.
const FRAGS_SINCE: KernelVersion = KernelVersion::new(5, 18, 0);

/// Prepares the programs for the interface at `place`, with tables of flows if there are such.
///
/// # Errors
///
/// The kernel refuses, or the maps are damaged.
pub fn load(instance: &Maps, place: usize, shape: Option<Shape>) -> Result<Ebpf> {
    let pins = &instance.directory;
    let mac = instance.interface(place).mac;
    let place = u32::try_from(place)?;
    let cpus = u32::try_from(possible_cpus()?)?;
    let tables = flows::directory(pins);
    let mut loader = EbpfLoader::new();
    // An object has all maps, whatever its programs use, and those that are not found would be made for nothing.
    for name in maps::ALL {
        loader.map_pin_path(name, pins.join(name));
    }
    loader
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
            .override_global("FLOWS_MASK", &shape_or_none.known, true)
            .override_global("HALF_OPEN_MASK", &shape_or_none.half_open, true)
            .override_global("FLOWS_SEED", &shape_or_none.seed, true);
        objects::FLOWS
    } else {
        objects::DISPATCHER
    };
    loader.load(object).context("prepare the program")
}

/// The program of an object that sees what an interface receives.
pub(super) fn received(object: &mut Ebpf, tracks: bool) -> Result<&mut Xdp> {
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
