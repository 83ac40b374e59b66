//! What redo can rebuild: pages of relations and of SLRUs.

use std::fmt;

use crate::wal::BlockTag;

/// A log of small entries by transaction or multixact, in pages without header or LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slru {
    /// `pg_xact`: two bits a transaction.
    Clog = 0,
    /// `pg_multixact/offsets`.
    MultiOffsets = 1,
    /// `pg_multixact/members`.
    MultiMembers = 2,
    /// `pg_commit_ts`.
    CommitTs = 3,
}

impl Slru {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Clog, Self::MultiOffsets, Self::MultiMembers, Self::CommitTs];

    /// Its directory in the data directory.
    pub fn dir(self) -> &'static str {
        match self {
            Self::Clog => "pg_xact",
            Self::MultiOffsets => "pg_multixact/offsets",
            Self::MultiMembers => "pg_multixact/members",
            Self::CommitTs => "pg_commit_ts",
        }
    }

    /// The one that lives in this directory.
    pub fn from_dir(dir: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.dir() == dir)
    }
}

/// One page that redo can rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A page of a relation.
    Block(BlockTag),
    /// A page of an SLRU.
    Slru {
        /// Which.
        kind: Slru,
        /// Page number; 32 of them are a file.
        pageno: u64,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(tag) => write!(f, "{tag}"),
            Self::Slru { kind, pageno } => write!(f, "{} page={pageno}", kind.dir()),
        }
    }
}
