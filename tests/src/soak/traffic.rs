//! Senders of every kind.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Scope, ScopedJoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::changes::LONG;
use crate::{
    answer::Fragment,
    frames::{self, CLIENT_V4, CLIENT_V6, Ipv4, SERVER_V4, SERVER_V6, UDP, With as _},
    generate::{Generator, Random},
    lab::Lab,
    reference,
};

const CLIENTS: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];
const SERVERS: [IpAddr; 2] = [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)];
/// How long a sender rests, so that all can be written down.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer is waited for: the rules may say that there is none.
const SHORTLY: Duration = Duration::from_millis(60);

pub(super) struct Senders<'a> {
    pub(super) lab: &'a Lab,
    /// Held open by whoever sends.
    pub(super) gate: &'a RwLock<()>,
    pub(super) is_over: &'a AtomicBool,
    pub(super) seed: u64,
}

/// A sender, with what it sends; it returns how often.
type Sender<'s> = (&'static str, ScopedJoinHandle<'s, Result<u64>>);

impl<'a> Senders<'a> {
    /// Starts the servers and then all that send.
    pub(super) fn start<'s>(&self, scope: &'s Scope<'s, 'a>) -> Result<Vec<Sender<'s>>> {
        let (lab, is_over) = (self.lab, self.is_over);
        for (namespace, addresses, ports) in [
            (&lab.server, SERVERS, 7000..7010_u16),
            (&lab.client, CLIENTS, 9000..9002),
        ] {
            for (address, port) in addresses
                .into_iter()
                .flat_map(|a| ports.clone().map(move |p| (a, p)))
            {
                let at = SocketAddr::new(address, port);
                let listener = namespace.enter(|| Ok(TcpListener::bind(at)?))?;
                listener.set_nonblocking(true)?;
                let at = SocketAddr::new(address, port + 100);
                let socket = namespace.enter(|| Ok(UdpSocket::bind(at)?))?;
                scope.spawn(move || echo_streams(&listener, is_over));
                scope.spawn(move || echo_datagrams(&socket, is_over));
            }
        }
        let mut senders: Vec<Sender<'s>> = Vec::new();
        let mut start = |what, number: u64, send: fn(&Lab, &mut Random, u64) -> Result<u64>| {
            let mut random = Random::new(self.seed.wrapping_mul(31).wrapping_add(number));
            let gate = self.gate;
            senders.push((
                what,
                scope.spawn(move || {
                    let mut sent = 0;
                    let mut round = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        {
                            let _may_send = gate.read();
                            sent += send(lab, &mut random, round)?;
                        }
                        round += 1;
                        sleep(PAUSE);
                    }
                    Ok(sent)
                }),
            ));
        };
        start("connections of the client", 1, |lab, random, _| {
            converse(&lab.client, random, SERVERS, 7000..7014)
        });
        start("connections of the host", 2, |lab, random, _| {
            converse(&lab.server, random, CLIENTS, 9000..9003)
        });
        start("datagrams of the client", 3, |lab, random, _| {
            ask(&lab.client, random, CLIENTS, SERVERS, 7100..7114)
        });
        start("datagrams of the host", 4, |lab, random, _| {
            ask(&lab.server, random, SERVERS, CLIENTS, 9100..9103)
        });
        start("frames of every kind", 5, any_frames);
        start("fragments", 6, fragments);
        start("SCTP", 7, sctp);
        start("pings of the client", 8, pings);
        start("pings of the host", 9, |lab, random, _| {
            let to = CLIENTS[random.below(2)].to_string();
            let ping = ["-n", "-q", "-c", "5", "-i", "0.01", "-W", "0.1", &to];
            // Whether they are answered is not asked.
            lab.server.run("ping", &ping).map(|_| 5)
        });
        Ok(senders)
    }
}

fn echo_streams(listener: &TcpListener, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            sleep(Duration::from_millis(2));
            continue;
        };
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(SHORTLY));
        let _ = stream.set_write_timeout(Some(SHORTLY));
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..length]).is_err() {
                break;
            }
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, is_over: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(SHORTLY));
    let mut piece = [0; 4096];
    while !is_over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut piece) {
            let _ = socket.send_to(&piece[..length], from);
        }
    }
}

fn converse(
    from: &crate::netns::Netns,
    random: &mut Random,
    to: [IpAddr; 2],
    ports: std::ops::Range<u16>,
) -> Result<u64> {
    let count = usize::from(ports.end - ports.start);
    let port = ports.start + u16::try_from(random.below(count))?;
    let to = SocketAddr::new(to[random.below(2)], port);
    let Ok(mut stream) = from.enter(|| Ok(TcpStream::connect_timeout(&to, SHORTLY)?)) else {
        return Ok(1);
    };
    stream.set_read_timeout(Some(SHORTLY))?;
    stream.set_write_timeout(Some(SHORTLY))?;
    for _ in 0..random.below(4) {
        let much = 1 + random.below(4000);
        if stream.write_all(&vec![7; much]).is_err() {
            break;
        }
        if stream.read(&mut vec![0; much]).is_err() {
            break;
        }
    }
    Ok(1)
}

