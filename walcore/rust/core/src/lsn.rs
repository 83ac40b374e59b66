//! A position in the WAL.

use std::fmt;

/// A position in the WAL, in bytes since its start. Prints as Postgres prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Zero: never a position.
    pub const INVALID: Self = Self(0);

    /// Whether this is a position at all.
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Rounds up to the alignment of WAL records and tuples (`MAXALIGN`, 8 bytes).
pub const fn maxalign(n: u64) -> u64 {
    n.div_ceil(8) * 8
}
