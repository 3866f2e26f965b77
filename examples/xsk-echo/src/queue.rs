//! An `AF_XDP` socket on one queue, and the memory that it shares with the kernel.

use std::{ffi::CString, num::NonZeroU32, ptr::NonNull};

use anyhow::{Context as _, Result, anyhow};
use xdpilone::{
    BufIdx, DeviceQueue, Errno, IfInfo, RingRx, RingTx, Socket, SocketConfig, Umem, UmemConfig,
    xdp::XdpDesc,
};

/// How many frames there is memory for.
const FRAMES: u32 = 256;
/// How much memory a frame has: a page.
const FRAME: u32 = 4096;

#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page(
    #[expect(dead_code, reason = "it is read and written where the rings say")]
    [u8; FRAME as usize],
);

/// A socket with its rings.
pub(crate) struct Queue {
    umem: Umem,
    device: DeviceQueue,
    rx: RingRx,
    tx: RingTx,
    on_their_way: u32,
}

impl Queue {
    /// Opens a socket on a queue. Frames are copied, which every driver can.
    pub(crate) fn open(interface: &str, queue: u32) -> Result<Self> {
        let memory = vec![Page([0; FRAME as usize]); FRAMES as usize].leak();
        let first = NonNull::from(&mut *memory).cast::<u8>();
        let area = NonNull::slice_from_raw_parts(first, size_of_val(memory));
        let config = UmemConfig {
            fill_size: FRAMES,
            complete_size: FRAMES,
            frame_size: FRAME,
            ..UmemConfig::default()
        };
        #[expect(unsafe_code, reason = "the kernel writes the memory by itself")]
        // SAFETY: the memory is aligned to a page, lives as long as the process, and nobody else has it.
        let umem = unsafe { Umem::new(config, area) }.map_err(said)?;
        let mut info = IfInfo::invalid();
        info.from_name(&CString::new(interface)?).map_err(said)?;
        info.set_queue(queue);
        let socket = Socket::with_shared(&info, &umem).map_err(said)?;
        let mut device = umem.fq_cq(&socket).map_err(said)?;
        let rings = SocketConfig {
            rx_size: NonZeroU32::new(FRAMES),
            tx_size: NonZeroU32::new(FRAMES),
            bind_flags: SocketConfig::XDP_BIND_COPY | SocketConfig::XDP_BIND_NEED_WAKEUP,
        };
        let user = umem.rx_tx(&socket, &rings).map_err(said)?;
        let (rx, tx) = (user.map_rx().map_err(said)?, user.map_tx().map_err(said)?);
        {
            // All memory is the kernel's until a frame comes.
            let mut fill = device.fill(FRAMES);
            fill.insert((0..FRAMES).map(|frame| u64::from(frame * FRAME)));
            fill.commit();
        }
        umem.bind(&user).map_err(said)?;
        Ok(Self {
            umem,
            device,
            rx,
            tx,
            on_their_way: 0,
        })
    }

    /// The socket.
    pub(crate) fn fd(&self) -> i32 {
        self.rx.as_raw_fd()
    }

    /// Waits for frames and sends those back that `reply` turns round.
    pub(crate) fn turn_round(&mut self, reply: impl Fn(&mut [u8]) -> bool) -> Result<()> {
        self.wait()?;
        let mut free: Vec<u64> = Vec::new();
        let mut back: Vec<XdpDesc> = Vec::new();
        {
            let mut frames = self.rx.receive(FRAMES);
            while let Some(frame) = frames.read() {
                if bytes(&self.umem, frame).is_some_and(&reply) {
                    back.push(frame);
                } else {
                    free.push(frame.addr);
                }
            }
            frames.release();
        }
        {
            let mut ring = self.tx.transmit(count_of(&back)?);
            ring.insert(back.iter().copied());
            ring.commit();
        }
        self.on_their_way += count_of(&back)?;
        if self.on_their_way > 0 {
            self.tx.wake();
        }
        {
            let mut sent = self.device.complete(FRAMES);
            while let Some(address) = sent.read() {
                free.push(address);
                self.on_their_way = self.on_their_way.saturating_sub(1);
            }
            sent.release();
        }
        let mut fill = self.device.fill(count_of(&free)?);
        fill.insert(
            free.iter()
                .map(|address| address / u64::from(FRAME) * u64::from(FRAME)),
        );
        fill.commit();
        Ok(())
    }

    /// Waits until there is a frame; not for long while frames are on their way out: in copy mode the kernel sends
    /// 32 of them when it is woken (Linux 6.18, `net/xdp/xsk.c`, `TX_BATCH_SIZE`), and wants to be woken again.
    fn wait(&self) -> Result<()> {
        let mut socket = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = if self.on_their_way > 0 { 1 } else { -1 };
        #[expect(unsafe_code, reason = "the call has no safe wrapper here")]
        // SAFETY: one structure, which lives until the call returns.
        let ready = unsafe { libc::poll(&raw mut socket, 1, patience) };
        if ready < 0 {
            return Err(std::io::Error::last_os_error()).context("wait for frames");
        }
        Ok(())
    }
}

fn count_of<T>(frames: &[T]) -> Result<u32> {
    Ok(u32::try_from(frames.len())?)
}

/// The bytes of a frame that was read from the ring.
fn bytes(umem: &Umem, frame: XdpDesc) -> Option<&'static mut [u8]> {
    let (number, offset) = (frame.addr / u64::from(FRAME), frame.addr % u64::from(FRAME));
    let mut chunk = umem.frame(BufIdx(u32::try_from(number).ok()?))?;
    #[expect(unsafe_code, reason = "the memory is shared with the kernel")]
    // SAFETY: the memory lives as long as the process, and a frame is the process's from when it is read
    // from the ring until it is handed back.
    let bytes: &'static mut [u8] = unsafe { chunk.addr.as_mut() };
    let begin = usize::try_from(offset).ok()?;
    bytes.get_mut(begin..begin + usize::try_from(frame.len).ok()?)
}

/// What the kernel said.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that `map_err` asks for"
)]
fn said(error: Errno) -> anyhow::Error {
    anyhow!(std::io::Error::from_raw_os_error(error.get_raw()))
}
