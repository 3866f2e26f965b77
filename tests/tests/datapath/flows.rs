//! Where flows are tracked, the programs on the way in and out decide, remember and count as the core does on
//! the host, packet after packet of flows that begin, go on and end in any order.
//!
//! The attached programs themselves run, on an instance of their own, by `BPF_PROG_TEST_RUN`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use portdemux::{
    clock::Clock,
    dataplane::{
        links,
        tracking::{self, WantedFlows},
    },
    host::{Host, State},
    image::{self, Compiled},
    instance::{InstancePaths, Writer},
    rules::file,
};
use portdemux_common::{
    blocks::{self, Counter},
    bucket::{self, SLOTS},
    capacity::PORT_COUNT,
    conntrack::{Event, Relation, Shape, Tuple},
    policy::TICK_SHIFT,
    reason::Verdict,
    wire::{Port, Transport},
};
use portdemux_tests::{
    bpffs::Bpffs,
    frames::{self, ICMP, SCTP, TCP, UDP, With as _},
    generate::Random,
    require,
};
use tempfile::TempDir;

use crate::{FRAMES, NEEDS, actions_of};

const RULES: &str = r#"
[default]
inbound = "INBOUND"
icmp = "errors-only"

[flows]
tcp = "30d"
sctp = "30d"
udp = "30d"
one_way = "30d"
handshake = "30d"
closing = "30d"
echo = "30d"

[[rule]]
name = "open"
port = ["443/tcp", "443/udp", "443/sctp"]

[[rule]]
name = "some"
port = ["8080/tcp", "8080/udp"]
deny = ["192.0.2.7", "2001:db8::7"]

[[rule]]
name = "replies"
port = ["40001/tcp", "40001/udp", "40001/sctp"]
connections = "established"

[[rule]]
name = "from-9000"
port = ["9000/tcp", "9000/udp"]
role = "source"
connections = "established"

[[rule]]
name = "no"
port = "25/tcp"
to = "drop"
"#;

/// After how many packets all that is remembered is compared.
const ROUND: u64 = 5_000;

/// The host's side: what it remembers and what it counts.
struct Core {
    state: State<'static>,
    relations: BTreeMap<usize, [u64; Relation::ALL.len()]>,
    sent: BTreeMap<usize, Counter>,
}

