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

    /// An offset that was added up from the frame, if there can be anything: for the kernel the bounds of it are known
    /// from here on.
    #[inline(always)]
    fn locate(&self, offset: usize) -> Option<usize> {
        Some(offset)
    }

    /// Reads four words of 8 bytes at `offset`, each as it stands in the frame: big-endian, whatever the
    /// host is.
    #[inline(always)]
    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        Some(bytemuck::cast(self.read::<32>(offset)?))
    }
}

/// A frame whose bytes can be changed in place.
pub trait PacketMut: Packet {
    /// Writes `N` bytes at `offset` bytes from the start of the frame; whether it reaches that far.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool;
}

impl<P: Packet + ?Sized> Packet for &P {
    fn length(&self) -> usize {
        P::length(self)
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        P::read(self, offset)
    }

    fn locate(&self, offset: usize) -> Option<usize> {
        P::locate(self, offset)
    }

    fn read_words(&self, offset: usize) -> Option<[u64; 4]> {
        P::read_words(self, offset)
    }
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

impl PacketMut for [u8] {
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool {
        let locate = offset
            .checked_add(N)
            .and_then(|end| self.get_mut(offset..end));
        if let Some(locate) = locate {
            locate.copy_from_slice(&bytes);
            true
        } else {
            false
        }
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

    #[test]
    fn a_slice_is_written_up_to_its_last_byte_and_no_further() {
        let frame: &mut [u8] = &mut [1, 2, 3, 4];
        assert!(frame.write(2, [5, 6]));
        assert!(!frame.write(3, [7, 8]));
        assert!(!frame.write(usize::MAX, [9]));
        assert_eq!(frame, [1, 2, 5, 6]);
    }
}
