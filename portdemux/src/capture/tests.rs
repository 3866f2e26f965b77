//! Captures written here byte by byte, sound ones and all the ways in which they are not.

use proptest::prelude::*;

use super::*;

/// Writes captures in one of the two byte orders.
#[derive(Clone, Copy)]
struct Writer {
    big: bool,
}

const LITTLE: Writer = Writer { big: false };
const BIG: Writer = Writer { big: true };

impl Writer {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|&word| self.u32(word)).collect()
    }

    fn pcap(self, magic: u32, link_type: u32, frames: &[&[u8]]) -> Vec<u8> {
        let mut file = self.words(&[magic]);
        file.extend([self.u16(2), self.u16(4)].concat());
        file.extend(self.words(&[0, 0, 65_535, link_type]));
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            file.extend(self.words(&[1, 2, length, length]));
            if magic == 0xa1b2_cd34 {
                file.extend([0xee; 8]);
            }
            file.extend_from_slice(frame);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12).unwrap();
        [self.words(&[kind, length]), body, self.words(&[length])].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        let body = [
            self.words(&[0x1a2b_3c4d]),
            version,
            self.words(&[u32::MAX, u32::MAX]),
        ];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    fn interface(self, link_type: u16, snap_length: u32) -> Vec<u8> {
        let body = [self.u16(link_type), self.u16(0)].concat();
        self.block(1, &[body, self.words(&[snap_length])].concat())
    }

    fn enhanced(self, interface: u32, frame: &[u8], wire_length: u32) -> Vec<u8> {
        let captured = u32::try_from(frame.len()).unwrap();
        let mut body = self.words(&[interface, 0, 0, captured, wire_length]);
        body.extend_from_slice(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        // An option, epb_flags.
        body.extend([self.u16(2), self.u16(4), [1, 0], [0, 0], [0, 0], [0, 0]].concat());
        self.block(6, &body)
    }

    fn simple(self, frame: &[u8], wire_length: u32) -> Vec<u8> {
        self.block(3, &[&self.words(&[wire_length]), frame].concat())
    }
}

/// A source that gives one byte at a time, as a slow pipe may.
struct Dripping<'a>(&'a [u8]);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

fn read(file: &[u8]) -> (Vec<(Vec<u8>, u32)>, Option<CaptureError>) {
    read_from(file)
}

fn read_from(source: impl Read) -> (Vec<(Vec<u8>, u32)>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::new("trace.pcap", source) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => {
                frames.push((frame.bytes.to_vec(), frame.wire_length));
                assert_eq!(frame.number, frames.len() as u64);
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn whole(frames: &[&[u8]]) -> Vec<(Vec<u8>, u32)> {
    let length = |frame: &[u8]| u32::try_from(frame.len()).unwrap();
    frames
        .iter()
        .map(|frame| (frame.to_vec(), length(frame)))
        .collect()
}

fn complaint(file: &[u8]) -> String {
    let (_, error) = read(file);
    error.expect("a complaint").to_string()
}

const FRAMES: [&[u8]; 4] = [&[1; 60], &[], &[2; 61], &[3; 1514]];

#[test]
fn pcap_reads_in_both_byte_orders_and_with_every_magic_number() {
    for writer in [LITTLE, BIG] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34] {
            let file = writer.pcap(magic, 1, &FRAMES);
            let (frames, error) = read(&file);
            assert!(error.is_none(), "{magic:x}: {error:?}");
            assert_eq!(frames, whole(&FRAMES), "{magic:x}");
        }
    }
}

#[test]
fn a_length_of_the_frame_check_sequence_beside_the_link_type_changes_nothing() {
    let (frames, error) = read(&LITTLE.pcap(0xa1b2_c3d4, 0x2400_0001, &FRAMES));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 4);
}

#[test]
fn pcapng_reads_every_kind_of_frame_of_several_interfaces_in_several_sections() {
    for (first, second) in [(LITTLE, BIG), (BIG, LITTLE)] {
        // The obsolete packet block has two 16-bit numbers where the interface is.
        let obsolete = |writer: Writer, frame: &[u8]| {
            let length = u32::try_from(frame.len()).unwrap();
            let mut body = [writer.u16(1), writer.u16(9)].concat();
            body.extend(writer.words(&[0, 0, length, length]));
            body.extend_from_slice(frame);
            writer.block(2, &body)
        };
        let file = [
            first.section(),
            first.interface(113, 0),
            first.block(0x8000_0bad, &[7; 300_000]),
            first.interface(1, 0),
            first.enhanced(1, FRAMES[0], 60),
            obsolete(first, FRAMES[2]),
            second.section(),
            second.interface(1, 96),
            second.enhanced(0, FRAMES[1], 0),
            second.block(5, &[0; 12]),
            second.simple(&FRAMES[3][..96], 1514),
            second.simple(FRAMES[2], 61),
        ];
        let expected = [
            whole(&[FRAMES[0], FRAMES[2], FRAMES[1]]),
            vec![(FRAMES[3][..96].to_vec(), 1514)],
            whole(&[FRAMES[2]]),
        ];
        let (frames, error) = read(&file.concat());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(frames, expected.concat());
        let (frames, error) = read_from(Dripping(&file.concat()));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(frames, expected.concat());
    }
}

