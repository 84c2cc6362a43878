//! Images with holes and compression, and what is set on the restored page (W15).

use bytes::Bytes;

use super::*;

fn sample() -> Page {
    let mut page = [0; BLOCK_BYTES];
    page::init(&mut page, 16);
    page::set_lsn(&mut page, Lsn(7));
    page[24..100].fill(0xaa);
    page[8000..].fill(0xbb);
    page
}

fn without_hole(page: &Page, hole: std::ops::Range<usize>) -> Vec<u8> {
    [&page[..hole.start], &page[hole.end..]].concat()
}

fn pglz_literals(data: &[u8]) -> Vec<u8> {
    data.chunks(8).flat_map(|chunk| [&[0], chunk].concat()).collect()
}

fn view(compression: ImageCompression, bytes: &[u8], hole: std::ops::Range<usize>) -> ImageView<'_> {
    ImageView { hole_offset: hole.start as u16, hole_length: hole.len() as u16, compression, bytes }
}

#[test]
fn every_compression_restores_the_page_with_the_records_end_as_lsn() {
    let mut expected = sample();
    page::set_lsn(&mut expected, Lsn(0x5_0000_0100));
    for hole in [100..8000, 0..0, 24..25] {
        let plain = without_hole(&sample(), hole.clone());
        if hole.len() == 1 {
            expected[24] = 0;
        } else {
            expected[24] = 0xaa;
        }
        let compressed = [
            (ImageCompression::None, plain.clone()),
            (ImageCompression::Pglz, pglz_literals(&plain)),
            (ImageCompression::Lz4, lz4_flex::block::compress(&plain)),
            (ImageCompression::Zstd, zstd::bulk::compress(&plain, 3).unwrap()),
        ];
        for (compression, bytes) in compressed {
            let image = view(compression, &bytes, hole.clone());
            let mut page = [0x55; BLOCK_BYTES];
            image.restore(&mut page, Lsn(0x5_0000_0100)).unwrap();
            assert!(page == expected, "{compression:?} with hole {hole:?}");
            assert_eq!(image.to_page(Lsn(0x5_0000_0100)).unwrap(), Bytes::copy_from_slice(&expected));
        }
    }
}

#[test]
fn a_page_of_zeros_stays_zero() {
    let mut page = [0x55; BLOCK_BYTES];
    view(ImageCompression::None, &[], 0..BLOCK_BYTES).restore(&mut page, Lsn(100)).unwrap();
    assert_eq!(page, [0; BLOCK_BYTES]);
    let zeros = [0; BLOCK_BYTES];
    for (bytes, hole) in [(&[][..], 0..BLOCK_BYTES), (&zeros, 0..0), (&zeros[..100], 100..BLOCK_BYTES)] {
        assert_eq!(view(ImageCompression::None, bytes, hole).to_page(Lsn(100)).unwrap(), zeros[..]);
    }
}

#[test]
fn trap_w15_an_image_is_the_page_as_of_the_records_end() {
    let hole = 100..8000;
    let bytes = without_hole(&sample(), hole.clone());
    let restored = |before: u8| {
        let mut page = [before; BLOCK_BYTES];
        view(ImageCompression::None, &bytes, hole.clone()).restore(&mut page, Lsn(100)).unwrap();
        page
    };
    Guard::ImageLsn.is_needed_for(|| page::lsn(&restored(0)) == Lsn(100));
    // What lay there before does not shine through.
    Guard::ImageHole.is_needed_for(|| restored(0x55)[hole.clone()].iter().all(|byte| *byte == 0));
    Guard::ImageOfZeros.is_needed_for(|| {
        let mut page = [0x55; BLOCK_BYTES];
        view(ImageCompression::None, &[], 0..BLOCK_BYTES).restore(&mut page, Lsn(100)).unwrap();
        page == [0; BLOCK_BYTES]
    });
}

#[test]
fn broken_images_are_refused() {
    let mut page = [0; BLOCK_BYTES];
    let short = vec![0; 8000];
    let mut restore = |image: ImageView<'_>| image.restore(&mut page, Lsn(1)).unwrap_err();
    let error = restore(view(ImageCompression::None, &short, 0..0));
    assert_eq!(error, ImageError::Length { bytes: 8000, expected: 8192 });
    let error = restore(view(ImageCompression::None, &short, 8100..8300));
    assert_eq!(error, ImageError::Hole { hole_offset: 8100, hole_length: 200 });
    for (compression, method) in
        [(ImageCompression::Pglz, "pglz"), (ImageCompression::Lz4, "lz4"), (ImageCompression::Zstd, "zstd")]
    {
        assert_eq!(restore(view(compression, &[1, 2, 3], 0..0)), ImageError::Decompress { method });
    }
    // Whole, but shorter or longer than the page.
    for bytes in [8191, 8193] {
        let data = vec![3; bytes];
        let lz4 = lz4_flex::block::compress(&data);
        assert_eq!(
            restore(view(ImageCompression::Lz4, &lz4, 0..0)),
            ImageError::Decompress { method: "lz4" }
        );
        let zstd = zstd::bulk::compress(&data, 3).unwrap();
        let error = restore(view(ImageCompression::Zstd, &zstd, 0..0));
        assert_eq!(error, ImageError::Decompress { method: "zstd" });
    }
}
