//! Traffic runs while another version takes over: no packet is lost, none goes past the rules, each is counted once.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_V4, SERVER_V4, With as _},
    lab::Lab,
    require,
    wait::{PATIENCE, slowness, wait_until},
};
use serde_json::Value;

use crate::bed::{self, Pair};

/// How many frames are sent each millisecond: 10,000 in a second, fewer on a machine that is slower.
const AT_ONCE: usize = 10;
/// For how many milliseconds they are sent before and after the takeover.
const LONG: u64 = 500;
/// A source that rules do not let in, since a command said so.
const BANNED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Room for all that a socket receives before it is read.
const BUFFER: usize = 64 << 20;

/// What a frame is, and how often it is among [`AT_ONCE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Frame {
    /// It passes by a rule.
    Open,
    /// A rule drops it.
    Closed,
    /// No rule claims its port.
    Unclaimed,
    /// A member of a set sends it.
    Banned,
}

const FRAMES: [(Frame, u16, usize); 4] = [
    (Frame::Open, 1003, 5),
    (Frame::Closed, 1001, 2),
    (Frame::Unclaimed, 9, 2),
    (Frame::Banned, 1003, 1),
];

#[test]
fn every_packet_is_accounted_for_while_another_version_takes_over() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    for mode in ["native", "generic"] {
        under_traffic(&pair, mode).with_context(|| format!("{mode}: {pair:?}"))?;
    }
    Ok(())
}

fn under_traffic(pair: &Pair, mode: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    pair.attach_older(&mut portdemux, &["--mode", mode])?;
    portdemux.ok(&["set", "add", "banned", &BANNED.to_string()])?;
    pair.use_newer(&mut portdemux);

    let doors = Doors::open(&lab)?;
    let conversation = Conversation::begin(&lab)?;
    let sent = Sent::default();
    let many = LONG * AT_ONCE as u64;
    let is_over = AtomicBool::new(false);
    let (spoken, read, known) = thread::scope(|scope| -> Result<_> {
        let sending = scope.spawn(|| sent.send(&lab, &is_over));
        let speaking = scope.spawn(|| conversation.go_on(&is_over));
        let reading = scope.spawn(|| watch(&portdemux, &is_over));
        let upgraded = wait_until("traffic before", PATIENCE, || Ok(sent.all() > many))
            .and_then(|()| conversation.counted(&portdemux))
            .and_then(|known| {
                portdemux.ok(&["upgrade"])?;
                let then = sent.all();
                wait_until("traffic after", PATIENCE, || Ok(sent.all() > then + many))?;
                Ok(known)
            });
        is_over.store(true, Ordering::Relaxed);
        sending.join().expect("the sender panicked")?;
        let spoken = speaking.join().expect("the speaker panicked")?;
        let read = reading.join().expect("the reader panicked")?;
        Ok((spoken, read, upgraded?))
    })?;
    ensure!(spoken > 0 && read > 1, "{spoken} said, {read} read");
    ensure!(bed::directories(&portdemux)?.len() == 1);
    // What was counted of a flow goes with it.
    let counted = conversation.counted(&portdemux)?;
    ensure!(
        known
            .iter()
            .zip(counted)
            .all(|(&before, now)| 0 < before && before < now),
        "{known:?} packets were counted before, {counted:?} after"
    );

    // What came through is what the rules let through, all of it.
    let came = doors.count()?;
    ensure!(
        came == BTreeMap::from([(1001, 0), (1003, sent.of(Frame::Open)), (9, 0)]),
        "{came:?} came, {sent:?} were sent"
    );
    let stats = portdemux.stats()?;
    let banned = sent.of(Frame::Banned);
    for (port, received, dropped) in [
        (1003, sent.of(Frame::Open) + banned, banned),
        (1001, sent.of(Frame::Closed), sent.of(Frame::Closed)),
        (9, sent.of(Frame::Unclaimed), sent.of(Frame::Unclaimed)),
    ] {
        let traffic = stats.port(&format!("{port}/udp"))?;
        ensure!(
            (traffic.received.packets, traffic.dropped.packets) == (received, dropped),
            "port {port}: {traffic:?} instead of {received} and {dropped}"
        );
    }
    for (rule, received) in [
        ("open", sent.of(Frame::Open) + banned),
        ("closed", sent.of(Frame::Closed)),
    ] {
        let traffic = stats.rule(rule)?;
        ensure!(traffic.received.packets == received, "{rule}: {traffic:?}");
    }
    for (reason, count) in [
        ("source_denied", banned),
        ("rule_drop", sent.of(Frame::Closed)),
        ("unclaimed", sent.of(Frame::Unclaimed)),
    ] {
        let counted = stats.reason(reason)?.packets;
        ensure!(counted == count, "{reason}: {counted} instead of {count}");
    }
    Ok(())
}

/// How many frames of each kind were sent.
#[derive(Debug, Default)]
struct Sent([AtomicU64; FRAMES.len()]);

