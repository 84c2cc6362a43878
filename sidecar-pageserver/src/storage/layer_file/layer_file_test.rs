//! Layer files against a plain map, with values over many blocks; broken and arbitrary bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use strata_common::{Generation, Lsn, TenantId, TenantTimelineId, TimelineId};

use super::{LayerFile, LayerWriter, WriterOptions};
use crate::core::collect::Collector;
use crate::core::key::{Key, KeyRange, Value};
use crate::core::layer::{LayerDesc, LayerKind, LayerName};
use crate::storage::cache::BlockCache;
use crate::storage::config::Compression;
use crate::storage::disk::{Disk, DiskReader, RealDisk};
use crate::storage::error::StorageError;

const BEGIN: u64 = 100;
const END: u64 = 200;

fn id() -> TenantTimelineId {
    TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) }
}

fn key(n: u8) -> Key {
    let mut key = Key([7; 18]);
    key.0[15] = n / 5;
    key.0[17] = n;
    key
}

fn name(kind: LayerKind) -> LayerName {
    let end = if kind == LayerKind::Image { BEGIN + 1 } else { END };
    LayerName { kind, begin: Lsn(BEGIN), end: Lsn(end), ordinal: 0, generation: Generation(1) }
}

fn options(dir: &std::path::Path, compression: Compression) -> WriterOptions {
    WriterOptions { disk: Arc::new(RealDisk), dir: dir.to_owned(), id: id(), compression }
}

/// By key and LSN, in the order of the puts.
type Model = BTreeMap<(Key, Lsn), Vec<Value>>;

fn write(dir: &std::path::Path, model: &Model, compression: Compression) -> LayerDesc {
    let mut writer = LayerWriter::create(options(dir, compression), name(LayerKind::Delta)).expect("creates");
    for ((key, lsn), values) in model {
        values.iter().for_each(|value| writer.add(*key, *lsn, value.as_ref()).expect("adds"));
    }
    writer.finish(None).expect("finishes")
}

fn open(dir: &std::path::Path, desc: &LayerDesc, cache: &Arc<BlockCache>) -> Result<LayerFile, StorageError> {
    LayerFile::open(&RealDisk, &dir.join(desc.name.to_string()), id(), &desc.name, cache)
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = prop_oneof![
        3 => (any::<u8>(), 0..40usize).prop_map(|(b, n)| Bytes::from(vec![b; n])),
        // Noise does not compress, and some of these make a key span several blocks.
        2 => prop::collection::vec(any::<u8>(), 1000..9000).prop_map(Bytes::from),
    ];
    (0..4u8, bytes).prop_map(|(kind, bytes)| match kind {
        0 => Value::Image(bytes),
        1 => Value::Change { bytes, will_init: true },
        _ => Value::Change { bytes, will_init: false },
    })
}

fn model() -> impl Strategy<Value = Model> {
    let entry = ((0..12u8, BEGIN..END), prop::collection::vec(value(), 1..3));
    prop::collection::vec(entry, 1..60)
        .prop_map(|entries| entries.into_iter().map(|((k, lsn), v)| ((key(k), Lsn(lsn)), v)).collect())
}

fn expected(model: &Model, key: Key, lsn: Lsn, above: Option<Lsn>) -> Collector {
    let mut collector = Collector::new(None);
    let from = above.map_or(Lsn(0), |above| above + 1);
    let all = model.range((key, from)..=(key, lsn)).flat_map(|((_, at), v)| v.iter().map(move |v| (*at, v)));
    for (at, value) in all.collect::<Vec<_>>().into_iter().rev() {
        if collector.push(at, value.clone()) == crate::core::collect::Progress::Done {
            break;
        }
    }
    collector
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_answers_as_a_map_does(model in model(), compressed: bool, cached: bool) {
        let dir = tempfile::tempdir().expect("temp dir");
        let compression = if compressed { Compression::Zstd } else { Compression::Off };
        let desc = write(dir.path(), &model, compression);
        let cache = Arc::new(BlockCache::new(if cached { 64 << 20 } else { 0 }));
        let layer = open(dir.path(), &desc, &cache).expect("opens");
        prop_assert_eq!(layer.keys(), desc.keys);
        for k in 0..13 {
            for lsn in (BEGIN - 1..=END).step_by(7) {
                for above in [None, Some(Lsn(lsn.saturating_sub(20)))] {
                    let mut collector = Collector::new(None);
                    let progress = layer.collect(key(k), Lsn(lsn), above, &mut collector).expect("reads");
                    let expected = expected(&model, key(k), Lsn(lsn), above.filter(|a| *a < Lsn(lsn)));
                    prop_assert_eq!(progress, expected.progress());
                    prop_assert_eq!(collector.finish(), expected.finish());
                }
            }
        }
        let keys = KeyRange { first: key(2), last: key(9) };
        let mut newest = Vec::new();
        layer.newest(keys, Lsn(150), |k, lsn, value| newest.push((k, lsn, value))).expect("reads");
        let mut wanted = BTreeMap::new();
        for ((k, lsn), values) in model.iter().filter(|((k, lsn), _)| keys.contains(*k) && *lsn <= Lsn(150)) {
            wanted.insert(*k, (*k, *lsn, values.last().expect("at least one").clone()));
        }
        prop_assert_eq!(newest, wanted.into_values().collect::<Vec<_>>());
    }

    /// PS-5: whatever byte is flipped, an answer is right or an error that names the file; never a panic.
    #[test]
    fn a_flipped_byte_is_never_believed(model in model(), at: prop::sample::Index, bit in 0..8u8) {
        let dir = tempfile::tempdir().expect("temp dir");
        let desc = write(dir.path(), &model, Compression::Zstd);
        let path = dir.path().join(desc.name.to_string());
        let mut bytes = std::fs::read(&path).expect("reads");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).expect("writes");
        let cache = Arc::new(BlockCache::new(0));
        let mut errors = 0;
        match open(dir.path(), &desc, &cache) {
            Err(e) => { prop_assert!(is_corrupt(&e, &desc), "{}", e); errors += 1; }
            Ok(layer) => for k in 0..13 {
                let mut collector = Collector::new(None);
                match layer.collect(key(k), Lsn(END), None, &mut collector) {
                    Ok(_) => prop_assert_eq!(collector.finish(), expected(&model, key(k), Lsn(END), None).finish()),
                    Err(e) => { prop_assert!(is_corrupt(&e, &desc), "{}", e); errors += 1; }
                }
            },
        }
        // A scan touches every block, so no flip stays unseen.
        if errors == 0 && let Ok(layer) = open(dir.path(), &desc, &cache) {
            let scanned = layer.newest(KeyRange::ALL, Lsn(END), |_, _, _| {});
            prop_assert!(scanned.is_err_and(|e| is_corrupt(&e, &desc)));
        }
    }

    /// Frames and footer are made right around arbitrary contents, so that the parsers behind the checksums are reached.
    #[test]
    fn arbitrary_contents_never_panic(
        block in prop::collection::vec(any::<u8>(), 0..300),
        index in prop::collection::vec(any::<u8>(), 0..120),
        honest_index: bool,
        bloom in prop::collection::vec(any::<u8>(), 0..20),
        blocks in 0..4u32,
        begin: u64,
    ) {
        let bytes = forged(&block, &index, honest_index, &bloom, blocks, begin);
        read_everything(bytes);
    }

    #[test]
    fn arbitrary_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_everything(bytes);
    }
}

