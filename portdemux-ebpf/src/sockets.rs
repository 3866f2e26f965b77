//! Socket lookups, and the sockets that they are answered with.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{
        BPF_NOEXIST, BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops,
        sk_action,
    },
    btf_maps::{Array, SockMap},
    helpers::generated::{bpf_get_netns_cookie, bpf_map_lookup_elem, bpf_sk_release},
    macros::btf_map,
    programs::{SkLookupContext, SockOpsContext},
};
use portdemux_common::{
    capacity::{MAX_GROUPS, MEMBER_SLOTS, SOCKET_SLOTS},
    decide::Metadata,
    decision::Decision,
    memory::Word as _,
    parse::Version,
    pipeline::{self, SocketLookup},
    sockets::{self, Group, Listening, Lookup, Steering},
    target::Target,
    wire::{IpProto, Transport},
};

use crate::{
    counting,
    hook::Hook,
    ruleset,
    verifier::{Elements as _, Lookup as _},
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// `AF_INET` and `AF_INET6` (Linux `include/linux/socket.h`).
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// Another program has chosen a socket (`EEXIST`).
const CHOSEN: i32 = -17;

#[expect(clippy::cast_possible_truncation, reason = "there are 32")]
const SLOT_COUNT: u32 = MEMBER_SLOTS as u32;
#[expect(clippy::cast_possible_truncation, reason = "there are 1,024")]
const GROUP_COUNT: u32 = MAX_GROUPS as u32;

/// The sockets, by [`sockets::index`]. The kernel takes out what is closed.
#[btf_map]
static SOCKETS: SockMap<SOCKET_SLOTS> = SockMap::new();

/// Which groups there are; the control plane and [`listens`] write it.
#[btf_map]
static STEERING: Array<Steering, 1, MMAPABLE> = Array::new();

/// Whether the kernel says by which interface a packet came (Linux 5.17), set by the loader.
#[unsafe(no_mangle)]
static KNOWS_INTERFACE: Global<u32> = Global::new(1);

/// Whether the program that sees packets first asks if a socket is there, set by the loader. The shadow program does
/// not, which has no sockets.
#[unsafe(no_mangle)]
static FINDS_SOCKETS: Global<u32> = Global::new(0);

/// Whether it can be told if a socket is there.
#[inline(always)]
pub(crate) fn are_found() -> bool {
    FINDS_SOCKETS.load() != 0
}

/// Whether a socket is there for a packet that goes to this target.
#[inline(always)]
pub(crate) fn is_there(metadata: &Metadata, target: &Target) -> bool {
    let is_udp = u32::from(!matches!(metadata.transport(), Some(Transport::Tcp)));
    let is_v6 = u32::from(matches!(metadata.version(), Version::V6));
    portdemux_present(target.first, is_udp, is_v6) != 0
}

/// Whether a socket is there for packets of a protocol and a version that go to a destination.
///
/// A function of its own, so that the program that sees packets first is not verified for every set of
/// members.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_present(destination: u32, is_udp: u32, is_v6: u32) -> u32 {
    u32::from(is_present(destination, is_udp, is_v6) == Some(true))
}

#[inline(always)]
fn is_present(destination: u32, is_udp: u32, is_v6: u32) -> Option<bool> {
    let transport = if is_udp == 0 {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    let version = if is_v6 == 0 { Version::V4 } else { Version::V6 };
    let (group, members) = STEERING.find_ref(0)?.group_of(destination)?;
    let mut rest = shared(members.members(transport, version)).load();
    for slot in 0..SLOT_COUNT {
        if rest == 0 {
            break;
        }
        if rest & 1 != 0 {
            let index = sockets::index(group, transport, slot);
            // SAFETY: both live while the helper runs.
            let socket = unsafe {
                bpf_map_lookup_elem(
                    (&raw const SOCKETS).cast_mut().cast(),
                    (&raw const index).cast(),
                )
            };
            if !socket.is_null() {
                // SAFETY: it is the socket that was just found, and released once.
                unsafe { bpf_sk_release(socket) };
                return Some(true);
            }
        }
        rest >>= 1;
    }
    Some(false)
}

/// Says which socket gets a connection or a datagram.
#[inline(always)]
#[must_use]
pub fn steer(ctx: &SkLookupContext) -> u32 {
    match pipeline::lookup(Hook::<_>::new(ctx)) {
        Some(false) => sk_action::SK_DROP,
        // A lookup that no rule is about takes its usual way.
        Some(true) | None => sk_action::SK_PASS,
    }
}

impl SocketLookup for Hook<'_, SkLookupContext> {
    #[inline(always)]
    fn lookup(self) -> Option<Lookup> {
        read(self.ctx)
    }

    #[inline(always)]
    fn is_guarded(self) -> Option<bool> {
        Some(is_guarded(STEERING.find_ref(0)?, interface(self.ctx)))
    }

    #[inline(always)]
    fn assign(self, _metadata: &Metadata, lookup: &Lookup, target: &Target) -> bool {
        assign(self.ctx, lookup, target)
    }

    #[inline(always)]
    fn count(self, port: usize, decision: &Decision) {
        counting::count_lookup(port, decision);
    }
}