impl Core {
    fn new(shape: Shape) -> Self {
        Self {
            state: State::empty(shape),
            relations: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// What becomes of a frame that came in.
    fn receive(&mut self, frame: &[u8], rules: &Compiled) -> Verdict {
        let seen = self.host(rules).receive(frame);
        if let Some((port, relation)) = seen.relation().filter(|&(port, _)| port < PORT_COUNT) {
            self.relations.entry(port).or_default()[relation as usize] += 1;
        }
        seen.decision().verdict
    }

    /// Notes a frame that goes out.
    fn send(&mut self, frame: &[u8], rules: &Compiled) {
        let seen = self.host(rules).send(frame, 0);
        if let Some((port, counter)) = seen.sent().filter(|&(port, _)| port < PORT_COUNT) {
            self.sent
                .entry(port)
                .or_default()
                .add(counter.packets, counter.bytes);
        }
    }

    fn host<'h>(&'h self, rules: &'h Compiled) -> Host<'h> {
        Host::new(rules, &self.state, Clock::now().monotonic)
    }

    /// What is remembered: of each flow all but the time.
    fn all(&mut self) -> Remembered {
        let State {
            known, half_open, ..
        } = &mut self.state;
        let tables = [(known, false), (half_open, true)];
        tables
            .into_iter()
            .flat_map(|(buckets, is_half_open)| {
                let touched = buckets.touched();
                touched.map(move |(_, bucket)| (bucket, is_half_open))
            })
            .flat_map(|(bucket, is_half_open)| {
                (0..SLOTS)
                    .filter(|&slot| bucket.owners[slot].load(Ordering::Relaxed) != bucket::FREE)
                    .map(move |slot| {
                        let entry = &bucket.slots.entries[slot];
                        let (received, sent) = (
                            bucket.slots.received[slot].load(),
                            bucket.slots.sent[slot].load(),
                        );
                        let state = entry.status().0;
                        (
                            (entry.tuple().words(), is_half_open),
                            (state, entry.outcome(), received, sent),
                        )
                    })
            })
            .collect()
    }
}

type Remembered = BTreeMap<([u64; Tuple::WORDS], bool), (u64, u64, [u64; 2], [u64; 2])>;

/// An instance that is attached to nothing, and its programs.
pub(crate) struct Kernel {
    pub(crate) writer: Writer,
    object: Ebpf,
    _bpffs: Bpffs,
    _state: TempDir,
}

const SENT: &str = "portdemux_sent";

impl Kernel {
    pub(crate) fn new(text: &str) -> Result<(Self, Compiled)> {
        let bpffs = Bpffs::new()?;
        let state = tempfile::tempdir()?;
        let paths = InstancePaths::new(
            "agree".parse().map_err(anyhow::Error::msg)?,
            bpffs.path().into(),
            state.path().into(),
        );
        let writer = paths.lock()?.open_or_create()?;
        let ruleset = file::parse("rules", text)?;
        let settings = ruleset.flows().context("it tracks no flows")?;
        // Room for all: who gives way depends on the time, which the two do not read at once.
        let wanted = WantedFlows {
            flows: 1 << 16,
            half_open: 1 << 17,
            timeouts: settings.ticks(),
        };
        tracking::begin(&writer, &wanted)?;
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        writer.maps.install(
            &names,
            [0; 32],
            |ids| image::compile(&ruleset, ids),
            &portdemux::dataplane::renew,
        )?;
        let compiled = writer.maps.compiled();
        let mut object = links::load(&writer.maps, 0, writer.maps.shape())?;
        let received: &mut Xdp = object
            .program_mut(links::FLOW_PROGRAM)
            .context("no program")?
            .try_into()?;
        received.load()?;
        let sent: &mut SchedClassifier =
            object.program_mut(SENT).context("no program")?.try_into()?;
        sent.load()?;
        Ok((
            Self {
                writer,
                object,
                _bpffs: bpffs,
                _state: state,
            },
            compiled,
        ))
    }

    pub(crate) fn receive(&self, frame: &[u8]) -> Result<u32> {
        let program: &Xdp = self
            .object
            .program(links::FLOW_PROGRAM)
            .context("no program")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        Ok(program.test_run(options)?.return_value)
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        let program: &SchedClassifier = self
            .object
            .program(SENT)
            .context("no program")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        program.test_run(options)?;
        Ok(())
    }
}

/// A packet of a flow, either way.
fn packet(random: &mut Random) -> (bool, Vec<u8>) {
    let is_sent = random.one_in(2);
    let is_v6 = random.one_in(2);
    let peer = random.pick(&[1, 1, 1, 7, 8, 9]);
    let (mut here, mut there) = (
        random.pick(&[443, 443, 8080, 25, 40_000, 40_001, 40_002]),
        random.pick(&[9000, 50_000, 50_001, 50_002, 50_003]),
    );
    if random.one_in(3) {
        there = 51_000 + u16::try_from(random.below(100)).unwrap_or_default();
    }
    if random.one_in(16) {
        std::mem::swap(&mut here, &mut there);
    }
    let (source, destination) = if is_sent {
        (here, there)
    } else {
        (there, here)
    };
    let flags = random.pick(&[2, 2, 0x12, 0x12, 0x10, 0x10, 0x18, 0x11, 0x14, 4, 0, 0x29]);
    let [sequence, acknowledgement] = [0; 2].map(|_| random.pick(&[1, 2, 100, 101, u32::MAX]));
    let payload: frames::Payload = match random.below(8) {
        0 | 1 => frames::udp(source, destination)
            .with(|udp| udp.data = vec![7; 20])
            .into(),
        2 => {
            let chunk = random.pick(&[0, 1, 2, 3, 6, 7, 8, 10, 11, 14]);
            frames::sctp(source, destination)
                .with(|sctp| sctp.chunks = vec![chunk, 0, 0, 4])
                .into()
        }
        3 => {
            let kind = match (is_v6, random.one_in(2)) {
                (false, true) => 8,
                (false, false) => 0,
                (true, true) => 128,
                (true, false) => 129,
            };
            frames::icmp(kind, 0)
                .with(|icmp| icmp.rest = [0, random.pick(&[1, 2, 3]), 0, 1])
                .into()
        }
        4 if !is_sent => error(random, is_v6, peer, here, there),
        _ => frames::tcp(source, destination)
            .with(|tcp| {
                (tcp.flags, tcp.sequence, tcp.acknowledgement) = (flags, sequence, acknowledgement);
            })
            .into(),
    };
    let frame = if is_v6 {
        let (local, remote) = (v6(2), v6(peer));
        frames::ipv6(payload)
            .with(|ip| {
                (ip.source, ip.destination) = if is_sent {
                    (local, remote)
                } else {
                    (remote, local)
                };
            })
            .frame()
    } else {
        let (local, remote) = (v4(2), v4(peer));
        frames::ipv4(payload)
            .with(|ip| {
                (ip.source, ip.destination) = if is_sent {
                    (local, remote)
                } else {
                    (remote, local)
                };
            })
            .frame()
    };
    (is_sent, frame.bytes())
}

/// An error about what this host sent, or is said to have sent.
fn error(random: &mut Random, is_v6: bool, peer: u8, here: u16, there: u16) -> frames::Payload {
    let protocol = random.pick(&[TCP, UDP, SCTP, ICMP]);
    let quoted: frames::Payload = match protocol {
        TCP => frames::tcp(here, there).into(),
        UDP => frames::udp(here, there).into(),
        SCTP => frames::sctp(here, there).into(),
        _ => frames::icmp(if is_v6 { 128 } else { 8 }, 0)
            .with(|icmp| icmp.rest = [0, random.pick(&[1, 2, 3]), 0, 1])
            .into(),
    };
    let mut body = if is_v6 {
        frames::ipv6(quoted)
            .with(|ip| (ip.source, ip.destination) = (v6(2), v6(peer)))
            .bytes()
    } else {
        frames::ipv4(quoted)
            .with(|ip| (ip.source, ip.destination) = (v4(2), v4(peer)))
            .bytes()
    };
    // Only so much of it is promised.
    body.truncate(if is_v6 { 48 } else { 28 });
    let kind = if is_v6 {
        random.pick(&[1, 2, 3])
    } else {
        random.pick(&[3, 11, 12])
    };
    frames::icmp(kind, 0).with(|icmp| icmp.body = body).into()
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into())
}

/// `own` is how many blocks of counters each CPU has for itself.
fn agrees(inbound: &str, own: usize) -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let (kernel, rules) = Kernel::new(&RULES.replace("INBOUND", inbound))?;
    kernel.writer.maps.counters.allot(own);
    let tables = kernel.writer.maps.flows()?.context("there are no tables")?;
    let mut host = Core::new(tables.shape);
    ensure!(TICK_SHIFT > 0);
    let mut random = Random::new(3);
    let mut dropped = 0;
    for number in 0..FRAMES / 2 {
        let (is_sent, frame) = packet(&mut random);
        let context = || format!("packet {number}, sent {is_sent}: {frame:02x?}");
        if is_sent {
            host.send(&frame, &rules);
            kernel.send(&frame).with_context(context)?;
        } else {
            let verdict = host.receive(&frame, &rules);
            let action = kernel.receive(&frame).with_context(context)?;
            ensure!(
                actions_of(verdict).contains(&action),
                "the host says {verdict:?}, the kernel {action}: {}",
                context()
            );
            dropped += u64::from(verdict != Verdict::Pass);
        }
        if number % ROUND == 0 {
            same_flows(&mut host, &tables).with_context(context)?;
        }
    }
    same_flows(&mut host, &tables)?;
    assert!(dropped > FRAMES / 50, "{dropped}");
    for event in Event::ALL {
        let here = host.state.count(event);
        assert_eq!(here, tables.events(event), "{event:?}");
        let begins = matches!(event, Event::Begun | Event::BegunHere | Event::Completed);
        assert_eq!(here > 0, begins, "{here} of {event:?}");
    }
    let ports = tables.ports();
    for transport in Transport::ALL {
        for port in 0..=u16::MAX {
            let slot = Port::new(port).index(transport);
            let relations = host.relations.get(&slot).copied().unwrap_or_default();
            let counted = Relation::ALL.map(|relation| ports[slot].of(relation));
            assert_eq!(relations, counted, "{port} of {transport:?}");
            let sent = host.sent.get(&slot).copied().unwrap_or_default();
            assert_eq!(sent, ports[slot].sent, "{port} of {transport:?}");
        }
    }
    Ok(())
}

