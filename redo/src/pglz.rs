//! Decompression of Postgres's own LZ format, which full-page images may use.
//!
//! The format (`src/common/pg_lzcompress.c`): a control byte, then eight items, of which item i is a literal byte if bit i is
//! clear, else a match of two or three bytes: low nibble of the first = length - 3, its high nibble and the second
//! byte = distance back; length nibble 15 is followed by a byte that adds to the length. Output beyond the wanted size
//! is cut off, as Postgres does.

/// Fills `out` from `bytes`; false if they do not end together or a match points before the start.
pub fn decompress(bytes: &[u8], out: &mut [u8]) -> bool {
    let mut input = bytes.iter().copied();
    let mut at = 0;
    while at < out.len() {
        let Some(mut control) = input.next() else { return false };
        for _ in 0..8 {
            if at == out.len() || input.len() == 0 {
                break;
            }
            let step =
                if control & 1 == 0 { literal(&mut input, out, at) } else { copy(&mut input, out, at) };
            let Some(written) = step else { return false };
            at += written;
            control >>= 1;
        }
    }
    input.len() == 0
}

fn literal(input: &mut impl Iterator<Item = u8>, out: &mut [u8], at: usize) -> Option<usize> {
    out[at] = input.next()?;
    Some(1)
}

/// Copies a match and returns its length.
fn copy(input: &mut impl Iterator<Item = u8>, out: &mut [u8], at: usize) -> Option<usize> {
    let first = usize::from(input.next()?);
    let second = usize::from(input.next()?);
    let mut length = (first & 0x0f) + 3;
    if length == 18 {
        length += usize::from(input.next()?);
    }
    let distance = (first & 0xf0) << 4 | second;
    if distance == 0 || distance > at {
        return None;
    }
    let length = length.min(out.len() - at);
    if distance >= length {
        out.copy_within(at - distance..at - distance + length, at);
    } else {
        for i in at..at + length {
            out[i] = out[i - distance];
        }
    }
    Some(length)
}

#[cfg(test)]
#[path = "pglz_test.rs"]
mod tests;