/// Whether an interface's packets were decided about before.
#[inline(always)]
fn is_guarded(steering: &Steering, interface: u32) -> bool {
    let counts: *const u32 = &raw const steering.groups_end;
    // SAFETY: the two counts are one word of a map's memory, which stays while the program runs.
    let counts: &Shared = unsafe { &*counts.cast() };
    let seen = counts.load();
    // The list is one for this count: the control plane says that it is empty before it writes another.
    counts.acquired(seen) && steering.is_guarded(ruleset::halves(seen)[1], interface)
}

/// Gives the packet to the member whose turn it is, of those that are there.
#[inline(always)]
fn assign(ctx: &SkLookupContext, lookup: &Lookup, target: &Target) -> bool {
    let Some(steering) = STEERING.find_ref(0) else {
        return false;
    };
    let Some((group, members)) = steering.group_of(target.first) else {
        return false;
    };
    // Sockets that were found by their address share as the kernel lets them.
    let flags = if members.is_named() {
        // The socket itself gets the packet, and none of those that share its port.
        u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT)
    } else {
        0
    };
    let mut members = shared(members.members(lookup.transport, lookup.version)).load();
    let flow = lookup.flow(steering.seed);
    for _ in 0..MEMBER_SLOTS {
        let slot = if members == 1 {
            0
        } else {
            portdemux_choose(members, flow)
        };
        if slot >= SLOT_COUNT {
            return false;
        }
        members &= !(1 << slot);
        let index = sockets::index(group, lookup.transport, slot);
        match SOCKETS.redirect_sk_lookup(ctx, index, flags) {
            Ok(()) | Err(CHOSEN) => return true,
            // It was closed, or does not take packets of this version.
            Err(_) => {}
        }
    }
    false
}

/// The slot of the member whose turn it is, and a number beyond all slots if there is none.
///
/// A function of its own, so that the verifier does not go through all sets of members.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_choose(members: u64, flow: u64) -> u32 {
    sockets::choose(members, flow).unwrap_or(u32::MAX)
}

/// What the kernel says about the packet; nothing if it is neither TCP nor UDP.
#[inline(always)]
fn read(ctx: &SkLookupContext) -> Option<Lookup> {
    const TCP: u32 = IpProto::TCP.0 as u32;
    const UDP: u32 = IpProto::UDP.0 as u32;
    let at = ctx.lookup;
    // SAFETY: the context is valid for as long as the program runs, as below.
    let is_udp = match unsafe { (*at).protocol } {
        TCP => 0_u8,
        UDP => 1,
        _ => return None,
    };
    let transport = match settled(&is_udp) & 1 {
        0 => Transport::Tcp,
        _ => Transport::Udp,
    };
    // SAFETY: as above.
    let (version, source, destination) = match unsafe { (*at).family } {
        AF_INET => {
            // SAFETY: as above.
            let source = unsafe { (*at).remote_ip4 };
            // SAFETY: as above.
            let destination = unsafe { (*at).local_ip4 };
            (
                Version::V4,
                [u64::from(source), 0],
                [u64::from(destination), 0],
            )
        }
        AF_INET6 => {
            // SAFETY: as above.
            let source = unsafe { &raw const (*at).remote_ip6 };
            // SAFETY: as above.
            let destination = unsafe { &raw const (*at).local_ip6 };
            (Version::V6, words(source), words(destination))
        }
        _ => return None,
    };
    // SAFETY: as above.
    let source_port = unsafe { (*at).remote_port };
    // SAFETY: as above. This one is in the order of the host.
    let destination_port = unsafe { (*at).local_port };
    #[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits")]
    let swapped = (destination_port as u16).to_be();
    Some(Lookup {
        source,
        destination,
        source_port: source_port.to_ne_bytes(),
        destination_port: settled(&swapped).to_ne_bytes(),
        version,
        transport,
    })
}

/// A number that is loaded as it is: the verifier knows by how many bits it has, whatever was computed to
/// come to it.
#[inline(always)]
fn settled<T: Copy>(number: &T) -> T {
    // SAFETY: a reference is valid for a read.
    unsafe { core::ptr::read_volatile(number) }
}