#[test]
fn a_frame_with_less_in_the_capture_than_on_the_wire_is_known_for_it() {
    let file = [
        LITTLE.section(),
        LITTLE.interface(1, 0),
        LITTLE.enhanced(0, &[0; 64], 1514),
    ]
    .concat();
    let mut capture = Capture::new("trace", &file[..]).unwrap();
    assert!(capture.next_frame().unwrap().unwrap().is_cut());
}

#[test]
fn a_file_cut_off_anywhere_gives_all_frames_before_and_says_where_it_ends() {
    let files = [
        LITTLE.pcap(0xa1b2_c3d4, 1, &FRAMES),
        [
            BIG.section(),
            BIG.interface(1, 0),
            BIG.enhanced(0, FRAMES[0], 60),
            BIG.enhanced(0, FRAMES[1], 0),
            BIG.enhanced(0, FRAMES[2], 61),
            BIG.enhanced(0, FRAMES[3], 1514),
        ]
        .concat(),
    ];
    for file in files {
        let mut sound = 0;
        for end in 0..file.len() {
            let (frames, error) = read(&file[..end]);
            assert_eq!(frames, whole(&FRAMES)[..frames.len()]);
            let Some(error) = error else {
                sound += 1;
                continue;
            };
            assert_eq!(error.frames, frames.len() as u64);
            let text = error.to_string();
            let named = match end {
                0 => "is empty".into(),
                1..4 => "is not a capture file".into(),
                _ => format!("cut off at byte {}", grouped(end as u64)),
            };
            let in_header = format!("in its header, at byte {end}");
            assert!(
                text.contains(&named) || text.contains(&in_header),
                "{end}: {text}"
            );
        }
        // Between two frames nobody can tell that the file was longer.
        assert!((4..=6).contains(&sound), "{sound}");
    }
}

#[test]
fn a_file_cut_off_within_a_frame_says_which_and_how_many_were_read() {
    let file = LITTLE.pcap(0xa1b2_c3d4, 1, &[&[0; 58][..]; 17]);
    assert_eq!(
        complaint(&file[..1234]),
        "trace.pcap: frame 17 is cut off at byte 1,234 of the file; the 16 frames before it were \
         read"
    );
    assert_eq!(
        complaint(&file[..80]),
        "trace.pcap: frame 1 is cut off at byte 80 of the file; no frame was read before"
    );
    assert_eq!(
        complaint(&file[..100]),
        "trace.pcap: frame 2 is cut off at byte 100 of the file; the one frame before was read"
    );
}

#[test]
fn a_file_of_another_kind_is_named_for_what_it_is() {
    let rows: [(&[u8], &str); 5] = [
        (b"", "trace.pcap: is empty"),
        (
            b"hello",
            "trace.pcap: is not a capture file: it begins with 68 65 6c 6c",
        ),
        (
            b"hi",
            "trace.pcap: is not a capture file: it begins with 68 69",
        ),
        (
            &[0x1f, 0x8b, 8, 0, 0],
            "trace.pcap: is compressed with gzip",
        ),
        (
            &[0x28, 0xb5, 0x2f, 0xfd],
            "trace.pcap: is compressed with zstd",
        ),
    ];
    for (file, expected) in rows {
        assert_eq!(complaint(file), expected);
    }
    assert_eq!(
        read(&[0x1f, 0x8b, 8, 0])
            .1
            .and_then(|error| error.help())
            .unwrap(),
        "gunzip -c trace.pcap | portdemux explain --pcap -"
    );
}

