//! Frames byte by byte, to and from an interface.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd as _, OwnedFd},
    thread::yield_now,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    libc,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol,
            SockType, UnknownCmsg, bind, getsockopt, recvmsg, sendmsg, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::netns::Netns;

/// Whether each frame comes with the VLAN tag that the kernel took out of it.
#[derive(Clone, Copy, Debug)]
struct AuxiliaryData;

nix::setsockopt_impl!(
    AuxiliaryData,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool,
    sockopt::SetBool
);

/// Whether a header stands before each frame that says how it is to lie in memory.
#[derive(Clone, Copy, Debug)]
struct VirtioHeader;

nix::setsockopt_impl!(
    VirtioHeader,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool,
    sockopt::SetBool
);

/// The kernel's `struct virtio_net_hdr` (Linux `include/uapi/linux/virtio_net.h`) is 10 bytes long.
const VIRTIO_LENGTH: usize = 10;
/// The kernel's `struct tpacket_auxdata` (Linux `include/uapi/linux/if_packet.h`) is 20 bytes long.
const AUXILIARY_LENGTH: usize = 20;
/// `TP_STATUS_VLAN_VALID`.
const TAG_IS_VALID: u32 = 1 << 4;
/// The longest frame a veth interface carries.
const LONGEST: usize = 65_550;
/// Enough for thousands of frames that arrive before the first is read.
const BUFFER: usize = 16 << 20;

/// Which way a frame went through the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
    address: LinkAddr,
}

/// How many frames came and how many of them had no room, since it was asked last.
#[derive(Clone, Copy, Debug)]
struct Statistics;

nix::getsockopt_impl!(
    Statistics,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    libc::tpacket_stats,
    sockopt::GetStruct<libc::tpacket_stats>
);

impl RawSocket {
    /// Opens a socket that sends to and receives from `interface`.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no `CAP_NET_RAW`.
    pub fn open(namespace: &Netns, interface: &str) -> Result<Self> {
        namespace.enter(|| {
            let address = getifaddrs()?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .with_context(|| format!("no interface {interface}"))?;
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .context("open a packet socket")?;
            bind(socket.as_raw_fd(), &address)?;
            setsockopt(&socket, AuxiliaryData, &true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
            Ok(Self { socket, address })
        })
    }

    /// Sends a frame: destination MAC address first, no FCS.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it, for example because it is longer than the MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(frame)],
            &[],
            MsgFlags::empty(),
            None::<&LinkAddr>,
        )
        .with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        if sent != frame.len() {
            bail!("{sent} of {} bytes were sent", frame.len());
        }
        Ok(())
    }

    /// Sends a frame of which only the first bytes, `linear` of them and an Ethernet header at least, lie in the buffer
    /// itself, and the rest in pages. One shorter than a page lies in the buffer all the same (Linux
    /// `net/packet/af_packet.c`, `packet_alloc_skb`).
    ///
    /// # Errors
    ///
    /// As of [`RawSocket::send`].
    pub fn send_in_pages(&self, frame: &[u8], linear: u16) -> Result<()> {
        let mut header = [0; VIRTIO_LENGTH];
        header[2..4].copy_from_slice(&linear.to_ne_bytes());
        setsockopt(&self.socket, VirtioHeader, &true)?;
        let sent = self.send(&[&header[..], frame].concat());
        setsockopt(&self.socket, VirtioHeader, &false)?;
        sent
    }

    /// Sends a frame as [`RawSocket::send`] does, as soon as there is room for it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it for any other reason.
    pub fn send_when_there_is_room(&self, frame: &[u8]) -> Result<()> {
        loop {
            match self.send(frame) {
                Err(error) if error.downcast_ref() == Some(&Errno::ENOBUFS) => yield_now(),
                done => return done,
            }
        }
    }

    /// The next frame that came in, or nothing if none does within `timeout`; those that went out
    /// before it are skipped. A VLAN tag that the kernel took out of it is put back.
    ///
    /// # Errors
    ///
    /// If the interface is gone or down.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.next(Way::In, timeout)
    }

    /// The next frame that went out, whoever sent it, or nothing if none does within `timeout`; those
    /// that came in before it are skipped.
    ///
    /// # Errors
    ///
    /// If the interface is gone or down.
    pub fn sent(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.next(Way::Out, timeout)
    }

    fn next(&self, way: Way, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // A wait of any length is at least a tick, in which a talkative peer sends the next one.
            let flags = if left.is_zero() {
                MsgFlags::MSG_DONTWAIT
            } else {
                let left = TimeVal::microseconds(i64::try_from(left.as_micros())?.max(1));
                setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
                MsgFlags::empty()
            };
            let mut bytes = vec![0; LONGEST];
            let mut space = nix::cmsg_space!([u8; AUXILIARY_LENGTH]);
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let message = match recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut buffers,
                Some(&mut space),
                flags,
            ) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(err) => return Err(err).context("receive a frame"),
            };
            let is_ours = message.address.is_some_and(|from| {
                from.ifindex() == self.address.ifindex() && way_of(&from) == way
            });
            let tag = message.cmsgs()?.find_map(|message| {
                if let ControlMessageOwned::Unknown(auxiliary) = message {
                    tag(&auxiliary)
                } else {
                    None
                }
            });
            let length = message.bytes;
            if !is_ours {
                continue;
            }
            bytes.truncate(length);
            if let Some(tag) = tag
                && length >= 12
            {
                bytes.splice(12..12, tag);
            }
            return Ok(Some(bytes));
        }
    }

    /// How many frames were lost for want of room since it was asked last.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn lost(&self) -> Result<u32> {
        Ok(getsockopt(&self.socket, Statistics)?.tp_drops)
    }

    /// The next frame that `is_wanted`; others are skipped.
    ///
    /// # Errors
    ///
    /// After `timeout`, saying `what` did not arrive.
    pub fn expect(
        &self,
        what: &str,
        timeout: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let end = Instant::now() + timeout;
        while let Some(frame) = self.receive(end.saturating_duration_since(Instant::now()))? {
            if is_wanted(&frame) {
                return Ok(frame);
            }
        }
        bail!("waited {timeout:?} for {what} to arrive");
    }
}

/// A packet socket also sees what its own host sends.
fn way_of(from: &LinkAddr) -> Way {
    if from.pkttype() == libc::PACKET_OUTGOING {
        Way::Out
    } else {
        Way::In
    }
}

/// The tag in `struct tpacket_auxdata`: status, three lengths, two offsets of 2 bytes, then the
/// tag's control information and its type, both in host byte order.
fn tag(auxiliary: &UnknownCmsg) -> Option<[u8; 4]> {
    let header = auxiliary.cmsg_header;
    if header.cmsg_level != libc::SOL_PACKET || header.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    let bytes = auxiliary.data_bytes.as_slice();
    let word = |at: usize| Some(u16::from_ne_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let status = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    if status & TAG_IS_VALID == 0 {
        return None;
    }
    let [type_high, type_low] = word(18)?.to_be_bytes();
    let [control_high, control_low] = word(16)?.to_be_bytes();
    Some([type_high, type_low, control_high, control_low])
}
