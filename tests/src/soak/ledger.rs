//! What was seen on the wire, and how the counters are held to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapInfo, programs::loaded_programs};
use portdemux::maps::RULESETS;
use serde_json::Value;

use super::{
    Look,
    changes::{LONG, RULES},
};
use crate::{
    answer::Fragment,
    cli::{Count, Portdemux, Stats, Traffic},
    frames::{SCTP, TCP, UDP},
    lab::{INTERFACE, Lab},
    raw::RawSocket,
    reference,
    wait::{PATIENCE, wait_for},
};

/// Length of an Ethernet header in bytes.
const ETHERNET: u64 = 14;

type Ports = BTreeMap<String, Count>;

pub(super) struct Ledger<'l> {
    lab: &'l Lab,
    from_client: RawSocket,
    passed: RawSocket,
    from_server: RawSocket,
    /// What the kernel had counted of the client's interface before: frames, bytes.
    before: Count,
    sent: Count,
    /// By destination port; without fragments.
    sent_to: Ports,
    fragments: Count,
    let_through: u64,
    answered: Count,
    /// By source port.
    answered_from: Ports,
}

impl<'l> Ledger<'l> {
    pub(super) fn open(lab: &'l Lab) -> Result<Self> {
        Ok(Self {
            lab,
            from_client: lab.client_socket()?,
            passed: lab.server_socket()?,
            from_server: lab.server_socket()?,
            before: Count::default(),
            sent: Count::default(),
            sent_to: Ports::new(),
            fragments: Count::default(),
            let_through: 0,
            answered: Count::default(),
            answered_from: Ports::new(),
        })
    }

    /// Writes down from this moment on; nothing was sent before.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.read()?;
        ensure!(self.sent.packets == 0, "the wire is not quiet");
        (self.before, _) = self.interface()?;
        Ok(())
    }

    /// Writes down what was seen until now.
    pub(super) fn read(&mut self) -> Result<()> {
        while let Some(frame) = self.from_client.sent(Duration::ZERO)? {
            add(&mut self.sent, &frame);
            let answer = reference::answer(&frame);
            if answer.fragment != Fragment::None {
                add(&mut self.fragments, &frame);
            } else if let Some((_, port)) = answer.ports {
                add(
                    self.sent_to.entry(name(port, answer.protocol)).or_default(),
                    &frame,
                );
            }
        }
        while self.passed.receive(Duration::ZERO)?.is_some() {
            self.let_through += 1;
        }
        while let Some(frame) = self.from_server.sent(Duration::ZERO)? {
            add(&mut self.answered, &frame);
            let answer = reference::answer(&frame);
            if let Some((port, _)) = answer.ports {
                let from = self.answered_from.entry(name(port, answer.protocol));
                add(from.or_default(), &frame);
            }
        }
        for socket in [&self.from_client, &self.passed, &self.from_server] {
            let lost = socket.lost()?;
            ensure!(lost == 0, "{lost} frames were not written down");
        }
        Ok(())
    }

    /// Waits until every counter says what was seen.
    pub(super) fn agrees(&mut self, portdemux: &Portdemux<'_>) -> Result<Look> {
        let mut difference = None;
        wait_for("counters that say what was seen", PATIENCE, || {
            self.read()?;
            match self.compare(portdemux) {
                Ok(look) => Ok(Some(look)),
                Err(error) => {
                    difference = Some(error);
                    Ok(None)
                }
            }
        })
        .map_err(|error| match difference {
            Some(difference) => difference.context(error),
            None => error,
        })
    }

    fn compare(&self, portdemux: &Portdemux<'_>) -> Result<Look> {
        let (interface, lost) = self.interface()?;
        let packets = interface.packets - self.before.packets;
        let bytes = interface.bytes - self.before.bytes;
        ensure!(lost == 0, "the wire lost {lost} frames");
        // Towards a native program, veth counts what follows the Ethernet header (Linux 6.18,
        // drivers/net/veth.c, veth_xmit).
        ensure!(
            packets == self.sent.packets
                && [bytes, bytes + ETHERNET * packets].contains(&self.sent.bytes),
            "the kernel sent {packets} and {bytes} bytes, seen were {:?}",
            self.sent
        );

        let stats = portdemux.stats()?;
        let all = stats.interface(INTERFACE)?;
        ensure!(
            all.received == self.sent,
            "counted {all:?}, sent {:?}",
            self.sent
        );
        let let_through = all.received.packets - all.dropped.packets;
        ensure!(
            let_through == self.let_through,
            "{let_through} were to pass, {} did",
            self.let_through
        );
        let reasons = stats.reasons()?;
        let mut of_reasons = Count::default();
        for (_, count) in &reasons {
            of_reasons.packets += count.packets;
            of_reasons.bytes += count.bytes;
        }
        ensure!(
            of_reasons == all.received,
            "reasons {of_reasons:?}, all {all:?}"
        );
        self.compare_ports(&stats)?;
        compare_rules(&stats)?;

        let document = portdemux.json(&["status"])?;
        let number = |value: &Value| value.as_u64().with_context(|| document.to_string());
        let tables = MapInfo::from_pin(portdemux.pins().join("TABLES"))?;
        let tables = u64::from(tables.max_entries()) * u64::from(tables.value_size());
        let flows = &document["flows"];
        Ok(Look {
            sent: self.sent.packets,
            dropped: all.dropped.packets,
            answered: self.answered.packets,
            ports: self.sent_to.len(),
            reasons: reasons.len(),
            flows: [
                number(&flows["known"]["count"])?,
                number(&flows["half_open"]["count"])?,
            ],
            room: [
                number(&flows["known"]["size"])?,
                number(&flows["half_open"]["size"])?,
            ],
            memory: number(&document["kernel_memory_bytes"])? - tables,
            tables,
            programs: programs(portdemux)?,
            ..Look::default()
        })
    }

    fn compare_ports(&self, stats: &Stats) -> Result<()> {
        let long = name(LONG, Some(UDP));
        let mut counted = Ports::new();
        let mut answered = Ports::new();
        for entry in stats.0["ports"].as_array().context("ports")? {
            let protocol = entry["protocol"].as_str().unwrap_or_default();
            let port = format!("{}/{protocol}", entry["port"]);
            let count = |value: &Value| -> Result<u64> {
                value.as_u64().with_context(|| entry.to_string())
            };
            let both = |value: &Value| -> Result<Count> {
                Ok(Count {
                    packets: count(&value["packets"])?,
                    bytes: count(&value["bytes"])?,
                })
            };
            let received = both(&entry["received"])?;
            if received != Count::default() {
                counted.insert(port.clone(), received);
            }
            let sent = both(&entry["sent"])?;
            if sent != Count::default() {
                answered.insert(port.clone(), sent);
            }
            let flows = &entry["flows"];
            let related_to_flows =
                count(&flows["new"])? + count(&flows["established"])? + count(&flows["replies"])?;
            // A later fragment is of its first one's port, and of no flow.
            ensure!(
                related_to_flows == received.packets
                    || port == long && related_to_flows < received.packets,
                "{entry}: {related_to_flows} stand to flows"
            );
        }
        let of_long = counted.remove(&long).unwrap_or_default();
        let unknown = stats.reason("fragment_unknown")?;
        // Whole datagrams go to that port too.
        let mut sent_to = self.sent_to.clone();
        let whole = sent_to.remove(&long).unwrap_or_default();
        ensure!(
            of_long.packets + unknown.packets == self.fragments.packets + whole.packets
                && of_long.bytes + unknown.bytes == self.fragments.bytes + whole.bytes,
            "fragments {:?}, whole {whole:?}, for the port {of_long:?}, unknown {unknown:?}",
            self.fragments
        );
        same(&counted, &sent_to).context("what was received for ports")?;
        same(&answered, &self.answered_from).context("what was sent from ports")
    }

    /// What the kernel says that the client's interface sent, and lost.
    fn interface(&self) -> Result<(Count, u64)> {
        let links = self
            .lab
            .client
            .ip(&["-s", "-j", "link", "show", INTERFACE])?;
        let links: Value = serde_json::from_str(&links.stdout)?;
        let number = |name: &str| {
            let number = links[0]["stats64"]["tx"][name].as_u64();
            number.with_context(|| format!("ip said {links}"))
        };
        let count = Count {
            packets: number("packets")?,
            bytes: number("bytes")?,
        };
        Ok((count, number("dropped")? + number("errors")?))
    }
}

