//! A datagram turned round.

/// Turns a UDP datagram into one for its sender; whether it was one.
///
/// Addresses and ports change sides, which leaves all checksums as they are.
pub(crate) fn reply(frame: &mut [u8]) -> bool {
    let ports = match frame.get(12..14) {
        Some([0x08, 0x00]) => turn_v4(frame),
        Some([0x86, 0xdd]) => turn_v6(frame),
        _ => None,
    };
    let Some(ports) = ports else {
        return false;
    };
    exchange::<2>(frame, ports, ports + 2).is_some() && exchange::<6>(frame, 0, 6).is_some()
}

/// Exchanges the addresses of an IPv4 packet; where its ports are, if it is a whole UDP datagram.
fn turn_v4(frame: &mut [u8]) -> Option<usize> {
    let &[version, _, _, _, _, _, high, low, _, protocol, ..] = frame.get(14..34)? else {
        return None;
    };
    let is_fragment = u16::from_be_bytes([high, low]) & 0x3fff != 0;
    if protocol != 17 || is_fragment {
        return None;
    }
    exchange::<4>(frame, 26, 30)?;
    Some(14 + usize::from(version & 0xf) * 4)
}

/// The same for IPv6, where no extension header comes before the datagram.
fn turn_v6(frame: &mut [u8]) -> Option<usize> {
    if *frame.get(20)? != 17 {
        return None;
    }
    exchange::<16>(frame, 22, 38)?;
    Some(54)
}

/// Exchanges `N` bytes at one place for those at another.
fn exchange<const N: usize>(frame: &mut [u8], one: usize, other: usize) -> Option<()> {
    let first: [u8; N] = frame.get(one..one + N)?.try_into().ok()?;
    let second: [u8; N] = frame.get(other..other + N)?.try_into().ok()?;
    frame.get_mut(one..one + N)?.copy_from_slice(&second);
    frame.get_mut(other..other + N)?.copy_from_slice(&first);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_turned_round_and_anything_else_is_none() {
        let mut frame = vec![0; 46];
        frame[..12].copy_from_slice(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[23] = 17;
        frame[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9]);
        let before = frame.clone();
        assert!(reply(&mut frame));
        assert_eq!(frame[..12], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(frame[26..38], [10, 0, 0, 2, 10, 0, 0, 1, 0, 9, 0, 7]);
        assert!(reply(&mut frame));
        assert_eq!(frame, before);
        frame[23] = 6;
        assert!(!reply(&mut frame));
        assert!(!reply(&mut [0; 13]));
    }
}
