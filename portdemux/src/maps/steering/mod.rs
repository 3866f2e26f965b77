//! The maps of sockets that rules hand packets to.

mod groups;

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use aya_obj::generated::bpf_map_type;
use bytemuck::Zeroable as _;
pub use groups::{GroupName, Member};
use portdemux_common::{
    capacity::{MAX_GROUPS, MAX_GUARDED, SOCKET_SLOTS},
    sockets::{Group, Steering as Layout},
};

use crate::maps::{self, mapped::Mapped, random};

/// Name of the map of sockets.
pub const SOCKETS: &str = "SOCKETS";
/// Name of the map that says which groups of sockets there are.
pub const STEERING: &str = "STEERING";

/// Values of 8 bytes, so that the cookies of sockets can be read (Linux 5.8, `net/core/sock_map.c`,
/// `sock_map_lookup_sys`).
const VALUE: u32 = 8;

/// The maps of sockets, shared with the kernel and with other processes.
#[derive(Debug)]
pub struct Steering {
    memory: Mapped,
    sockets: OwnedFd,
}

impl Steering {
    /// Creates the maps and pins them in a directory of bpffs.
    pub(crate) fn create(directory: &Path) -> Result<()> {
        maps::create(&directory.join(STEERING), STEERING, size_of::<Layout>(), 1)?;
        let slots = u32::try_from(SOCKET_SLOTS)?;
        let path = directory.join(SOCKETS);
        maps::new(
            SOCKETS,
            bpf_map_type::BPF_MAP_TYPE_SOCKMAP,
            [4, VALUE as usize],
            slots,
            0,
        )?
        .pin(&path)
        .with_context(|| format!("pin {}", path.display()))?;
        let memory = maps::open(&directory.join(STEERING), size_of::<Layout>(), Some(1))?;
        memory.write(offset_of!(Layout, seed), &[random()?]);
        Ok(())
    }

    /// Opens the maps pinned in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(SOCKETS);
        let data = MapData::from_pin(&path)
            .with_context(|| format!("open the pinned map {}", path.display()))?;
        let info = data
            .info()
            .with_context(|| format!("ask about {}", path.display()))?;
        if info.value_size() != VALUE || info.max_entries() as usize != SOCKET_SLOTS {
            bail!("{} is not a map of this version", path.display());
        }
        Ok(Self {
            memory: maps::open(&directory.join(STEERING), size_of::<Layout>(), Some(1))?,
            sockets: data.fd().as_fd().try_clone_to_owned()?,
        })
    }

    /// How many bytes of kernel memory the maps take.
    pub(crate) const fn memory(&self) -> usize {
        self.memory.bytes() + SOCKET_SLOTS * size_of::<usize>()
    }

    /// The network namespace whose sockets these are: its cookie, and the inode number of its file; zeros
    /// if that is not said yet.
    #[must_use]
    pub fn netns(&self) -> (u64, u64) {
        let mut words = [0; 2];
        self.memory
            .read(offset_of!(Layout, netns_cookie), &mut words);
        let [cookie, inode] = words;
        (cookie, inode)
    }

    pub(crate) fn set_netns(&self, cookie: u64, inode: u64) {
        self.memory
            .write(offset_of!(Layout, netns_cookie), &[cookie, inode]);
    }

    /// Says of which interfaces all packets were decided about before.
    ///
    /// Written like this a program may see one of them missing for a moment, and decide again; it sees
    /// none that is not one.
    pub(crate) fn set_guarded(&self, indices: &[u32]) {
        let (count, new) = guarded(indices);
        let word = self.memory.word(offset_of!(Layout, groups_end));
        let set_count = |count_now: usize| {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let [groups_end, _]: [u32; 2] = bytemuck::cast(word);
                let now = u32::try_from(count_now).unwrap_or(0);
                Some(bytemuck::cast([groups_end, now]))
            });
        };
        if self.guarded_words() != new {
            set_count(0);
            self.memory.write(offset_of!(Layout, guarded), &new);
        }
        set_count(count);
    }

    /// Whether that was last said of these interfaces.
    pub(crate) fn guards(&self, indices: &[u32]) -> bool {
        let (count, words) = guarded(indices);
        let word = self.memory.word(offset_of!(Layout, groups_end));
        let [_, count_now]: [u32; 2] = bytemuck::cast(word.load(Ordering::Acquire));
        count_now as usize == count && self.guarded_words() == words
    }

    fn guarded_words(&self) -> [u64; MAX_GUARDED / 2] {
        let mut words = [0; MAX_GUARDED / 2];
        self.memory.read(offset_of!(Layout, guarded), &mut words);
        words
    }

    fn group(&self, index: u32) -> Group {
        let mut group = Group::zeroed();
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(&mut group));
        self.memory.read(group_offset(index), words);
        group
    }

    fn groups_end(&self) -> u32 {
        let [end, _]: [u32; 2] = bytemuck::cast(
            self.memory
                .word(offset_of!(Layout, groups_end))
                .load(Ordering::Acquire),
        );
        end
    }

    fn set_groups_end(&self, end: u32) {
        let word = self.memory.word(offset_of!(Layout, groups_end));
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let [_, guarded]: [u32; 2] = bytemuck::cast(word);
            Some(bytemuck::cast([end, guarded]))
        });
    }
}

/// How many interfaces are listed, as there is no room for more, and the words of the list.
fn guarded(indices: &[u32]) -> (usize, [u64; MAX_GUARDED / 2]) {
    let indices = indices.get(..MAX_GUARDED).unwrap_or(indices);
    let mut list = [0_u32; MAX_GUARDED];
    list[..indices.len()].copy_from_slice(indices);
    (indices.len(), bytemuck::cast(list))
}

const fn group_offset(index: u32) -> usize {
    offset_of!(Layout, groups) + (index as usize % MAX_GROUPS) * size_of::<Group>()
}
