//! The kernel sends back what the core puts together, byte by byte, or nothing where that is silent.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portdemux::{
    dataplane::shadow_program::{ShadowKind, ShadowProgram},
    explain::Basis,
};
use portdemux_common::{
    decide::Metadata,
    entry::Entry,
    ids::Generation,
    parse,
    reject::{RejectReply, Replied, ReplyKind},
    wire::ANY_MAC,
};
use portdemux_tests::{
    frames::{
        self, DESTINATION_OPTIONS, Frame, HOP_BY_HOP, Ipv4, Payload, SERVICE_VLAN, Tcp, VLAN,
        With as _,
    },
    require, rows,
};

use crate::NEEDS;

/// Whatever has a port is rejected.
const ALL_REJECTED: &str = "[[rule]]\nname = \"all\"\nport = [\"0-65535/tcp\", \"0-65535/udp\", \
                            \"0-65535/sctp\"]\nto = \"reject\"\n";

/// What the core puts together, of what lies in the first buffer.
fn expected(frame: &[u8]) -> Option<Vec<u8>> {
    let parsed = parse::parse(frame);
    let length = frame.len() as u64;
    let mut metadata = Metadata::new(&parsed, Entry::UNCLAIMED, Generation(1), length);
    metadata.read(frame);
    let first = &frame[..frame.len().min(crate::FIRST_BUFFER)];
    let kind = ReplyKind::of(&metadata, first, ANY_MAC);
    if parsed.ports().is_none() || parsed.malformed.is_some() || kind == ReplyKind::Silence {
        return None;
    }
    let answer = RejectReply::new(kind, &metadata, first);
    let mut composed = vec![0; answer.length()];
    answer.compose(frame, &mut composed).then_some(composed)
}

/// Holds the kernel to the core, and returns what both send back.
fn answered(program: &mut ShadowProgram, frame: &[u8]) -> Result<Option<Vec<u8>>> {
    let kernel = program.answer(frame)?;
    let core = expected(frame);
    ensure!(
        kernel == core,
        "to {frame:02x?}\n  the kernel {kernel:02x?}\n  the core   {core:02x?}"
    );
    Ok(core)
}

/// What is sent, of all kinds and lengths.
fn payloads() -> Vec<Payload> {
    let segment = |flags, length| {
        frames::tcp(40_000, 443)
            .with(|tcp| (tcp.flags, tcp.data) = (flags, vec![0xa5; length]))
            .with(|tcp| (tcp.sequence, tcp.acknowledgement) = (u32::MAX - 3, 0x0102_0304))
    };
    let flags = [
        0,
        Tcp::FIN,
        Tcp::SYN,
        Tcp::ACK,
        Tcp::SYN | Tcp::ACK,
        Tcp::RST,
    ];
    let segments = flags
        .into_iter()
        .flat_map(|flags| [0, 1, 1000].map(|length| segment(flags, length).into()));
    let datagram = |length: usize| {
        let data = (0..length).map(|position| u8::try_from(position % 251).unwrap_or(0));
        frames::udp(40_000, 53).with(|udp| udp.data = data.collect())
    };
    // Every remainder of the steps in which the sum is taken, and both ends of what fits.
    let datagrams = (0..80)
        .chain(510..530)
        .chain(1175..1190)
        .chain([1400, 3400]);
    let packets = [0, 6].map(|chunk| {
        frames::sctp(40_000, 80).with(|sctp| sctp.chunks = vec![chunk, 0, 0, 8, 1, 2, 3, 4])
    });
    segments
        .chain(datagrams.map(|length| datagram(length).into()))
        .chain(packets.map(Payload::from))
        .collect()
}

fn program() -> Result<ShadowProgram> {
    ShadowProgram::load(
        &Basis::from_text("rejected", ALL_REJECTED)?.image,
        &ShadowKind::default(),
    )
}

