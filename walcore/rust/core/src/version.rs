//! What differs between Postgres' majors, as data.

/// A supported major version of Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Major {
    /// PostgreSQL 15.
    V15 = 15,
    /// PostgreSQL 16.
    V16 = 16,
    /// PostgreSQL 17.
    V17 = 17,
    /// PostgreSQL 18.
    V18 = 18,
}

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];

    /// `xlp_magic` of its WAL pages.
    pub fn wal_magic(self) -> u16 {
        match self {
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// Version of its catalogs, part of the path of a tablespace's files.
    pub fn catalog_version(self) -> u32 {
        match self {
            Self::V15 => 202_209_061,
            Self::V16 => 202_307_071,
            Self::V17 => 202_406_281,
            Self::V18 => 202_506_291,
        }
    }

    /// Bytes of an item of dropped statistics in a transaction record: 18 made the object's id 64 bits wide.
    pub fn dropped_stats_len(self) -> usize {
        if self >= Self::V18 { 16 } else { 12 }
    }

    /// The major that writes WAL pages with this magic.
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.wal_magic() == magic)
    }

    /// The major with this number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| *m as u8 == n)
    }
}
