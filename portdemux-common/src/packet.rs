//! Where the bytes of a frame come from.

/// A frame, from the destination MAC address to the last byte before the FCS.
///
/// The kernel implements it for the frame an XDP program was handed, the host for slices, so that
/// one parser serves both.
pub trait Packet {
    /// Length of the whole frame in bytes, whether or not all of it can be read.
    fn length(&self) -> usize;

    /// Reads `N` bytes at `offset` bytes from the start of the frame, or nothing if the frame does
    /// not reach that far.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Packet for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        self.get(offset..end)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_read_up_to_its_last_byte_and_no_further() {
        let frame: &[u8] = &[1, 2, 3, 4];
        assert_eq!(frame.read::<2>(2), Some([3, 4]));
        assert_eq!(frame.read::<2>(3), None);
        assert_eq!(frame.read::<1>(usize::MAX), None);
        assert_eq!(frame.read::<0>(4), Some([]));
    }
}
