//! Captures that are none, break off or lie.

use proptest::prelude::*;

use super::*;
use crate::figures::grouped;

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
            .and_then(|error| error.help("portdemux"))
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