fn is_corrupt(error: &StorageError, desc: &LayerDesc) -> bool {
    let text = error.to_string();
    matches!(error, StorageError::Corrupt { .. })
        && text.contains(&desc.name.to_string())
        && !text.contains('\n')
}

fn forged(block: &[u8], index: &[u8], honest: bool, bloom: &[u8], blocks: u32, begin: u64) -> Vec<u8> {
    use super::footer::{Extent, Footer};
    use super::frame;
    let mut file = super::MAGIC.to_vec();
    let add = |file: &mut Vec<u8>, number, raw: &[u8]| {
        let offset = file.len() as u64;
        frame::encode(number, raw, Compression::Zstd, file);
        Extent { offset, bytes: (file.len() as u64 - offset) as u32 }
    };
    let extent = add(&mut file, 0, block);
    let mut entry = Key::MIN.0.to_vec();
    entry.extend_from_slice(&0u64.to_le_bytes());
    entry.extend_from_slice(&extent.offset.to_le_bytes());
    entry.extend_from_slice(&extent.bytes.to_le_bytes());
    let (index, blocks) = if honest { (&entry[..], 1) } else { (index, blocks) };
    let index = add(&mut file, frame::INDEX_FRAME, index);
    let bloom = add(&mut file, frame::BLOOM_FRAME, bloom);
    let footer = Footer {
        id: id(),
        kind: LayerKind::Delta,
        begin: Lsn(begin),
        end: Lsn(u64::MAX),
        keys: KeyRange::ALL,
        blocks,
        values: 1,
        index,
        bloom,
    };
    file.extend_from_slice(&footer.encode());
    file
}

#[derive(Debug)]
struct InMemory(Vec<u8>);

impl DiskReader for InMemory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let from = usize::try_from(offset).map_err(std::io::Error::other)?;
        let bytes = self.0.get(from..from + buffer.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

fn read_everything(bytes: Vec<u8>) {
    let cache = Arc::new(BlockCache::new(0));
    let Ok(layer) = LayerFile::from_reader(Arc::new(InMemory(bytes)), "forged".into(), &cache) else {
        return;
    };
    for k in [Key::MIN, key(3), Key::MAX] {
        for lsn in [0, BEGIN, u64::MAX] {
            // Only that it comes back matters here.
            let _ = layer.collect(k, Lsn(lsn), None, &mut Collector::new(None));
        }
    }
    let _ = layer.newest(KeyRange::ALL, Lsn::MAX, |_, _, _| {});
}

#[test]
fn an_image_layer_wants_each_key_once_and_in_order() {
    let dir = tempfile::tempdir().expect("temp dir");
    let image = Value::Image(Bytes::from_static(b"x"));
    let mut writer =
        LayerWriter::create(options(dir.path(), Compression::Zstd), name(LayerKind::Image)).expect("creates");
    writer.add(key(3), Lsn(BEGIN), image.as_ref()).expect("adds");
    for wrong in [key(3), key(2)] {
        assert!(
            matches!(writer.add(wrong, Lsn(BEGIN), image.as_ref()), Err(StorageError::Unsorted(k)) if k == wrong)
        );
    }
    drop(writer);
    assert_eq!(RealDisk.list(dir.path()).expect("lists"), [], "an unfinished file is removed");
}

#[test]
fn a_file_of_another_timeline_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let model = Model::from([((key(1), Lsn(BEGIN)), vec![Value::Image(Bytes::from_static(b"x"))])]);
    let desc = write(dir.path(), &model, Compression::Zstd);
    let path = dir.path().join(desc.name.to_string());
    let other = TenantTimelineId { timeline: TimelineId([9; 16]), ..id() };
    let cache = Arc::new(BlockCache::new(0));
    let result = LayerFile::open(&RealDisk, &path, other, &desc.name, &cache);
    assert!(result.is_err_and(|e| e.to_string().contains("it belongs to another layer")));
}
