//! The footer at the end of a layer file: whose it is, what it holds, and where index and filter are.

use strata_common::{Lsn, TenantId, TenantTimelineId, TimelineId};

use super::{MAGIC, VERSION};
use crate::core::key::{Key, KeyRange};
use crate::core::layer::LayerKind;

/// Fixed size of the footer, bytes.
pub const FOOTER_BYTES: usize = 140;

/// Where a frame lies in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    pub offset: u64,
    pub bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    pub id: TenantTimelineId,
    pub kind: LayerKind,
    pub begin: Lsn,
    pub end: Lsn,
    pub keys: KeyRange,
    pub blocks: u32,
    pub values: u64,
    pub index: Extent,
    pub bloom: Extent,
}

impl Footer {
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&match self.kind {
            LayerKind::Delta => 1u32.to_le_bytes(),
            LayerKind::Image => 2u32.to_le_bytes(),
        });
        out.extend_from_slice(&self.id.tenant.0);
        out.extend_from_slice(&self.id.timeline.0);
        out.extend_from_slice(&self.begin.0.to_le_bytes());
        out.extend_from_slice(&self.end.0.to_le_bytes());
        out.extend_from_slice(&self.keys.first.0);
        out.extend_from_slice(&self.keys.last.0);
        out.extend_from_slice(&self.values.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        for extent in [self.index, self.bloom] {
            out.extend_from_slice(&extent.offset.to_le_bytes());
            out.extend_from_slice(&extent.bytes.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.try_into().expect("the parts add up to the footer's size")
    }

    pub fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Footer, String> {
        let mut at = Cursor(bytes);
        let version = at.u32();
        let kind = at.u32();
        let tenant = TenantId(at.take());
        let timeline = TimelineId(at.take());
        let (begin, end) = (Lsn(at.u64()), Lsn(at.u64()));
        let keys = KeyRange { first: Key(at.take()), last: Key(at.take()) };
        let values = at.u64();
        let blocks = at.u32();
        let index = Extent { offset: at.u64(), bytes: at.u32() };
        let bloom = Extent { offset: at.u64(), bytes: at.u32() };
        let crc = at.u32();
        if at.take() != MAGIC {
            return Err("the file does not end as a layer file does".into());
        }
        let computed = crc32c::crc32c(&bytes[..FOOTER_BYTES - 12]);
        if crc != computed {
            return Err(format!("the checksum is wrong: {crc:08x} is stored, the bytes have {computed:08x}"));
        }
        if version != VERSION {
            return Err(format!("the format has version {version}, this build reads {VERSION}"));
        }
        let kind = match kind {
            1 => LayerKind::Delta,
            2 => LayerKind::Image,
            other => return Err(format!("layers of kind {other} are unknown")),
        };
        if begin >= end || keys.first > keys.last {
            return Err("it holds no LSN or no key".into());
        }
        let id = TenantTimelineId { tenant, timeline };
        Ok(Footer { id, kind, begin, end, keys, blocks, values, index, bloom })
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk::<N>().expect("the fields add up to the footer's size");
        self.0 = rest;
        *taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
