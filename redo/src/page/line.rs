//! Line pointers (`ItemIdData` in `src/include/storage/itemid.h`): 15 bits of offset, 2 of state, 15 of length.

/// What a line pointer says is there (`lp_flags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineState {
    Unused,
    Normal,
    Redirect,
    Dead,
}

/// A line pointer as it lies in the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinePointer(pub u32);

impl LinePointer {
    pub const UNUSED: LinePointer = LinePointer(0);
    /// Dead without storage (`ItemIdSetDead`).
    pub const DEAD: LinePointer = LinePointer(3 << 15);

    const AT_BITS: u32 = 0x7fff;

    /// `ItemIdSetNormal`. Both numbers are below 32,768.
    #[inline]
    pub fn normal(at: u16, length: u16) -> LinePointer {
        debug_assert!(at < 1 << 15 && length < 1 << 15);
        LinePointer(u32::from(at) | 1 << 15 | u32::from(length) << 17)
    }

    /// `ItemIdSetRedirect`: to another line pointer of the page.
    #[inline]
    pub fn redirect(to: u16) -> LinePointer {
        LinePointer(u32::from(to) & Self::AT_BITS | 2 << 15)
    }

    #[inline]
    pub fn state(self) -> LineState {
        match self.0 >> 15 & 3 {
            0 => LineState::Unused,
            1 => LineState::Normal,
            2 => LineState::Redirect,
            _ => LineState::Dead,
        }
    }

    /// Offset of the item in the page, or the target of a redirect (`lp_off`).
    #[inline]
    pub fn at(self) -> u16 {
        (self.0 & Self::AT_BITS) as u16
    }

    /// Bytes of the item (`lp_len`).
    #[inline]
    pub fn length(self) -> u16 {
        (self.0 >> 17) as u16
    }

    /// `ItemIdIsUsed`.
    #[inline]
    pub fn is_used(self) -> bool {
        self.0 >> 15 & 3 != 0
    }

    /// `ItemIdHasStorage`.
    #[inline]
    pub fn has_storage(self) -> bool {
        self.length() != 0
    }

    /// The same with another offset.
    #[inline]
    pub fn with_at(self, at: u16) -> LinePointer {
        LinePointer(self.0 & !Self::AT_BITS | u32::from(at) & Self::AT_BITS)
    }

    /// The same with another length.
    #[inline]
    pub fn with_length(self, length: u16) -> LinePointer {
        LinePointer(self.0 & 0x1_ffff | u32::from(length) << 17)
    }

    /// The same with another state (btree marks items dead in place, `ItemIdMarkDead`).
    #[inline]
    pub fn with_state(self, state: LineState) -> LinePointer {
        LinePointer(self.0 & !(3 << 15) | (state as u32) << 15)
    }
}