impl Sent {
    /// Sends frames of all kinds until it is over.
    fn send(&self, lab: &Lab, is_over: &AtomicBool) -> Result<()> {
        let socket = lab.client_socket()?;
        let frames = FRAMES.map(|(frame, port, _)| {
            let udp = frames::udp(40_000, port).with(|udp| udp.data = vec![0; 16]);
            let source = if frame == Frame::Banned {
                BANNED
            } else {
                CLIENT_V4
            };
            let packet = frames::ipv4(udp).with(|packet| packet.source = source);
            packet.frame().bytes()
        });
        debug_assert_eq!(
            FRAMES.map(|(.., times)| times).iter().sum::<usize>(),
            AT_ONCE
        );
        let begun = Instant::now();
        let mut rounds = 0;
        while !is_over.load(Ordering::Relaxed) {
            for ((count, bytes), (.., times)) in self.0.iter().zip(&frames).zip(FRAMES) {
                for _ in 0..times {
                    socket.send_when_there_is_room(bytes)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            rounds += 1;
            let due = begun + Duration::from_millis(rounds) * slowness();
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn of(&self, frame: Frame) -> u64 {
        let at = FRAMES.iter().position(|&(known, ..)| known == frame);
        at.map_or(0, |at| self.0[at].load(Ordering::Relaxed))
    }

    fn all(&self) -> u64 {
        let counts = self.0.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Sockets of the server behind the ports that frames are for.
struct Doors(Vec<(u16, UdpSocket)>);

impl Doors {
    fn open(lab: &Lab) -> Result<Self> {
        let open = |port| -> Result<_> {
            let socket = lab
                .server
                .enter(|| UdpSocket::bind((SERVER_V4, port)).context("bind a socket"))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            socket.set_nonblocking(true)?;
            Ok((port, socket))
        };
        [1001, 1003, 9]
            .into_iter()
            .map(open)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// How many datagrams came to each.
    fn count(&self) -> Result<BTreeMap<u16, u64>> {
        let mut all = BTreeMap::new();
        for (port, socket) in &self.0 {
            let mut count = 0;
            let mut bytes = [0; 64];
            loop {
                match socket.recv(&mut bytes) {
                    Ok(_) => count += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            all.insert(*port, count);
        }
        Ok(all)
    }
}

/// Sockets of the server and the client: the server speaks first, and only as it did does the answer come in.
struct Conversation {
    server: UdpSocket,
    client: UdpSocket,
}

impl Conversation {
    fn begin(lab: &Lab) -> Result<Self> {
        let (here, there) = ((SERVER_V4, 5000), (CLIENT_V4, 4007));
        let open = |netns: &portdemux_tests::netns::Netns, from, to| {
            netns.enter(|| {
                let socket = UdpSocket::bind(from)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            })
        };
        Ok(Self {
            server: open(&lab.server, here, there)?,
            client: open(&lab.client, there, here)?,
        })
    }

    /// How many of its packets were counted for its flow: received and sent.
    fn counted(&self, portdemux: &Portdemux) -> Result<[u64; 2]> {
        let (here, document) = (self.server.local_addr()?, portdemux.json(&["flows"])?);
        let flows = document["flows"].as_array().context("no flows")?;
        let is_it = |flow: &&Value| flow["local_port"] == here.port();
        let flow = flows.iter().find(is_it).context("its flow is not known")?;
        let packets = ["received", "sent"].map(|way| flow[way]["packets"].as_u64());
        let [Some(received), Some(sent)] = packets else {
            bail!("{flow} counts nothing");
        };
        Ok([received, sent])
    }

    /// Says numbers and hears them back until it is over; says how many.
    fn go_on(&self, is_over: &AtomicBool) -> Result<u64> {
        let mut number = 0_u64;
        while !is_over.load(Ordering::Relaxed) {
            number += 1;
            let mut heard = [0; 8];
            for (from, to) in [(&self.server, &self.client), (&self.client, &self.server)] {
                from.send(&number.to_be_bytes())?;
                to.recv(&mut heard)
                    .with_context(|| format!("datagram {number} was lost"))?;
                ensure!(
                    heard == number.to_be_bytes(),
                    "{heard:?} instead of {number}"
                );
            }
        }
        Ok(number)
    }
}

/// Reads all counters again and again until it is over, and says how often. None is ever lower than before.
fn watch(portdemux: &Portdemux, is_over: &AtomicBool) -> Result<u64> {
    let mut before: BTreeMap<String, u64> = BTreeMap::new();
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut now = BTreeMap::new();
        let stats = portdemux.json(&["stats"])?;
        numbers("", &stats, &mut now);
        for (name, count) in &before {
            let later = now.get(name).copied().unwrap_or_default();
            ensure!(
                later >= *count,
                "{name} was {count} and is {later}: {stats}"
            );
        }
        before = now;
        times += 1;
    }
    Ok(times)
}

/// All numbers of packets and bytes in a document, each under what leads to it.
fn numbers(path: &str, value: &Value, into: &mut BTreeMap<String, u64>) {
    match value {
        Value::Object(object) => {
            let names = ["name", "rule", "port", "protocol", "reason", "verdict"];
            let key: Vec<String> = names
                .iter()
                .filter_map(|&name| object.get(name))
                .map(Value::to_string)
                .collect();
            for (name, value) in object {
                numbers(&format!("{path} {} {name}", key.join("/")), value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| numbers(path, value, into)),
        Value::Number(number) if path.ends_with("packets") || path.ends_with("bytes") => {
            into.insert(path.to_owned(), number.as_u64().unwrap_or_default());
        }
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
