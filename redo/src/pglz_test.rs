//! Decompression of hand-made streams, of what a simple compressor makes, and of garbage.

use proptest::prelude::*;

use super::decompress;

fn out(bytes: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; wanted];
    decompress(bytes, &mut out).then_some(out)
}

#[test]
fn literals_and_matches() {
    assert_eq!(out(&[0, b'a', b'b', b'c'], 3), Some(b"abc".to_vec()));
    // The example of pg_lzcompress.c: 11234, then a match of 16 at distance 4.
    let example = [0b0010_0000, b'1', b'1', b'2', b'3', b'4', 13, 4];
    assert_eq!(out(&example, 21), Some(b"112341234123412341234".to_vec()));
    // Distance 1 repeats a byte; the extension byte makes 18 + 40.
    assert_eq!(out(&[0b10, b'x', 0x0f, 1, 40], 59), Some(vec![b'x'; 59]));
    // A high nibble of the first byte is the distance's bits 8 to 11.
    let mut far = Vec::new();
    for chunk in (0..=255u8).chain(0..=15).collect::<Vec<_>>().chunks(8) {
        far.push(0);
        far.extend(chunk);
    }
    far.extend([1, 0x10, 0x10]);
    assert_eq!(out(&far, 275).map(|out| out[272..].to_vec()), Some(vec![0, 1, 2]));
}

#[test]
fn a_match_is_cut_at_the_end_of_the_output() {
    assert_eq!(out(&[0b10, b'x', 0x0f, 1, 40], 10), Some(vec![b'x'; 10]));
}

#[test]
fn broken_input_is_refused() {
    // A literal and matches with and without an extension byte, cut anywhere.
    let whole = [0b110, b'x', 0x0f, 1, 40, 0x03, 2];
    assert!(out(&whole, 65).is_some());
    for bytes in 0..whole.len() {
        assert_eq!(out(&whole[..bytes], 65), None, "cut to {bytes} bytes");
    }
    assert_eq!(out(&[0, b'a'], 2), None, "ends early");
    assert_eq!(out(&[0, b'a', b'b', b'c'], 2), None, "goes on after the end");
    assert_eq!(out(&[0b10, b'a', 0x03, 0], 7), None, "distance 0");
    assert_eq!(out(&[0b10, b'a', 0x03, 2], 7), None, "distance before the start");
    assert_eq!(out(&[0b10, b'a', 0x03], 7), None, "half a match");
    assert_eq!(out(&[0b10, b'a', 0x0f, 1], 30), None, "no extension byte");
    assert_eq!(out(&[], 1), None);
    assert_eq!(out(&[], 0), Some(vec![]));
}

/// Greedy and slow, but of the same format.
fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let control_at = out.len();
        out.push(0);
        for bit in 0..8 {
            if at == data.len() {
                break;
            }
            let longest = (1..=at.min(4095)).map(|distance| {
                let length = (0..273)
                    .take_while(|i| data.get(at + i) == data.get(at + i - distance) && at + i < data.len());
                (length.count(), distance)
            });
            match longest.max() {
                Some((length, distance)) if length >= 3 => {
                    out[control_at] |= 1 << bit;
                    let high = (distance >> 4 & 0xf0) as u8;
                    out.push(high | (length - 3).min(15) as u8);
                    out.push(distance as u8);
                    if length >= 18 {
                        out.push((length - 18) as u8);
                    }
                    at += length;
                }
                _ => {
                    out.push(data[at]);
                    at += 1;
                }
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn what_was_compressed_comes_back(data in proptest::collection::vec(0u8..4, 1..600)) {
        prop_assert_eq!(out(&compress(&data), data.len()), Some(data));
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), wanted in 0usize..300) {
        let _ = out(&bytes, wanted);
    }
}
