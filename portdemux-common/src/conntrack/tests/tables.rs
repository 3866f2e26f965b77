use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    super::{
        Direction::{Received, Sent},
        table::FlowBucket,
    },
    *,
};
use crate::{
    bucket::{self, SLOTS},
    memory::Memory,
};

/// Tables on the host.
struct Host {
    shape: Shape,
    known: Vec<FlowBucket<AtomicU64>>,
    half_open: Vec<FlowBucket<AtomicU64>>,
    events: [AtomicU64; Event::ALL.len()],
}

impl Host {
    fn new(known: u32, half_open: u32) -> Self {
        let buckets = |count: u32| {
            (0..count)
                .map(|_| FlowBucket::of(|_| AtomicU64::new(0)))
                .collect()
        };
        Self {
            shape: Shape {
                known: known - 1,
                half_open: half_open - 1,
                seed: 0x1234_5678_9abc_def1,
            },
            known: buckets(known),
            half_open: buckets(half_open),
            events: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn event(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// One packet through all the steps, as the kernel takes it.
    fn packet(&self, direction: Direction, key: Tuple, observed: Observed, now: u32) -> Relation {
        let mut packet = TrackedPacket::new(key, observed, 0, 1, 60);
        seek(self, &mut packet, now);
        relate(self, &mut packet);
        match direction {
            Received => receive(self, &mut packet, true, true, &TIMEOUTS),
            Sent => send(self, &mut packet, false, true, &TIMEOUTS),
        }
        remember(self, &packet, direction, &TIMEOUTS);
        Relation::of(packet.relation)
    }

    /// Every slot that has an owner, by its key.
    fn keys(&self, which: Which) -> Vec<Tuple> {
        let buckets = match which {
            Which::Known => &self.known,
            Which::HalfOpen => &self.half_open,
        };
        let of_bucket = |bucket: &'_ FlowBucket<AtomicU64>| -> Vec<Tuple> {
            (0..SLOTS)
                .filter(|&slot| bucket.owners[slot].load(Ordering::Relaxed) != bucket::FREE)
                .map(|slot| bucket.slots.entries[slot].tuple())
                .collect()
        };
        buckets.iter().flat_map(of_bucket).collect()
    }
}

impl Memory for Host {
    type Word = AtomicU64;
}

impl Tables for Host {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn bucket(&self, which: Which, at: u32) -> Option<&FlowBucket<AtomicU64>> {
        match which {
            Which::Known => self.known.get(at as usize),
            Which::HalfOpen => self.half_open.get(at as usize),
        }
    }

    fn count(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn key(remote: u64, port: u16, protocol: u8) -> Tuple {
    let server = [0x0202_0202, 0];
    Tuple::new(
        (server, [0, 80]),
        ([remote, 0], port.to_be_bytes()),
        protocol,
        4,
    )
}

/// A TCP connection that a peer has made.
fn connect(host: &Host, key: Tuple, now: u32) {
    host.packet(Received, key, observed(Signal::Open), now);
    host.packet(Sent, key, observed(Signal::Answer), now);
    host.packet(Received, key, ACK, now);
}

#[test]
fn a_peer_s_flow_stands_with_the_half_open_until_it_is_complete() {
    let host = Host::new(16, 16);
    let flow = key(7, 40_000, TCP);
    assert_eq!(
        host.packet(Received, flow, observed(Signal::Open), 5),
        Relation::New
    );
    assert_eq!(
        (host.keys(Which::HalfOpen), host.keys(Which::Known)),
        (vec![flow], vec![])
    );
    host.packet(Sent, flow, observed(Signal::Answer), 5);
    assert_eq!(host.packet(Received, flow, ACK, 6), Relation::New);
    assert_eq!(
        (host.keys(Which::HalfOpen), host.keys(Which::Known)),
        (vec![], vec![flow])
    );
    assert_eq!(host.packet(Received, flow, ACK, 7), Relation::Established);
    let slots = |bucket| (0..SLOTS).map(move |slot| (bucket, slot));
    let stands = |(bucket, slot): &(&FlowBucket<AtomicU64>, usize)| {
        bucket.slots.entries[*slot].tuple() == flow
    };
    let (bucket, slot) = host.known.iter().flat_map(slots).find(stands).unwrap();
    let entry = &bucket.slots.entries[slot];
    assert_eq!(
        (
            bucket.slots.received[slot].load(),
            bucket.slots.sent[slot].load()
        ),
        ([3, 180], [1, 60])
    );
    assert_eq!((entry.begun(), entry.until()), (5, 7 + 1_000));
    assert_eq!(
        [host.event(Event::Begun), host.event(Event::Completed)],
        [1, 1]
    );
}

#[test]
fn replies_are_known_from_the_first_packet_of_this_host() {
    let host = Host::new(16, 16);
    let flow = key(7, 53, UDP);
    host.packet(Sent, flow, observed(Signal::Continue), 5);
    assert_eq!(
        host.packet(Received, flow, observed(Signal::Continue), 5),
        Relation::Reply
    );
    let other = key(7, 54, UDP);
    assert_eq!(
        host.packet(Received, other, observed(Signal::Continue), 5),
        Relation::New
    );
    assert_eq!(host.event(Event::BegunHere), 1);
}

#[test]
fn a_flow_is_forgotten_at_its_tick_and_not_before_around_the_end_of_time_too() {
    for begun in [5, u32::MAX - 3, u32::MAX - 30, u32::MAX] {
        let last = begun.wrapping_add(29);
        let over = begun.wrapping_add(30);
        for (now, relation) in [(last, Relation::Reply), (over, Relation::New)] {
            let host = Host::new(16, 16);
            let flow = key(7, 53, UDP);
            host.packet(Sent, flow, observed(Signal::Continue), begun);
            let seen = host.packet(Received, flow, observed(Signal::Continue), now);
            assert_eq!(seen, relation, "{begun} {now}");
        }
    }
}

#[test]
fn a_flood_of_beginnings_pushes_out_no_established_flow_and_new_ones_get_in() {
    let host = Host::new(64, 64);
    let (ssh, fetch) = (key(1, 50_000, TCP), key(2, 443, TCP));
    connect(&host, ssh, 1);
    host.packet(Sent, fetch, observed(Signal::Open), 1);
    host.packet(Received, fetch, observed(Signal::Answer), 1);
    host.packet(Sent, fetch, ACK, 1);
    let mut state = 88_172_645_463_325_252_u64;
    for number in 0..1_000_000_u32 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let attacker = key(state | 1 << 33, 0x1234, TCP);
        assert_eq!(
            host.packet(Received, attacker, observed(Signal::Open), 2),
            Relation::New
        );
        // This host answers them all.
        host.packet(Sent, attacker, observed(Signal::Answer), 2);
        if number % 100_000 == 99_999 {
            let client = key(3, 60_000 + (number / 100_000) as u16, TCP);
            connect(&host, client, 2);
            assert_eq!(host.packet(Received, client, ACK, 2), Relation::Established);
            assert_eq!(host.packet(Received, ssh, ACK, 2), Relation::Established);
            assert_eq!(host.packet(Received, fetch, ACK, 2), Relation::Reply);
        }
    }
    assert_eq!(host.keys(Which::Known).len(), 12);
    assert_eq!(host.event(Event::Full) + host.event(Event::Evicted), 0);
    assert!(host.event(Event::HalfOpenEvicted) > 990_000);
}

#[test]
fn a_peer_never_makes_a_live_flow_give_slot_and_this_host_does_to_peers_first() {
    // One bucket: everybody meets there.
    let host = Host::new(1, 8);
    for peer in 0..8 {
        connect(&host, key(peer, 1, TCP), 1);
    }
    connect(&host, key(8, 1, TCP), 1);
    assert_eq!(host.event(Event::Full), 1);
    assert!(!host.keys(Which::Known).contains(&key(8, 1, TCP)));

    host.packet(Received, key(3, 1, TCP), ACK, 2);
    for mine in 0..7 {
        host.packet(Sent, key(mine, 2, UDP), observed(Signal::Continue), 3);
    }
    assert_eq!(
        [host.event(Event::Evicted), host.event(Event::EvictedHere)],
        [7, 0]
    );
    // The one that spoke last is the last to go.
    assert!(host.keys(Which::Known).contains(&key(3, 1, TCP)));
    host.packet(Sent, key(7, 2, UDP), observed(Signal::Continue), 3);
    host.packet(Sent, key(8, 2, UDP), observed(Signal::Continue), 3);
    assert_eq!(
        [host.event(Event::Evicted), host.event(Event::EvictedHere)],
        [8, 1]
    );
}

#[test]
fn what_only_ends_is_not_remembered() {
    let host = Host::new(16, 16);
    for signal in [Signal::Abort, Signal::Close] {
        host.packet(Received, key(1, 1, TCP), observed(signal), 1);
    }
    host.packet(Sent, key(1, 2, TCP), observed(Signal::Abort), 1);
    assert!(host.keys(Which::Known).is_empty() && host.keys(Which::HalfOpen).is_empty());
}

#[test]
fn many_threads_on_one_small_table_leave_no_slot_half_written() {
    let host = Host::new(2, 2);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let host = &host;
            scope.spawn(move || {
                let mut state = 0x9e37_79b9_7f4a_7c15 ^ thread;
                for now in 0..50_000_u32 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let flow = key(state % 64, u16::from(state >> 8 & 1 == 0), UDP);
                    let direction = if state >> 20 & 1 == 0 { Received } else { Sent };
                    host.packet(direction, flow, observed(Signal::Continue), now / 16);
                }
            });
        }
    });
    let shape = host.shape;
    for (which, buckets, mask) in [
        (Which::Known, &host.known, shape.known),
        (Which::HalfOpen, &host.half_open, shape.half_open),
    ] {
        for (at, bucket) in (0..).zip(buckets) {
            for (owner, entry) in bucket.owners.iter().zip(&bucket.slots.entries) {
                let mark = owner.load(Ordering::Relaxed);
                if mark == bucket::FREE {
                    continue;
                }
                // Whole, and where it is looked for.
                let hash = entry.tuple().hash(shape.seed);
                assert_eq!(
                    (mark, bucket::index(hash, mask)),
                    (bucket::mark(hash), at),
                    "{which:?}"
                );
            }
        }
    }
}
