//! Changes of who is in a list, in tables that programs read.

use std::collections::HashMap;

use ipnet::IpNet;
use portdemux_common::sources::{SourceClass, Sources};

use super::{
    ControlWord, edit,
    encode::Keys,
    ranges::bounds,
    rows::{self, Membership, Numbering, Rows},
    store::{NoRoom, Store},
};

/// Who a prefix's addresses become in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Become {
    /// Members, until a time in units of [`portdemux_common::sources::DEADLINE_SHIFT`] or for good.
    Member(Option<u64>),
    /// Not members.
    NonMember,
}

/// Rows that stand in the tables, and those that are added to them.
struct LiveRows<'s, S> {
    store: &'s mut S,
    sources: &'s Sources,
    numbering: &'s Numbering,
}

impl<S: Store> LiveRows<'_, S> {
    fn control(&self, control: ControlWord) -> u64 {
        self.store.read(control as u32)
    }

    fn row(&self, class: SourceClass) -> Vec<u64> {
        let offset = self.sources.row_of(class);
        (offset..offset + self.sources.row)
            .map(|offset| self.store.read(offset))
            .collect()
    }
}

impl<S: Store> Rows for LiveRows<'_, S> {
    fn numbering(&self) -> &Numbering {
        self.numbering
    }

    fn class_of(&mut self, row: &[u64]) -> Result<SourceClass, NoRoom> {
        let count = self.control(ControlWord::Classes);
        let count_of_classes = SourceClass::try_from(count).map_err(|_| NoRoom::Full)?;
        let known = (0..count_of_classes).find(|&number| {
            let offset = self.sources.row_of(number);
            (offset..)
                .zip(row)
                .all(|(offset, &word)| self.store.read(offset) == word)
        });
        if let Some(number) = known {
            return Ok(rows::class(number, row));
        }
        if count >= self.control(ControlWord::ClassSlots) {
            return Err(NoRoom::Full);
        }
        let class = rows::class(count_of_classes, row);
        self.store.write(self.sources.row_of(class), row);
        self.store.publish(ControlWord::Classes as u32, count + 1);
        Ok(class)
    }
}

/// Lets the addresses of a prefix become members of a list or strangers to it.
///
/// An address is what it was, or what it is to be, at any time; which of both, one store decides for
/// many of them.
pub(crate) fn change<S: Store>(
    store: &mut S,
    sources: &Sources,
    numbering: &Numbering,
    atom: u16,
    prefix: &IpNet,
    change: Become,
) -> Result<(), NoRoom> {
    let (keys, division) = match prefix {
        IpNet::V4(_) => (Keys::V4, sources.v4),
        IpNet::V6(_) => (Keys::V6, sources.v6),
    };
    if numbering.words() != sources.row as usize {
        return Err(NoRoom::Unwieldy);
    }
    let mut known: HashMap<SourceClass, SourceClass> = HashMap::new();
    edit::change(
        store,
        keys,
        &division,
        bounds(prefix),
        &mut |store, class| {
            if let Some(&changed) = known.get(&class) {
                return Ok(changed);
            }
            let mut rows = LiveRows {
                store,
                sources,
                numbering,
            };
            let mut membership: Membership = numbering.membership(class, |class| rows.row(class));
            match change {
                Become::Member(deadline) => membership.enter(atom, deadline),
                Become::NonMember => membership.leave(atom),
            }
            let changed = rows.class(&membership)?;
            known.insert(class, changed);
            Ok(changed)
        },
    )
}
