//! Random records for property tests: all kinds of headers, sizes around the limits of the short and long forms.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use strata_common::{BLOCK_BYTES, BlockNumber, ForkNumber, RelTag, SystemId};

use crate::record::{BlockImage, ImageCompression};
use crate::segment::SegmentBytes;
use crate::write::{BlockSpec, LogIdentity, RecordSpec};

/// A log with the smallest segments, so that tests cross many of them.
pub const LOG: LogIdentity =
    LogIdentity { timeline: 1, system_id: SystemId(0x1234_5678), segment_bytes: SegmentBytes::MIN };

fn filler(length: usize) -> Bytes {
    (0..length).map(|at| at as u8 ^ length as u8).collect()
}

fn image() -> impl Strategy<Value = BlockImage> {
    let method = prop::sample::select(vec![
        ImageCompression::None,
        ImageCompression::Pglz,
        ImageCompression::Lz4,
        ImageCompression::Zstd,
    ]);
    (any::<bool>(), method, option::of((1u16..8191, 1u16..8191)), 1usize..8191).prop_map(
        |(apply, compression, hole, compressed_bytes)| {
            let (hole_offset, hole_length) = match hole {
                Some((offset, length)) => (offset, length.min(BLOCK_BYTES as u16 - offset)),
                None => (0, 0),
            };
            let length = match compression {
                ImageCompression::None => BLOCK_BYTES - usize::from(hole_length),
                _ => compressed_bytes,
            };
            BlockImage { apply, hole_offset, hole_length, compression, bytes: filler(length) }
        },
    )
}

fn block() -> impl Strategy<Value = BlockSpec> {
    let fork = prop::sample::select(ForkNumber::ALL.to_vec());
    (0u32..3, fork, any::<u32>(), any::<bool>(), option::weighted(0.3, image()), 0usize..300).prop_map(
        |(relation, fork, block, will_init, image, data)| BlockSpec {
            id: 0,
            rel: RelTag { tablespace: 1663, database: 5, relation: 16384 + relation }.fork(fork),
            block: BlockNumber(block),
            will_init,
            image,
            data: filler(data),
        },
    )
}

fn blocks() -> impl Strategy<Value = Vec<BlockSpec>> {
    vec((1u8..4, block()), 0..5).prop_map(|blocks| {
        let mut next_id = 0;
        let numbered = blocks.into_iter().map(|(step, block)| {
            next_id += step;
            BlockSpec { id: next_id - 1, ..block }
        });
        numbered.collect()
    })
}

/// Any record but a switch or OVERWRITE_CONTRECORD, which the stream treats in ways of their own.
pub fn record() -> impl Strategy<Value = RecordSpec> {
    let main_bytes = prop_oneof![Just(0usize), 1usize..64, 250usize..262, 1000usize..30_000];
    (
        1u8..=21,
        any::<u8>(),
        any::<u32>(),
        option::of(any::<u16>()),
        option::of(any::<u32>()),
        blocks(),
        main_bytes,
    )
        .prop_map(|(rmid, info, xid, origin, toplevel_xid, blocks, main_bytes)| RecordSpec {
            rmid,
            info,
            xid,
            origin,
            toplevel_xid,
            blocks,
            main_data: filler(main_bytes),
        })
}