/// The interface that the packet came by; 0 if the kernel does not say.
#[inline(always)]
fn interface(ctx: &SkLookupContext) -> u32 {
    if KNOWS_INTERFACE.load() == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*ctx.lookup).ingress_ifindex }
}

/// An IPv6 address of a context, as words of the packet.
#[inline(always)]
fn words(address: *const [u32; 4]) -> [u64; 2] {
    let address: *const u32 = address.cast();
    let word = |at: usize| {
        // SAFETY: an address has four of them.
        let index = unsafe { address.add(at) };
        // SAFETY: the context is valid for as long as the program runs. The kernel takes only loads of
        // single words from it, which the compiler must not merge.
        u64::from(unsafe { index.read_volatile() })
    };
    let pair = |first: u64, second: u64| {
        if cfg!(target_endian = "big") {
            first << 32 | second
        } else {
            second << 32 | first
        }
    };
    [pair(word(0), word(1)), pair(word(2), word(3))]
}

/// The IPv6 address that a socket has here.
#[inline(always)]
fn local_v6(ctx: &SockOpsContext) -> [u64; 2] {
    // SAFETY: the context is valid for as long as the program runs.
    words(unsafe { &raw const (*ctx.ops).local_ip6 })
}

#[inline(always)]
fn shared(word: &u64) -> &Shared {
    // SAFETY: it is a word of a map's memory, which stays while the program runs.
    unsafe { &*core::ptr::from_ref(word).cast() }
}

/// Takes a socket that begins to listen, if a rule looks for it where it does.
#[inline(always)]
pub fn listens(ctx: &SockOpsContext) {
    if ctx.op() == BPF_SOCK_OPS_TCP_LISTEN_CB {
        let _ = take(ctx);
    }
}

#[inline(always)]
fn take(ctx: &SockOpsContext) -> Option<()> {
    let steering = STEERING.find_ref(0)?;
    // SAFETY: the helper takes the context of this type of program (Linux 5.15, net/core/filter.c,
    // bpf_get_netns_cookie_sock_ops).
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if netns != steering.netns_cookie {
        return None;
    }
    for index in 0..GROUP_COUNT {
        if index >= steering.groups_end {
            break;
        }
        portdemux_join(ctx.ops, index);
    }
    Some(())
}

/// Puts the socket that begins to listen into the first free slot of a group, if it is one of the group's;
/// whether it is in.
///
/// A function of its own, so that it is verified once and not for every group.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_join(ops: *mut bpf_sock_ops, index: u32) -> u32 {
    u32::from(join(&SockOpsContext::new(ops), index).is_some())
}

#[inline(always)]
fn join(ctx: &SockOpsContext, index: u32) -> Option<()> {
    let group = STEERING.find_ref(0)?.groups.element(index as usize)?;
    let listening = listening(ctx)?;
    if !listening.is_of(group) {
        return None;
    }
    // What was compared is one group if its key was the same before and after it.
    let key = shared(&group.key);
    let seen = key.load();
    if !(key.replace(seen, seen) && listening.is_of(group) && key.replace(seen, seen)) {
        return None;
    }
    for slot in 0..SLOT_COUNT {
        let index = sockets::index(index, Transport::Tcp, slot);
        // SAFETY: the context is valid for as long as the program runs.
        if unsafe { SOCKETS.update(index, ctx.ops, u64::from(BPF_NOEXIST)) }.is_ok() {
            let is_v4 = ctx.family() == AF_INET || group.is_at_v4();
            if is_v4 || local_v6(ctx) == [0; 2] {
                enter(group, Version::V4, slot);
            }
            if !is_v4 {
                enter(group, Version::V6, slot);
            }
            return Some(());
        }
    }
    None
}

/// Where the socket listens.
#[inline(always)]
fn listening(ctx: &SockOpsContext) -> Option<Listening> {
    let (version, address) = match ctx.family() {
        AF_INET => (Version::V4, [u64::from(ctx.local_ip4()), 0]),
        AF_INET6 => (Version::V6, local_v6(ctx)),
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits")]
    let port = (ctx.local_port() as u16).to_be_bytes();
    Some(Listening::new(version, address, port))
}

/// Notes that a slot was given to a socket that takes packets of a version.
#[inline(always)]
fn enter(group: &Group, version: Version, slot: u32) {
    /// How often another CPU may come first.
    const TRIES: u32 = 16;
    let members = shared(group.members(Transport::Tcp, version));
    for _ in 0..TRIES {
        let old = members.load();
        if old & 1 << slot != 0 || members.replace(old, old | 1 << slot) {
            break;
        }
    }
}
