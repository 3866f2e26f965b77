//! The far end of a guest's wire: it sends from before the guest has a network.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The guest's MAC address.
pub(super) const MAC: &str = "52:54:00:00:00:02";
/// UDP ports that frames go to: the rules drop the first, and have nothing for the second.
const PORTS: [u16; 2] = [7, 8];
/// How long it waits before it sends one to each again.
const PAUSE: Duration = Duration::from_millis(10);

/// What sends until it is dropped.
pub(super) struct Wire {
    directory: PathBuf,
    is_over: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Wire {
    /// Begins to send. The sockets of both ends lie in a directory of their own.
    ///
    /// # Errors
    ///
    /// The directory or the socket cannot be made.
    pub(super) fn begin() -> Result<Self> {
        // The path of a socket is at most 107 bytes long.
        let directory = std::env::temp_dir().join(format!("portdemux-wire-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut wire = Self {
            directory,
            is_over: Arc::clone(&is_over),
            sender: None,
        };
        let socket = UnixDatagram::bind(wire.here()).context("make the far end of the wire")?;
        socket.set_nonblocking(true)?;
        let there = wire.there();
        let frames = PORTS.map(frame);
        wire.sender = Some(thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for frame in &frames {
                    // Without a guest, or with its queue full, a frame is lost as on any wire.
                    let _: io::Result<usize> = socket.send_to(frame, &there);
                }
                thread::sleep(PAUSE);
            }
        }));
        Ok(wire)
    }

    /// QEMU's options for the near end.
    pub(super) fn options(&self) -> [String; 4] {
        let near = self.there().display().to_string();
        let far = self.here().display().to_string();
        [
            "-netdev".into(),
            format!(
                "dgram,id=n,local.type=unix,local.path={near},remote.type=unix,remote.path={far}"
            ),
            "-device".into(),
            format!("virtio-net-pci,netdev=n,addr=5,mac={MAC}"),
        ]
    }

    fn here(&self) -> PathBuf {
        self.directory.join("far")
    }

    fn there(&self) -> PathBuf {
        self.directory.join("near")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        let _: io::Result<()> = fs::remove_dir_all(&self.directory);
    }
}

/// An Ethernet frame with a UDP datagram from 192.0.2.1 to port `port` of 192.0.2.2, the guest.
fn frame(port: u16) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00];
    // RFC 791 §3.1: 20 bytes of header, 36 in all, time to live 64, UDP.
    let mut header = [0_u8; 20];
    header[..10].copy_from_slice(&[0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17]);
    header[12..].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    let sum: u32 = header
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).unwrap_or_default();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    // RFC 768: a checksum of zero is none.
    for word in [40_000, port, 16, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.resize(60, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_frame_adds_up() {
        let frame = frame(7);
        let sum: u32 = frame[14..34]
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(&frame[34..38], [0x9c, 0x40, 0, 7]);
    }
}
