//! Sound captures.

use super::*;

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
            first.block(0x8000_0bad, &vec![7; 300_000]),
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

/// The times of the frames of a file.
fn times(file: &[u8]) -> Vec<Option<u64>> {
    let mut capture = Capture::new("capture", file).unwrap();
    let mut times = Vec::new();
    while let Some(frame) = capture.next_frame().unwrap() {
        times.push(frame.time);
    }
    times
}

#[test]
fn times_are_read_as_the_file_counts_them() {
    const SECOND: u64 = 1_000_000_000;
    for writer in [LITTLE, BIG] {
        for (magic, nanoseconds) in [(0xa1b2_c3d4, 2_000), (0xa1b2_3c4d, 2), (0xa1b2_cd34, 2_000)] {
            let file = writer.pcap(magic, 1, &[&[7; 20]]);
            assert_eq!(times(&file), [Some(SECOND + nanoseconds)]);
        }
        let option = |code: u16, value: &[u8]| {
            let length = u16::try_from(value.len()).unwrap();
            let mut option = [writer.u16(code), writer.u16(length)].concat();
            option.extend(value);
            option.resize(option.len().next_multiple_of(4), 0);
            option
        };
        let offset: [u8; 8] = if writer.big {
            10_i64.to_be_bytes()
        } else {
            10_i64.to_le_bytes()
        };
        let count = 5 << 32 | 1_u64;
        let rows: [(Vec<Vec<u8>>, u64); 5] = [
            (vec![], count * 1_000),
            (vec![option(2, b"eth0"), option(9, &[9])], count),
            (
                vec![option(9, &[0x8a])],
                (count >> 10) * SECOND + SECOND / 1024,
            ),
            (
                vec![option(9, &[9]), option(14, &offset)],
                count + 10 * SECOND,
            ),
            // What is no resolution, and what says that it is longer than the block.
            (
                vec![option(9, &[9, 9]), writer.words(&[0xffff_ffff])],
                count * 1_000,
            ),
        ];
        for (options, expected) in rows {
            let interface = [writer.u16(1), writer.u16(0)].concat();
            let body = [interface, writer.words(&[0]), options.concat()].concat();
            let mut frame = writer.words(&[0, 5, 1, 20, 20]);
            frame.extend([7; 20]);
            let simple = [writer.words(&[20]), vec![7; 20]].concat();
            let file = [
                writer.section(),
                writer.block(1, &body),
                writer.block(6, &frame),
                writer.block(3, &simple),
            ];
            assert_eq!(times(&file.concat()), [Some(expected), None]);
        }
    }
}
