//! The pcap format (draft-ietf-opsawg-pcap).

use std::io::Read;

use super::{
    MAX_FRAME, RawFrame,
    error::Problem,
    input::{Input, Order},
    link_type::LinkType,
};

/// A pcap file whose header was read.
pub(super) struct Pcap {
    order: Order,
    /// How many bytes follow the four numbers of a record's header.
    extra: usize,
    /// How many nanoseconds the second number of a time counts by.
    unit: u64,
}

impl Pcap {
    /// Reads the file's header, if the file begins with `magic` as a pcap file does.
    pub(super) fn open<R: Read>(
        magic: [u8; 4],
        input: &mut Input<R>,
    ) -> Result<Option<Self>, Problem> {
        let (order, number) = match magic {
            [0xa1, ..] => (Order::Big, u32::from_be_bytes(magic)),
            _ => (Order::Little, u32::from_le_bytes(magic)),
        };
        let (extra, unit) = match number {
            0xa1b2_c3d4 => (0, 1_000),
            0xa1b2_3c4d => (0, 1),
            // Alexey Kuznetsov's patch of libpcap, as in old Red Hat systems.
            0xa1b2_cd34 => (8, 1_000),
            _ => return Ok(None),
        };
        let Some(header) = input.array::<24>()? else {
            return Err(Problem::header_cut(input));
        };
        // The high 16 bits say whether and how long a frame check sequence is.
        let [.., a, b, c, d] = header;
        #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
        let link_type = LinkType(order.u32([a, b, c, d]) as u16);
        if link_type != LinkType::ETHERNET {
            return Err(Problem::LinkType(link_type));
        }
        Ok(Some(Self { order, extra, unit }))
    }

    pub(super) fn next<'a, R: Read>(
        &mut self,
        input: &'a mut Input<R>,
    ) -> Result<Option<RawFrame<'a>>, Problem> {
        let at = input.position();
        let Some(header) = input.array::<16>()? else {
            return match input.rest() {
                [] => Ok(None),
                _ => Err(Problem::frame_cut(input)),
            };
        };
        let [
            s0,
            s1,
            s2,
            s3,
            f0,
            f1,
            f2,
            f3,
            c0,
            c1,
            c2,
            c3,
            w0,
            w1,
            w2,
            w3,
        ] = header;
        let seconds = u64::from(self.order.u32([s0, s1, s2, s3])) * 1_000_000_000;
        let fraction = u64::from(self.order.u32([f0, f1, f2, f3])) * self.unit;
        let captured = self.order.u32([c0, c1, c2, c3]);
        let wire_length = self.order.u32([w0, w1, w2, w3]);
        if captured > MAX_FRAME {
            return Err(Problem::FrameTooLong {
                length: captured,
                at,
            });
        }
        let whole = self.extra + captured as usize;
        if !input.holds(whole)? {
            return Err(Problem::frame_cut(input));
        }
        let bytes = input.take(whole);
        Ok(Some(RawFrame {
            bytes: &bytes[self.extra..],
            wire_length,
            time: Some(seconds + fraction),
        }))
    }
}
