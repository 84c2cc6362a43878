//! Transaction ids with their epoch, and the order of 32-bit ids (`src/include/access/transam.h`, `varsup.c`).

use std::fmt;

/// Lowest id of a normal transaction (`FirstNormalTransactionId`); 0 is invalid, 1 is bootstrap, 2 is frozen.
pub const FIRST_NORMAL_XID: u32 = 3;

/// A transaction id that never wraps: the epoch in the high half, the 32-bit id in the low half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FullTransactionId(pub u64);

impl FullTransactionId {
    pub fn new(epoch: u32, xid: u32) -> FullTransactionId {
        FullTransactionId((u64::from(epoch) << 32) | u64::from(xid))
    }

    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn xid(self) -> u32 {
        self.0 as u32
    }

    /// What the next free id is after `xid` was seen in the log, if this was it before
    /// (`AdvanceNextFullTransactionIdPastXid`).
    pub fn advanced_past(self, xid: u32) -> FullTransactionId {
        if xid < FIRST_NORMAL_XID || xid_precedes(xid, self.xid()) {
            return self;
        }
        let next = next_xid(xid);
        let epoch = self.epoch() + u32::from(next < self.xid());
        FullTransactionId::new(epoch, next)
    }

    /// The full id of `xid`, which is before this next free id and at most 2^31 away
    /// (`FullTransactionIdFromAllowableAt` of later versions, `AdjustToFullTransactionId` of twophase.c).
    pub fn full_id_of_earlier(self, xid: u32) -> FullTransactionId {
        let epoch = if xid > self.xid() { self.epoch().wrapping_sub(1) } else { self.epoch() };
        FullTransactionId::new(epoch, xid)
    }
}

impl fmt::Display for FullTransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.xid())
    }
}

/// The id after `xid`, leaving out the special ones (`TransactionIdAdvance`).
pub fn next_xid(xid: u32) -> u32 {
    xid.wrapping_add(1).max(FIRST_NORMAL_XID)
}

/// Whether `a` is before `b` (`TransactionIdPrecedes`): normal ids are compared modulo 2^32, special ones as numbers.
#[inline]
pub fn xid_precedes(a: u32, b: u32) -> bool {
    if a < FIRST_NORMAL_XID || b < FIRST_NORMAL_XID {
        return a < b;
    }
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether multixact id or offset `a` is before `b` (`MultiXactIdPrecedes`): always modulo 2^32.
pub fn multixact_precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_id_moves_past_what_was_seen() {
        let next = FullTransactionId::new(0, 700);
        assert_eq!(next.advanced_past(699), next);
        assert_eq!(next.advanced_past(0), next);
        assert_eq!(next.advanced_past(700), FullTransactionId::new(0, 701));
        assert_eq!(next.advanced_past(900), FullTransactionId::new(0, 901));
    }

    #[test]
    fn epoch_grows_at_the_wrap_and_special_ids_are_left_out() {
        let next = FullTransactionId::new(3, u32::MAX - 1);
        assert_eq!(next.advanced_past(u32::MAX), FullTransactionId::new(4, FIRST_NORMAL_XID));
        assert_eq!(next.advanced_past(10), FullTransactionId::new(4, 11));
        assert_eq!(next.advanced_past(u32::MAX - 2), next);
        assert_eq!(
            FullTransactionId::new(4, 10).full_id_of_earlier(u32::MAX),
            FullTransactionId::new(3, u32::MAX)
        );
        assert_eq!(FullTransactionId::new(4, 10).full_id_of_earlier(9), FullTransactionId::new(4, 9));
    }

    #[test]
    fn order_is_modulo_the_wrap_for_normal_ids_only() {
        assert!(xid_precedes(u32::MAX, 5));
        assert!(!xid_precedes(5, u32::MAX));
        assert!(xid_precedes(2, u32::MAX));
        assert!(multixact_precedes(u32::MAX, 0));
    }
}