fn ask(
    from: &crate::netns::Netns,
    random: &mut Random,
    ours: [IpAddr; 2],
    theirs: [IpAddr; 2],
    ports: std::ops::Range<u16>,
) -> Result<u64> {
    let family = random.below(2);
    let socket = from.enter(|| Ok(UdpSocket::bind(SocketAddr::new(ours[family], 0))?))?;
    socket.set_read_timeout(Some(SHORTLY / 4))?;
    let count = usize::from(ports.end - ports.start);
    let port = ports.start + u16::try_from(random.below(count))?;
    for _ in 0..=random.below(4) {
        let data = vec![7; random.below(1000)];
        // An error that came meanwhile is reported here.
        let _ = socket.send_to(&data, SocketAddr::new(theirs[family], port));
        let _ = socket.recv_from(&mut [0; 2048]);
    }
    Ok(1)
}

/// The stack frees a shorter frame with a VLAN tag before any packet socket sees it (Linux 6.18,
/// `net/core/skbuff.c`, `skb_vlan_untag`).
const SHORTEST: usize = 20;

/// Frames that are sound and others; the fragments among them are left out, as nobody could say afterwards
/// which ports they were for.
fn any_frames(lab: &Lab, random: &mut Random, _: u64) -> Result<u64> {
    let socket = lab.client_socket()?;
    let generator = Generator {
        ports: vec![7000, 7105, 7200, LONG, 443, 22],
        addresses: SERVERS.to_vec(),
        sources: CLIENTS.to_vec(),
        ..Generator::default()
    };
    let mut sent = 0;
    for _ in 0..20 {
        let frame = generator.frame(random.long());
        let answer = reference::answer(&frame);
        if answer.fragment == Fragment::None
            && frame.len() >= SHORTEST
            && socket.send(&frame).is_ok()
        {
            sent += 1;
        }
    }
    Ok(sent)
}

/// Long datagrams in pieces, which come in any order, twice, or not all.
fn fragments(lab: &Lab, random: &mut Random, round: u64) -> Result<u64> {
    let socket = lab.client_socket()?;
    let bytes = frames::ipv4(frames::udp(40_000, LONG).with(|udp| udp.data = vec![7; 1000]));
    let bytes = bytes.payload_bytes();
    let pieces: Vec<_> = bytes.chunks(256).collect();
    let is_v6 = random.one_in(2);
    let id = u16::try_from(round & 0xffff)?;
    let mut order: Vec<usize> = (0..pieces.len())
        .chain([random.below(pieces.len())])
        .collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    order.truncate(1 + random.below(order.len()));
    for &number in &order {
        let offset = u16::try_from(number * 32)?;
        let more = number + 1 < pieces.len();
        let payload = frames::other(UDP, pieces[number]);
        let frame = if is_v6 {
            let header = frames::fragment(offset, more)
                .with(|header| header.body[2..4].copy_from_slice(&id.to_be_bytes()));
            frames::ipv6(payload).then(header).frame()
        } else {
            frames::ipv4(payload)
                .with(|ip| {
                    (ip.id, ip.offset) = (id, offset);
                    ip.flags = if more { Ipv4::MORE_FRAGMENTS } else { 0 };
                })
                .frame()
        };
        socket.send(&frame.bytes())?;
    }
    Ok(order.len() as u64)
}

/// Packets of associations that begin, go on and end, in any order.
fn sctp(lab: &Lab, random: &mut Random, _: u64) -> Result<u64> {
    let socket = lab.client_socket()?;
    for _ in 0..4 {
        let chunk = random.pick(&[0, 1, 1, 3, 6, 7, 10, 14]);
        let source = 30_000 + u16::try_from(random.below(50))?;
        let packet = frames::sctp(source, 7200).with(|sctp| sctp.chunks = vec![chunk, 0, 0, 4]);
        let frame = if random.one_in(2) {
            frames::ipv4(packet)
                .with(|ip| ip.source = Ipv4Addr::new(198, 51, 100, random.byte()))
                .frame()
        } else {
            frames::ipv6(packet).frame()
        };
        socket.send(&frame.bytes())?;
    }
    Ok(4)
}

fn pings(lab: &Lab, random: &mut Random, round: u64) -> Result<u64> {
    let socket = lab.client_socket()?;
    let identifier = u16::try_from(round & 0xff)?.to_be_bytes();
    let (kind, is_v6) = if random.one_in(2) {
        (8, false)
    } else {
        (128, true)
    };
    let request = frames::icmp(kind, 0).with(|icmp| {
        icmp.rest = [identifier[0], identifier[1], 0, 1];
        icmp.body = vec![7; random.below(200)];
    });
    let frame = if is_v6 {
        frames::ipv6(request).frame()
    } else {
        frames::ipv4(request).frame()
    };
    socket.send(&frame.bytes()).context("ping")?;
    Ok(1)
}