#[test]
fn a_foreign_link_type_is_named_where_it_matters() {
    assert_eq!(
        complaint(&BIG.pcap(0xa1b2_c3d4, 276, &FRAMES)),
        "trace.pcap: holds frames of link type LINUX_SLL2 (276), not Ethernet"
    );
    assert!(complaint(&BIG.pcap(0xa1b2_c3d4, 4711, &[])).contains("link type 4711,"));
    let file = [
        LITTLE.section(),
        LITTLE.interface(1, 0),
        LITTLE.interface(105, 0),
        LITTLE.enhanced(0, FRAMES[0], 60),
        LITTLE.enhanced(1, FRAMES[0], 60),
    ];
    assert_eq!(
        complaint(&file.concat()),
        "trace.pcap: frame 2 comes from interface 1 of link type IEEE802_11 (105), not Ethernet; \
         the one frame before was read"
    );
}

#[test]
fn lengths_that_cannot_be_true_are_not_believed() {
    let start = [LITTLE.section(), LITTLE.interface(1, 0)].concat();
    let at = start.len();
    let with = |block: &[u8]| complaint(&[&start, block].concat());

    let mut short = LITTLE.enhanced(0, FRAMES[0], 60);
    short[4..8].copy_from_slice(&28u32.to_le_bytes());
    assert!(with(&short).contains(&format!(
        "at byte {at} of the file says that it has 28 bytes"
    )));

    let mut uneven = LITTLE.block(5, &[0; 8]);
    uneven[4] += 1;
    assert!(with(&uneven).contains("says that it has 21 bytes, which it cannot"));

    let mut huge = LITTLE.enhanced(0, FRAMES[0], 60);
    huge[4..8].copy_from_slice(&0x8000_0000u32.to_le_bytes());
    assert!(with(&huge).contains("says that it has 2,147,483,648 bytes, which it cannot"));

    let mut ends = LITTLE.enhanced(0, FRAMES[0], 60);
    let last = ends.len() - 4;
    ends[last] ^= 1;
    assert!(with(&ends).contains("says that it has 104 bytes, and at its end 105"));

    let mut beyond = LITTLE.enhanced(0, FRAMES[0], 60);
    beyond[20..24].copy_from_slice(&100u32.to_le_bytes());
    assert!(with(&beyond).contains("says that it has 100 bytes, in a block of 104"));
    assert!(with(&LITTLE.simple(FRAMES[0], 65)).contains("has 65 bytes, in a block of 76"));

    let mut long = LITTLE.pcap(0xa1b2_c3d4, 1, &[FRAMES[0]]);
    long[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(complaint(&long).contains(
        "frame 1 at byte 24 of the file says that it has 4,294,967,295 bytes: no frame is so long"
    ));
}

#[test]
fn an_interface_that_the_section_does_not_describe_is_named() {
    let file = [
        LITTLE.section(),
        LITTLE.interface(1, 0),
        LITTLE.section(),
        LITTLE.interface(1, 0),
        LITTLE.interface(1, 0),
        LITTLE.enhanced(2, FRAMES[0], 60),
    ];
    let text = complaint(&file.concat());
    assert!(
        text.contains("comes from interface 2, and the file describes 2 from 0 on"),
        "{text}"
    );
    let text = complaint(&[LITTLE.section(), LITTLE.simple(FRAMES[0], 60)].concat());
    assert!(
        text.contains("comes from interface 0, and the file describes 0"),
        "{text}"
    );
}

#[test]
fn a_section_of_no_known_version_or_byte_order_is_refused() {
    let mut version = LITTLE.section();
    version[12] = 2;
    assert!(complaint(&version).contains("begins a section of version 2; only version 1 is read"));
    let mut order = LITTLE.section();
    order[8] = 0;
    assert!(complaint(&order).contains("does not say its byte order"));
}

fn sound_files() -> impl Strategy<Value = Vec<u8>> {
    let frames = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6);
    (frames, any::<bool>(), any::<bool>()).prop_map(|(frames, big, ng)| {
        let writer = Writer { big };
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        if !ng {
            return writer.pcap(0xa1b2_c3d4, 1, &frames);
        }
        let mut file = [writer.section(), writer.interface(1, 0)].concat();
        for frame in frames {
            file.extend(writer.enhanced(0, frame, u32::try_from(frame.len()).unwrap()));
        }
        file
    })
}

proptest! {
    #[test]
    fn no_damage_makes_the_reader_panic_or_read_more_than_there_is(
        mut file in sound_files(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        end in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(end.index(file.len() + 1));
        let (frames, error) = read(&file);
        let bytes: usize = frames.iter().map(|(bytes, _)| bytes.len()).sum();
        prop_assert!(bytes + 16 * frames.len() <= file.len());
        if let Some(error) = error {
            prop_assert!(error.to_string().starts_with("trace.pcap: "));
            prop_assert_eq!(error.frames, frames.len() as u64);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }
}
