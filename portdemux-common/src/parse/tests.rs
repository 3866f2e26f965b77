//! Properties of the parser that need no frame builder. What it says about each kind of frame is
//! held against a table and a second implementation in the tests package.

use proptest::{collection::vec, prelude::*};

use super::{Class, Continuation, Fragment, Keep, Parsed, parse, parse_quoted, parse_sound};
use crate::packet::Packet;

/// An ICMP error without a quoted packet: type 3, 28 bytes of total length.
const EMPTY_ERROR: [u8; 42] = {
    let mut frame = [0; 42];
    (frame[12], frame[14], frame[17], frame[23], frame[34]) = (8, 0x45, 28, 1, 3);
    frame
};

/// Bytes that often get past the link layer.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let ether_type = prop_oneof![
        Just(vec![0x08, 0x00, 0x45]),
        Just(vec![0x86, 0xdd, 0x60]),
        Just(vec![0x81, 0x00, 0, 7, 0x08, 0x00, 0x45]),
        vec(any::<u8>(), 0..8),
    ];
    (vec(any::<u8>(), 12), ether_type, vec(any::<u8>(), 0..256))
        .prop_map(|(addresses, ether_type, rest)| [addresses, ether_type, rest].concat())
}

/// A packet that is not a slice.
struct OnlyReads<'a>(&'a [u8]);

impl Packet for OnlyReads<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }
}

/// Hands on whether the frame was sound when it was handed over.
struct WasSound;

impl<P: Packet + ?Sized> Continuation<P> for WasSound {
    type Output = (Parsed, bool);

    fn sound(self, _packet: &P, parsed: &Parsed) -> (Parsed, bool) {
        (*parsed, parsed.malformed.is_none())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_exactly_one_class(bytes in vec(any::<u8>(), 0..200)) {
        let parsed = parse(bytes.as_slice());
        prop_assert_eq!(parsed.class() == Class::Malformed, parsed.malformed.is_some());
        prop_assert_eq!(parsed.class() == Class::Ports, parsed.ports().is_some());
        prop_assert!(parsed.payload <= bytes.len());
    }

    #[test]
    fn the_fast_path_and_the_slow_one_say_the_same(frame in frames()) {
        let parsed = parse(frame.as_slice());
        let sound = parse_sound(frame.as_slice(), Keep);
        prop_assert_eq!(sound, parsed.malformed.is_none().then_some(parsed));
        let handed_on = parse_sound(frame.as_slice(), WasSound);
        prop_assert!(handed_on.is_none_or(|(same, sound)| sound && same == parsed));
        prop_assert_eq!(parse(&OnlyReads(&frame)), parsed);
    }

    #[test]
    fn a_malformed_frame_and_a_later_fragment_have_no_ports(frame in frames()) {
        let parsed = parse(frame.as_slice());
        if parsed.malformed.is_some() || parsed.fragment == Fragment::Later {
            prop_assert_eq!(parsed.ports(), None);
        }
        if let Some(quoted) = parse_quoted(frame.as_slice(), &parsed) {
            prop_assert_eq!(parsed.class(), Class::NoPorts);
            prop_assert!(quoted.malformed.is_none() || quoted.ports().is_none());
        }
    }

    #[test]
    fn padding_after_an_icmp_error_is_no_quoted_packet(padding in vec(any::<u8>(), 0..64)) {
        let whole = parse_quoted(EMPTY_ERROR.as_slice(), &parse(EMPTY_ERROR.as_slice()));
        let padded = [&EMPTY_ERROR[..], &padding].concat();
        prop_assert!(whole.is_some());
        prop_assert_eq!(parse_quoted(padded.as_slice(), &parse(padded.as_slice())), whole);
    }
}
