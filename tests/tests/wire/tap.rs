//! What was sent, written down beside the wire.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use portdemux_common::reason::Reason;
use portdemux_tests::{
    answer::{Class, Fragment},
    cli::{Count, Portdemux, Stats, Traffic},
    frames::{SCTP, TCP, UDP},
    lab::{INTERFACE, Lab},
    raw::RawSocket,
    reference,
    wait::{PATIENCE, wait_for},
};

/// Sees every frame that goes out of the client's end of the wire.
pub(crate) struct Tap {
    socket: RawSocket,
    malformed_pass: bool,
    sent: Sent,
}

/// What went out.
#[derive(Debug, Default)]
struct Sent {
    all: Count,
    /// By destination port.
    ports: BTreeMap<String, Count>,
    /// What has no ports, by the reason why.
    others: BTreeMap<String, Count>,
}

impl Tap {
    /// Looks at the wire from this moment on.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        Ok(Self {
            socket: lab.client_socket()?,
            malformed_pass: false,
            sent: Sent::default(),
        })
    }

    /// Expects malformed frames to pass.
    pub(crate) fn malformed_pass(mut self) -> Self {
        self.malformed_pass = true;
        self
    }

    /// Writes down what was sent until now, so that it need not be kept for later.
    pub(crate) fn read(&mut self) -> Result<()> {
        while let Some(frame) = self.socket.sent(Duration::ZERO)? {
            self.sent.add(&frame);
        }
        Ok(())
    }

    /// Waits until the counters say of every port, of every reason and of the interface exactly what
    /// was sent, with the traffic of these ports dropped, and nothing else.
    pub(crate) fn agrees(&mut self, portdemux: &Portdemux<'_>, dropped: &[&str]) -> Result<Stats> {
        let mut difference = None;
        wait_for("counters that say what was sent", PATIENCE, || {
            self.read()?;
            let stats = portdemux.stats()?;
            difference = self.sent.hold(&stats, dropped, self.malformed_pass).err();
            Ok(difference.is_none().then_some(stats))
        })
        .map_err(|err| match difference {
            Some(difference) => difference.context(err),
            None => err,
        })
    }
}

impl Sent {
    fn add(&mut self, frame: &[u8]) {
        let answer = reference::answer(frame);
        count(&mut self.all, frame);
        let protocol = match answer.protocol {
            Some(TCP) => "tcp",
            Some(UDP) => "udp",
            Some(SCTP) => "sctp",
            _ => "",
        };
        if let Some((_, port)) = answer.ports {
            let port = format!("{port}/{protocol}");
            count(self.ports.entry(port).or_default(), frame);
            return;
        }
        let reason = match (answer.class, answer.fragment) {
            (Class::NonIp, _) => "non_ip",
            (_, Fragment::Later) => "later_fragment",
            _ => answer.reason.unwrap_or("no_ports"),
        };
        count(self.others.entry(reason.to_owned()).or_default(), frame);
    }

    fn hold(&self, stats: &Stats, drops: &[&str], malformed_pass: bool) -> Result<()> {
        let (mut passed, mut dropped) = (Count::default(), Count::default());
        let mut ports = BTreeMap::new();
        for (port, &received) in &self.ports {
            let mut traffic = Traffic {
                received,
                dropped: Count::default(),
            };
            if drops.contains(&port.as_str()) {
                add(&mut dropped, received);
                traffic.dropped = received;
            } else {
                add(&mut passed, received);
            }
            ports.insert(port.clone(), traffic);
        }
        let mut counted = stats.ports()?;
        // Claimed ports are listed though nothing came.
        counted.retain(|_, traffic| *traffic != Traffic::default());
        ensure!(ports == counted, "sent {ports:?}\ncounted {counted:?}");

        let (mut by_rules, mut others) = ([Count::default(); 2], BTreeMap::new());
        for (reason, count) in stats.reasons()? {
            match reason.as_str() {
                "rule_local" | "unclaimed" => add(&mut by_rules[0], count),
                "rule_drop" => add(&mut by_rules[1], count),
                _ => {
                    others.insert(reason, count);
                }
            }
        }
        ensure!(
            by_rules == [passed, dropped],
            "by ports passed and dropped: sent {passed:?} {dropped:?}, counted {by_rules:?}"
        );
        ensure!(
            others == self.others,
            "without ports: sent {:?}, counted {others:?}",
            self.others
        );

        for (reason, &count) in &self.others {
            if !malformed_pass && Reason::from_name(reason).is_some_and(Reason::is_malformed) {
                add(&mut dropped, count);
            }
        }
        let received = self.all;
        let interface = stats.interface(INTERFACE)?;
        ensure!(
            interface == Traffic { received, dropped },
            "the interface: sent {received:?}, to be dropped {dropped:?}, counted {interface:?}"
        );
        Ok(())
    }
}

fn count(count: &mut Count, frame: &[u8]) {
    count.packets += 1;
    count.bytes += frame.len() as u64;
}

fn add(sum: &mut Count, count: Count) {
    sum.packets += count.packets;
    sum.bytes += count.bytes;
}
