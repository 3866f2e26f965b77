//! The pcapng format (draft-ietf-opsawg-pcapng): a sequence of blocks, each with its length at both
//! ends.

use std::io::Read;

use super::{
    MAX_FRAME, RawFrame,
    error::Problem,
    input::{Input, Order},
    link_type::LinkType,
};

/// Type of the block that begins a section, the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE: u32 = 1;
/// What `ENHANCED` took the place of.
const PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// A block with a frame is held in memory; a longer one is taken for a lie.
const MAX_BLOCK: u32 = 16 << 20;

/// A block's type and length.
const HEAD: u32 = 8;
/// A block's length, once more.
const TAIL: u32 = 4;

/// A pcapng file whose first section was begun.
pub(super) struct Pcapng {
    order: Order,
    /// The section's interfaces; a frame names its own by index.
    interfaces: Vec<SectionInterface>,
}

struct SectionInterface {
    link_type: LinkType,
    /// The most that is captured of a frame; 0 for no limit.
    snap_length: u32,
    /// What its times count by: the option `if_tsresol`.
    resolution: u8,
    /// What its times begin at, in seconds since 1970: the option `if_tsoffset`.
    offset: i64,
}

impl SectionInterface {
    /// Microseconds.
    const RESOLUTION: u8 = 6;

    /// A time in nanoseconds since 1970; nothing if that has more than 64 bits.
    fn time(&self, count: u64) -> Option<u64> {
        const SECOND: u128 = 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let in_a_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)?
        } else {
            2_u128.checked_pow(exponent)?
        };
        let time = u128::from(count).checked_mul(SECOND)? / in_a_second;
        let offset = i128::from(self.offset) * SECOND.cast_signed();
        u64::try_from(i128::try_from(time).ok()? + offset).ok()
    }
}

/// A block whose head was read.
#[derive(Clone, Copy)]
struct RawBlock {
    /// Where it begins in the file.
    at: u64,
    length: u32,
}

/// Where a frame lies in a block, as the block's fixed part says.
struct FramePosition {
    interface: u32,
    /// Bytes from the block's head to the frame.
    offset: usize,
    captured: u32,
    wire_length: u32,
    /// Its time, as its interface counts.
    time: Option<u64>,
}

/// The options at the end of a block are read up to this length; longer ones are passed over.
const MAX_OPTIONS: u32 = 64 << 10;

impl Pcapng {
    /// Begins the first section; the file begins with [`SECTION_HEADER`].
    pub(super) fn open<R: Read>(input: &mut Input<R>) -> Result<Self, Problem> {
        let mut pcapng = Self {
            order: Order::Little,
            interfaces: Vec::new(),
        };
        let at = input.position();
        let Some([_, _, _, _, length @ ..]) = input.array::<8>()? else {
            return Err(Problem::header_cut(input));
        };
        pcapng.begin_section(at, length, input)?;
        Ok(pcapng)
    }

