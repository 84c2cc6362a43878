//! The index of a cache as bytes: what a server leaves beside the file for the next one (trap C7). `FORMAT.md` has the layout.
//!
//! Bytes prove nothing of freshness. What they say is used for pages only if `End::Clean` says that they were written when nothing
//! could change any more, and if the caller knows that the log went no further; otherwise they are a list of names, to be read anew.
//! A page has its own checksum over name and content, which every reader checks: an index that does not fit its file finds nothing.

use strata_common::{BlockNumber, ForkNumber, RelTag, TenantId, TenantTimelineId, Term, TimelineId};

use crate::PageName;

const MAGIC: [u8; 8] = *b"strlfc\0\x01";
const HEADER_BYTES: usize = 64;
const PAGE_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const IN_MAIN: u8 = 0x80;

/// When an index was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// While its server ran: pages may have changed since.
    Running,
    /// After the last change of any page.
    Clean,
}

/// Whose index it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    pub timeline: TenantTimelineId,
    /// In which it was written.
    pub term: Term,
    pub end: End,
}

/// A page of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptPage {
    pub name: PageName,
    /// Its number in the file.
    pub place: u64,
    pub checksum: u32,
    pub uses: u32,
    pub in_main: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Damaged {
    #[error("it is no index of a cache")]
    Foreign,
    #[error("it is cut off")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("page {0} of it makes no sense")]
    Page(usize),
}

/// How many pages an index of so many bytes may have.
pub const fn pages_in(bytes: usize) -> usize {
    bytes.saturating_sub(HEADER_BYTES + CHECKSUM_BYTES) / PAGE_BYTES
}

/// The index as bytes; of each partition in the order in which pages would leave.
pub fn encode(owner: Owner, pages: &[KeptPage]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + pages.len() * PAGE_BYTES + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&owner.timeline.tenant.0);
    bytes.extend_from_slice(&owner.timeline.timeline.0);
    bytes.extend_from_slice(&owner.term.0.to_le_bytes());
    bytes.extend_from_slice(&(pages.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&u64::from(owner.end == End::Clean).to_le_bytes());
    debug_assert_eq!(bytes.len(), HEADER_BYTES);
    for page in pages {
        let tag = page.name.rel.rel;
        for number in [tag.tablespace, tag.database, tag.relation, page.name.block.0, page.checksum] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&page.place.to_le_bytes());
        let uses = u8::try_from(page.uses).unwrap_or(u8::MAX).min(IN_MAIN - 1);
        let flags = uses | if page.in_main { IN_MAIN } else { 0 };
        bytes.extend_from_slice(&[page.name.rel.fork.raw(), flags, 0, 0]);
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads what `encode` wrote; anything else is refused whole.
pub fn decode(bytes: &[u8]) -> Result<(Owner, Vec<KeptPage>), Damaged> {
    let (header, _) = bytes.split_at_checked(HEADER_BYTES).ok_or(Damaged::Short)?;
    if header[..8] != MAGIC {
        return Err(Damaged::Foreign);
    }
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    let pages = body.get(HEADER_BYTES..).ok_or(Damaged::Short)?;
    if pages.len() as u64 != long(header, 48).saturating_mul(PAGE_BYTES as u64) {
        return Err(Damaged::Short);
    }
    if crc32c::crc32c(body) != word(checksum, 0) {
        return Err(Damaged::Checksum);
    }
    let id = |at: usize| header[at..at + 16].try_into().expect("sixteen bytes");
    let owner = Owner {
        timeline: TenantTimelineId { tenant: TenantId(id(8)), timeline: TimelineId(id(24)) },
        term: Term(long(header, 40)),
        end: if long(header, 56) == 1 { End::Clean } else { End::Running },
    };
    let pages = pages.chunks_exact(PAGE_BYTES).enumerate();
    let pages = pages.map(|(number, bytes)| page(bytes).ok_or(Damaged::Page(number)));
    Ok((owner, pages.collect::<Result<_, _>>()?))
}

fn page(bytes: &[u8]) -> Option<KeptPage> {
    let tag = RelTag { tablespace: word(bytes, 0), database: word(bytes, 4), relation: word(bytes, 8) };
    Some(KeptPage {
        name: PageName {
            rel: tag.fork(ForkNumber::from_raw(bytes[28])?),
            block: BlockNumber(word(bytes, 12)),
        },
        checksum: word(bytes, 16),
        place: long(bytes, 20),
        uses: u32::from(bytes[29] & !IN_MAIN),
        in_main: bytes[29] & IN_MAIN != 0,
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(end: End) -> Owner {
        let timeline = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        Owner { timeline, term: Term(77), end }
    }

    fn page() -> impl Strategy<Value = KeptPage> {
        (any::<[u32; 5]>(), 0u8..4, any::<u64>(), 0u32..4, any::<bool>()).prop_map(
            |([tablespace, database, relation, block, checksum], fork, place, uses, in_main)| {
                let tag = RelTag { tablespace, database, relation };
                let rel = tag.fork(ForkNumber::from_raw(fork).expect("a fork"));
                KeptPage { name: PageName { rel, block: BlockNumber(block) }, place, checksum, uses, in_main }
            },
        )
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(pages in proptest::collection::vec(page(), 0..50), clean in any::<bool>()) {
            let owner = owner(if clean { End::Clean } else { End::Running });
            prop_assert_eq!(decode(&encode(owner, &pages)), Ok((owner, pages)));
        }

        /// Every flipped bit, every cut and every addition is noticed.
        #[test]
        fn damage_is_refused(pages in proptest::collection::vec(page(), 0..20), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let good = encode(owner(End::Clean), &pages);
            let mut flipped = good.clone();
            flipped[at.index(good.len())] ^= 1 << bit;
            prop_assert!(decode(&flipped).is_err());
            prop_assert!(decode(&good[..at.index(good.len())]).is_err());
            prop_assert!(decode(&[&good[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn the_layout_is_that_of_the_format_page() {
        let tag = RelTag { tablespace: 1663, database: 5, relation: 16384 };
        let name = PageName { rel: tag.fork(ForkNumber::VisibilityMap), block: BlockNumber(9) };
        let page = KeptPage { name, place: 0x0102_0304, checksum: 0xaabb_ccdd, uses: 3, in_main: true };
        let bytes = encode(owner(End::Clean), &[page]);
        assert_eq!(bytes.len(), 64 + 32 + 4);
        assert_eq!((pages_in(bytes.len()), pages_in(bytes.len() - 1), pages_in(0)), (1, 0, 0));
        assert_eq!(&bytes[..8], b"strlfc\0\x01");
        assert_eq!((bytes[40], bytes[48], bytes[56]), (77, 1, 1));
        let expected = [
            0x7f, 6, 0, 0, 5, 0, 0, 0, 0, 0x40, 0, 0, 9, 0, 0, 0, 0xdd, 0xcc, 0xbb, 0xaa, 4, 3, 2, 1, 0, 0,
            0, 0, 2, 0x83, 0, 0,
        ];
        assert_eq!(&bytes[64..96], &expected);
    }
}
