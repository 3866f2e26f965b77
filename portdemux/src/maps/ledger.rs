//! The interfaces that programs were attached to, written down in a map.

use std::mem::offset_of;

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use portdemux_common::{
    capacity::{MAX_INTERFACES, NAME_LENGTH},
    state::{Interface, Ledger},
};

use crate::maps::Maps;

impl Maps {
    /// The interfaces that programs were attached to, with their slots.
    #[must_use]
    pub fn interfaces(&self) -> Vec<(usize, Interface)> {
        (0..MAX_INTERFACES)
            .map(|slot| (slot, self.interface(slot)))
            .filter(|(_, interface)| interface.name[0] != 0)
            .collect()
    }

    /// Whether the program is attached to any interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let mut known = self.interfaces().into_iter();
        known.any(|(slot, _)| self.directory.join(format!("link{slot}")).exists())
    }

    pub(crate) fn interface(&self, slot: usize) -> Interface {
        let mut interface = Interface::zeroed();
        self.ledger.read(
            interface_offset(slot),
            bytemuck::cast_slice_mut(std::slice::from_mut(&mut interface)),
        );
        interface
    }

    /// Finds the slot of an interface: the one it had, else a free one, else that of an interface
    /// that is detached. Returns what stands there if it is its own.
    ///
    /// `is_attached` says whether a program runs on the interface that a slot belongs to.
    ///
    /// # Errors
    ///
    /// Every slot belongs to an interface that a program runs on.
    pub(crate) fn slot_for(
        &self,
        interface: &Interface,
        is_attached: impl Fn(usize) -> bool,
    ) -> Result<(usize, Option<Interface>)> {
        let mut here = self.interfaces();
        let all: Vec<usize> = here.iter().map(|&(slot, _)| slot).collect();
        here.retain(|(_, known)| known.netns == interface.netns);
        // By its index, as a name can have gone over to another interface.
        let same = here
            .iter()
            .find(|(_, known)| known.index == interface.index)
            .or_else(|| {
                here.iter()
                    .find(|(slot, known)| known.name == interface.name && !is_attached(*slot))
            });
        if let Some(&(slot, known)) = same {
            return Ok((slot, Some(known)));
        }
        let slot = (0..MAX_INTERFACES)
            .find(|slot| !all.contains(slot))
            .or_else(|| (0..MAX_INTERFACES).find(|&slot| !is_attached(slot)))
            .with_context(|| format!("an instance has at most {MAX_INTERFACES} interfaces"))?;
        self.counters.reset_interface(slot);
        Ok((slot, None))
    }

    /// Writes down what interface a slot belongs to.
    pub(crate) fn enter_interface(&self, slot: usize, interface: &Interface) {
        self.ledger.write(
            interface_offset(slot),
            bytemuck::cast_slice(std::slice::from_ref(interface)),
        );
    }

    /// Writes down that the program on an interface is this binary's.
    pub(crate) fn note_version(&self, slot: usize) {
        let interface = Interface {
            version: padded(env!("CARGO_PKG_VERSION")),
            ..self.interface(slot)
        };
        self.enter_interface(slot, &interface);
    }

    /// Takes over all that another instance has written down.
    pub(crate) fn adopt_ledger(&self, before: &Self) {
        let mut words = vec![0; size_of::<Ledger>() / size_of::<u64>()];
        before.ledger.read(0, &mut words);
        self.ledger.write(0, &words);
    }

    /// Forgets an interface; its slot can be given to another.
    pub(crate) fn forget_interface(&self, slot: usize) {
        self.enter_interface(slot, &Interface::zeroed());
    }
}

const fn interface_offset(slot: usize) -> usize {
    offset_of!(Ledger, interfaces) + slot * size_of::<Interface>()
}

/// A name as the ledger has it.
pub(crate) fn padded(text: &str) -> [u8; NAME_LENGTH] {
    let mut padded = [0; NAME_LENGTH];
    for (to, from) in padded.iter_mut().zip(text.bytes().take(NAME_LENGTH - 1)) {
        *to = from;
    }
    padded
}