fn same_flows(host: &mut Core, tables: &portdemux::maps::flows::FlowTables) -> Result<()> {
    let ours = host.all();
    let theirs: Remembered = tables
        .all()
        .map(|flow| {
            let counter = |counter: Counter| [counter.packets, counter.bytes];
            (
                (flow.tuple.words(), flow.is_half_open),
                (
                    flow.status.0,
                    flow.outcome,
                    counter(flow.received),
                    counter(flow.sent),
                ),
            )
        })
        .collect();
    for key in ours.keys().chain(theirs.keys()) {
        ensure!(
            ours.get(key) == theirs.get(key),
            "{key:x?}: the host {:x?}, the kernel {:x?}",
            ours.get(key),
            theirs.get(key)
        );
    }
    Ok(())
}

#[test]
fn packets_of_flows_are_decided_and_remembered_alike_where_unclaimed_ones_are_dropped() -> Result<()>
{
    agrees("drop", blocks::OWN)
}

#[test]
fn packets_of_flows_are_counted_alike_where_few_cpus_have_blocks_of_counters() -> Result<()> {
    agrees("drop", usize::try_from(blocks::RESERVED)? + 4)
}

#[test]
fn packets_of_flows_are_decided_and_remembered_alike_where_unclaimed_ones_pass() -> Result<()> {
    agrees("pass", 0)
}
