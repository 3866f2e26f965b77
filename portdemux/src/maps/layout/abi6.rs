//! ABI 6, whose instances do not say how the blocks of a CPU and the tables of rulesets are made up.

use crate::maps::layout::{AddressLayout, OwnBlocks, TableMaps};

/// Its number.
pub(super) const ABI: u32 = 6;

pub(super) const OWN_BLOCKS: OwnBlocks = OwnBlocks {
    bytes: 954_368,
    directory: 0,
    blocks: 36_864,
};

pub(super) const TABLES: TableMaps = TableMaps { value_bytes: 8 };

pub(super) const SLOTS: AddressLayout = AddressLayout {
    v4: (16, 8),
    v6: (24, 16),
};
