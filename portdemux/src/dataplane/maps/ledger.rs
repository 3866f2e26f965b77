//! The interfaces that programs were attached to, written down in a map.

use std::mem::offset_of;

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use portdemux_common::{
    counters::MAX_INTERFACES,
    state::{Interface, Ledger},
};

use super::Maps;
use crate::dataplane::links;

impl Maps {
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

    pub(in crate::dataplane) fn interface(&self, place: usize) -> Interface {
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
    pub(in crate::dataplane) fn place_for(
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
    pub(in crate::dataplane) fn enter_interface(&self, place: usize, interface: &Interface) {
        self.ledger.write(
            interface_offset(place),
            bytemuck::cast_slice(std::slice::from_ref(interface)),
        );
    }

    /// Writes down that the program on an interface is this binary's.
    pub(in crate::dataplane) fn note_version(&self, place: usize) {
        let interface = Interface {
            version: links::padded(env!("CARGO_PKG_VERSION")),
            ..self.interface(place)
        };
        self.enter_interface(place, &interface);
    }

    /// Takes over all that another instance has written down.
    pub(in crate::dataplane) fn adopt_ledger(&self, before: &Self) {
        let mut words = vec![0; size_of::<Ledger>() / size_of::<u64>()];
        before.ledger.read(0, &mut words);
        self.ledger.write(0, &words);
    }

    /// Forgets an interface; its place can be given to another.
    pub(in crate::dataplane) fn forget_interface(&self, place: usize) {
        self.enter_interface(place, &Interface::zeroed());
    }
}

const fn interface_offset(place: usize) -> usize {
    offset_of!(Ledger, interfaces) + place * size_of::<Interface>()
}