    pub(super) fn next<'a, R: Read>(
        &mut self,
        input: &'a mut Input<R>,
    ) -> Result<Option<RawFrame<'a>>, Problem> {
        loop {
            let at = input.position();
            let Some(head) = input.array::<8>()? else {
                return match input.rest() {
                    [] => Ok(None),
                    _ => Err(Problem::block_cut(input, at)),
                };
            };
            let [t0, t1, t2, t3, length @ ..] = head;
            let kind = [t0, t1, t2, t3];
            if kind == SECTION_HEADER {
                self.begin_section(at, length, input)?;
                continue;
            }
            let length = self.order.u32(length);
            let block = RawBlock { at, length };
            match self.order.u32(kind) {
                INTERFACE => self.add_interface(block, input)?,
                kind @ (ENHANCED | PACKET | SIMPLE) => {
                    return self.frame(kind, block, input).map(Some);
                }
                _ => {
                    block.check(HEAD + TAIL)?;
                    self.pass(block, HEAD, input)?;
                }
            }
        }
    }

    /// Reads on after the type and the length of a block that begins a section.
    fn begin_section<R: Read>(
        &mut self,
        at: u64,
        length: [u8; 4],
        input: &mut Input<R>,
    ) -> Result<(), Problem> {
        let Some(header) = input.array::<8>()? else {
            return Err(Problem::block_cut(input, at));
        };
        let [m0, m1, m2, m3, v0, v1, _, _] = header;
        self.order = match [m0, m1, m2, m3] {
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            _ => return Err(Problem::ByteOrder { at }),
        };
        let version = self.order.u16([v0, v1]);
        if version != 1 {
            return Err(Problem::Version { version, at });
        }
        self.interfaces.clear();
        let length = self.order.u32(length);
        let block = RawBlock { at, length };
        // Then follows the section's length, which may be left open.
        block.check(28)?;
        self.pass(block, 16, input)
    }

    fn add_interface<R: Read>(
        &mut self,
        block: RawBlock,
        input: &mut Input<R>,
    ) -> Result<(), Problem> {
        block.check(20)?;
        let Some([t0, t1, _, _, snap @ ..]) = input.array::<8>()? else {
            return Err(Problem::block_cut(input, block.at));
        };
        let mut interface = SectionInterface {
            link_type: LinkType(self.order.u16([t0, t1])),
            snap_length: self.order.u32(snap),
            resolution: SectionInterface::RESOLUTION,
            offset: 0,
        };
        let options = block.length - 16 - TAIL;
        if options > MAX_OPTIONS {
            self.interfaces.push(interface);
            return self.pass(block, 16, input);
        }
        if !input.holds(options as usize)? {
            return Err(Problem::block_cut(input, block.at));
        }
        self.read_options(input.take(options as usize), &mut interface);
        self.interfaces.push(interface);
        self.pass(block, 16 + options, input)
    }

    /// Reads from the options of an interface how it counts time. What is not understood is left.
    fn read_options(&self, mut options: &[u8], interface: &mut SectionInterface) {
        const TSRESOL: u16 = 9;
        const TSOFFSET: u16 = 14;
        while let Some(([c0, c1, l0, l1], rest)) = options.split_first_chunk() {
            let length = usize::from(self.order.u16([*l0, *l1]));
            let Some(value) = rest.get(..length) else {
                return;
            };
            match (self.order.u16([*c0, *c1]), value) {
                (TSRESOL, &[resolution]) => interface.resolution = resolution,
                (TSOFFSET, value) => {
                    if let Ok(value) = value.try_into() {
                        interface.offset = self.order.u64(value).cast_signed();
                    }
                }
                _ => {}
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Passes over the rest of a block of which `read` bytes were read.
    fn pass<R: Read>(
        &self,
        block: RawBlock,
        read: u32,
        input: &mut Input<R>,
    ) -> Result<(), Problem> {
        let rest = u64::from(block.length - read - TAIL);
        let tail = if input.skip(rest)? {
            input.array::<4>()?
        } else {
            None
        };
        match tail {
            Some(tail) => block.check_tail(self.order.u32(tail)),
            None => Err(Problem::block_cut(input, block.at)),
        }
    }

    fn frame<'a, R: Read>(
        &self,
        kind: u32,
        block: RawBlock,
        input: &'a mut Input<R>,
    ) -> Result<RawFrame<'a>, Problem> {
        block.check(if kind == SIMPLE { 16 } else { 32 })?;
        if block.length > MAX_BLOCK {
            return Err(block.lies());
        }
        let rest = (block.length - HEAD) as usize;
        if !input.holds(rest)? {
            return Err(Problem::frame_cut(input));
        }
        let body = input.take(rest);
        let Some((body, tail)) = body.split_last_chunk::<4>() else {
            return Err(block.lies());
        };
        block.check_tail(self.order.u32(*tail))?;
        let Some(placed) = self.place(kind, body) else {
            return Err(block.lies());
        };
        let Some(interface) = self.interfaces.get(placed.interface as usize) else {
            return Err(Problem::NoInterface {
                interface: placed.interface,
                interfaces: self.interfaces.len(),
                at: block.at,
            });
        };
        if interface.link_type != LinkType::ETHERNET {
            return Err(Problem::InterfaceLinkType {
                interface: placed.interface,
                link_type: interface.link_type,
            });
        }
        if placed.captured > MAX_FRAME {
            return Err(Problem::FrameTooLong {
                length: placed.captured,
                at: block.at,
            });
        }
        let bytes = body
            .get(placed.offset..)
            .and_then(|bytes| bytes.get(..placed.captured as usize));
        match bytes {
            Some(bytes) => Ok(RawFrame {
                bytes,
                wire_length: placed.wire_length,
                time: placed.time.and_then(|count| interface.time(count)),
            }),
            None => Err(Problem::FrameBeyondBlock {
                length: placed.captured,
                at: block.at,
                block: block.length,
            }),
        }
    }

    fn place(&self, kind: u32, body: &[u8]) -> Option<FramePosition> {
        let number = |index: usize| {
            let bytes = body.get(4 * index..)?.first_chunk()?;
            Some(self.order.u32(*bytes))
        };
        if kind == SIMPLE {
            let wire_length = number(0)?;
            // It says only how long the frame was on the wire of the first interface.
            let snap_length = self.interfaces.first().map_or(0, |first| first.snap_length);
            let captured = match snap_length {
                0 => wire_length,
                limit => wire_length.min(limit),
            };
            return Some(FramePosition {
                interface: 0,
                offset: 4,
                captured,
                wire_length,
                time: None,
            });
        }
        let interface = if kind == PACKET {
            // Its other half counts lost frames.
            u32::from(self.order.u16(*body.first_chunk()?))
        } else {
            number(0)?
        };
        Some(FramePosition {
            interface,
            offset: 20,
            captured: number(3)?,
            wire_length: number(4)?,
            time: Some(u64::from(number(1)?) << 32 | u64::from(number(2)?)),
        })
    }
}

impl RawBlock {
    /// Complains of a length that no block of its type can have.
    const fn check(self, least: u32) -> Result<(), Problem> {
        if self.length < least || !self.length.is_multiple_of(4) {
            return Err(self.lies());
        }
        Ok(())
    }

    const fn check_tail(self, tail: u32) -> Result<(), Problem> {
        if tail != self.length {
            return Err(Problem::BlockEnds {
                at: self.at,
                length: self.length,
                tail,
            });
        }
        Ok(())
    }

    const fn lies(self) -> Problem {
        Problem::BlockLength {
            at: self.at,
            length: self.length,
        }
    }
}
