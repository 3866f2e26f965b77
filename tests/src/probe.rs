//! Which ports let a packet through, asked with packets.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;

use crate::{
    frames::{self, With as _},
    lab::{INTERFACE, Lab},
    raw::RawSocket,
    wait::PATIENCE,
};

/// An `EtherType` for local experiments (IEEE 802.3): no rule ever meets its frames.
const MARK: u16 = 0x88b5;
/// Where the number of a round stands in its datagrams: after Ethernet, IPv4 and UDP.
const NUMBER_AT: usize = 42;

/// Both ends of a lab's wire.
#[derive(Debug)]
pub struct Probe {
    client: RawSocket,
    server: RawSocket,
    rounds: AtomicU64,
}

impl Probe {
    /// A probe of a lab.
    ///
    /// # Errors
    ///
    /// If the sockets cannot be opened.
    pub fn new(lab: &Lab) -> Result<Self> {
        Self::to(lab, INTERFACE)
    }

    /// A probe of a lab in which the server's interface has another name.
    ///
    /// # Errors
    ///
    /// If the sockets cannot be opened.
    pub fn to(lab: &Lab, interface: &str) -> Result<Self> {
        Ok(Self {
            client: lab.client_socket()?,
            server: RawSocket::open(&lab.server, interface)?,
            rounds: AtomicU64::new(1),
        })
    }

    /// Sends a UDP datagram over IPv4 to each of the ports, and returns those whose datagram came
    /// through.
    ///
    /// A frame that always passes follows them: when it arrives, what is missing was dropped.
    ///
    /// # Errors
    ///
    /// If a frame cannot be sent, or the last one is lost too.
    pub fn passing(&self, ports: &[u16]) -> Result<BTreeSet<u16>> {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for &port in ports {
            let datagram = frames::udp(40_000, port).with(|udp| udp.data = number.to_vec());
            self.client.send(&frames::ipv4(datagram).frame().bytes())?;
        }
        let last = frames::ethernet(MARK, [&number[..], &[0; 38]].concat()).bytes();
        self.client.send(&last)?;
        let passed = RefCell::new(BTreeSet::new());
        self.server
            .expect("the frame that always passes", PATIENCE, |frame| {
                if frame.get(NUMBER_AT..NUMBER_AT + number.len()) == Some(&number) {
                    passed
                        .borrow_mut()
                        .insert(u16::from_be_bytes([frame[36], frame[37]]));
                }
                frame == last
            })?;
        Ok(passed.into_inner())
    }
}