#[test]
fn the_kernel_sends_back_what_the_core_puts_together() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut program = program()?;
    let mut sent = 0;
    let mut all = 0;
    for payload in payloads() {
        let v4 = frames::ipv4(payload.clone());
        let v6 = frames::ipv6(payload.clone());
        let packets = [
            v4.frame(),
            v4.clone().with(|ip| ip.options = vec![1; 40]).frame(),
            v4.clone()
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .frame(),
            v6.frame(),
            v6.clone().then(frames::extension(HOP_BY_HOP, 1)).frame(),
            v6.clone()
                .then(frames::extension(DESTINATION_OPTIONS, 30))
                .then(frames::first_fragment())
                .frame(),
        ];
        let tagged: [fn(Frame) -> Frame; 4] = [
            |frame| frame,
            |frame| frame.padded(&[0xee; 7]),
            |frame| frame.tag(VLAN, 7),
            |frame| frame.tag(SERVICE_VLAN, 9).tag(VLAN, 7),
        ];
        for (packet, tag) in packets
            .iter()
            .flat_map(|packet| tagged.map(|tag| (packet, tag)))
        {
            let frame = tag(packet.clone()).bytes();
            sent += u64::from(answered(&mut program, &frame)?.is_some());
            all += 1;
        }
    }
    ensure!(
        sent > all / 2 && sent < all,
        "{sent} of {all} were answered"
    );
    assert_eq!(program.counters().replied(), [sent, 0, all - sent]);
    Ok(())
}

#[test]
fn every_row_is_answered_as_the_core_says() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut program = program()?;
    let mut sent = 0;
    for row in rows::all() {
        if ShadowProgram::takes(row.frame.len()) {
            let answer = answered(&mut program, &row.frame).context(row.name)?;
            sent += u64::from(answer.is_some());
        }
    }
    ensure!(sent > 20, "only {sent} were answered");
    assert_eq!(program.counters().replied()[Replied::Sent as usize], sent);
    Ok(())
}

#[test]
fn a_packet_in_several_buffers_is_answered_if_its_headers_lie_in_the_first() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut program = program()?;
    for length in [3400, 3500, 5000, 9000, 30_000] {
        let segment = frames::tcp(40_000, 443).with(|tcp| tcp.data = vec![1; length]);
        let datagram = frames::udp(40_000, 443).with(|udp| udp.data = vec![1; length]);
        for payload in [Payload::from(segment), datagram.into()] {
            for frame in [
                frames::ipv4(payload.clone()).frame(),
                frames::ipv6(payload).frame(),
            ] {
                let answer = answered(&mut program, &frame.bytes())?;
                assert!(
                    answer.is_some_and(|answer| answer.len() <= 14 + 1280),
                    "{length}"
                );
            }
        }
    }
    // Extension headers push the datagram's header to the end of the buffer and beyond.
    let mut silent = 0;
    for more in 150..200 {
        let packet = frames::ipv6(frames::udp(40_000, 443))
            .then(frames::extension(HOP_BY_HOP, 240))
            .then(frames::extension(DESTINATION_OPTIONS, more))
            .then(frames::authentication(1));
        silent += u64::from(answered(&mut program, &packet.frame().bytes())?.is_none());
    }
    ensure!(silent > 10 && silent < 50, "{silent} were not answered");
    Ok(())
}

#[test]
fn only_so_many_are_answered_at_once() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut program = program()?;
    let frame = frames::ipv4(frames::tcp(40_000, 443)).frame().bytes();
    let begun = Instant::now();
    for _ in 0..1_000 {
        program.run(&frame)?;
    }
    let milliseconds = u64::try_from(begun.elapsed().as_millis())?;
    let [sent, limited, unanswerable] = program.counters().replied();
    assert_eq!((sent + limited, unanswerable), (1_000, 0));
    ensure!(
        (50..=50 + milliseconds + 1).contains(&sent),
        "{sent} in {milliseconds} ms"
    );
    Ok(())
}