/// The rules that are always there have counted what their ports have.
fn compare_rules(stats: &Stats) -> Result<()> {
    for (rule, protocol, first, last) in RULES {
        let mut of_ports = Traffic::default();
        for port in first..=last {
            let traffic = stats.port(&format!("{port}/{protocol}"))?;
            for (sum, count) in [
                (&mut of_ports.received, traffic.received),
                (&mut of_ports.dropped, traffic.dropped),
            ] {
                sum.packets += count.packets;
                sum.bytes += count.bytes;
            }
        }
        let of_rule = stats.rule(rule)?;
        ensure!(
            of_rule == of_ports,
            "{rule}: {of_rule:?}, its ports {of_ports:?}"
        );
    }
    Ok(())
}

/// How many programs use the instance's map of rulesets.
fn programs(portdemux: &Portdemux<'_>) -> Result<usize> {
    let map = MapInfo::from_pin(portdemux.pins().join(RULESETS))?.id();
    Ok(loaded_programs()
        .flatten()
        .filter(|program| {
            let maps = program.map_ids().ok().flatten();
            maps.is_some_and(|maps| maps.contains(&map))
        })
        .count())
}

fn same(counted: &Ports, seen: &Ports) -> Result<()> {
    let ports: BTreeSet<_> = counted.keys().chain(seen.keys()).collect();
    let differ: Vec<_> = ports
        .into_iter()
        .filter(|port| counted.get(*port) != seen.get(*port))
        .map(|port| (port, counted.get(port), seen.get(port)))
        .take(5)
        .collect();
    ensure!(differ.is_empty(), "port, counted, seen: {differ:?}");
    Ok(())
}

fn name(port: u16, protocol: Option<u8>) -> String {
    let protocol = match protocol {
        Some(TCP) => "tcp",
        Some(UDP) => "udp",
        Some(SCTP) => "sctp",
        _ => "",
    };
    format!("{port}/{protocol}")
}

fn add(count: &mut Count, frame: &[u8]) {
    count.packets += 1;
    count.bytes += frame.len() as u64;
}
