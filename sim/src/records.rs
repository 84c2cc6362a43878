//! The log of a simulation: records that know their length and are unique, so that lost or swapped ones are seen.
//!
//! A record: one byte, its whole length (a multiple of 8); seven bytes, a number no other record has; then filler.

/// Where the simulated timeline begins.
pub const LOG_START: u64 = 0x1000;

/// A record of `words` times eight bytes, `words` from 1 to 31.
pub fn record(number: u64, words: u64) -> Vec<u8> {
    assert!((1..=31).contains(&words), "a record has 1 to 31 words");
    let mut bytes = vec![(number % 251) as u8; words as usize * 8];
    bytes[..8].copy_from_slice(&((number << 8) | (words * 8)).to_le_bytes());
    bytes
}

/// Length of the whole records that `log` begins with; `log` begins at a record.
pub fn whole(log: &[u8]) -> usize {
    let mut end = 0;
    while let Some(&length) = log.get(end) {
        let next = end + usize::from(length);
        if length < 8 || next > log.len() {
            break;
        }
        end = next;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_count() {
        let mut log = record(1, 2);
        log.extend(record(2, 3));
        assert_eq!(whole(&log), 40);
        assert_eq!(whole(&log[..39]), 16);
        log.extend([0; 8]);
        assert_eq!(whole(&log), 40);
        assert_eq!(whole(&[]), 0);
    }
}
