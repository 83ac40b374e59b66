//! What a value is kept under.

use std::fmt;

use crate::reader::Reader;
use crate::redo::{Slru, Target};
use crate::wal::{BlockTag, Fork, RelTag};

/// What kind of thing a key names. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A page of a relation.
    Page = 0x00,
    /// Size and existence of a relation's fork; block 0.
    Size = 0x01,
    /// A page of an SLRU; `rel` is the number of its [`Slru`], `blkno` the page.
    SlruPage = 0x10,
    /// Removal of pages of an SLRU; `rel` as above.
    SlruCut = 0x11,
    /// A relation map (`pg_filenode.map`) of a database, or the shared one.
    RelMap = 0x20,
    /// The state of a prepared transaction; `rel` is the xid, `blkno` the epoch.
    TwoPhase = 0x21,
    /// Counters, settings and replication origins.
    Control = 0x22,
    /// Existence of a database in a tablespace.
    Database = 0x24,
    /// Existence and path of a tablespace.
    Tablespace = 0x25,
}

impl Kind {
    fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            0x00 => Self::Page,
            0x01 => Self::Size,
            0x10 => Self::SlruPage,
            0x11 => Self::SlruCut,
            0x20 => Self::RelMap,
            0x21 => Self::TwoPhase,
            0x22 => Self::Control,
            0x24 => Self::Database,
            0x25 => Self::Tablespace,
            _ => return None,
        })
    }

    /// Whether values are pages, pointers into the WAL or records: things that redo turns into a page.
    pub fn is_page(self) -> bool {
        matches!(self, Self::Page | Self::SlruPage)
    }
}

/// A key. Ordered as its bytes are; pages of one fork lie side by side.
///
/// ```text
/// offset  0       1      2     6    10    14     15      19
///         | shard | kind | spc | db | rel | fork | blkno |
/// ```
///
/// Big-endian, so that bytes sort as keys do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which part of a sharded timeline; 0 in an unsharded one.
    pub shard: u8,
    /// What it names.
    pub kind: Kind,
    /// Tablespace.
    pub spc: u32,
    /// Database.
    pub db: u32,
    /// `relfilenode`, or what the kind says.
    pub rel: u32,
    /// Fork number.
    pub fork: u8,
    /// Block number, or what the kind says.
    pub blkno: u32,
}

impl Key {
    /// Length in bytes.
    pub const LEN: usize = 19;

    /// A page of a relation.
    pub fn page(tag: &BlockTag) -> Self {
        let RelTag { spc, db, rel } = tag.rel;
        Self { shard: 0, kind: Kind::Page, spc, db, rel, fork: tag.fork as u8, blkno: tag.blkno }
    }

    /// The size of a fork.
    pub fn size(rel: RelTag, fork: Fork) -> Self {
        let RelTag { spc, db, rel } = rel;
        Self { shard: 0, kind: Kind::Size, spc, db, rel, fork: fork as u8, blkno: 0 }
    }

    /// The size of a page's fork.
    #[must_use]
    pub fn size_key(&self) -> Self {
        Self { kind: Kind::Size, blkno: 0, ..*self }
    }

    /// A page of an SLRU.
    pub fn slru_page(slru: Slru, pageno: u32) -> Self {
        Self { shard: 0, kind: Kind::SlruPage, spc: 0, db: 0, rel: slru as u32, fork: 0, blkno: pageno }
    }

    /// Which pages of an SLRU are removed.
    pub fn slru_cut(slru: Slru) -> Self {
        Self { kind: Kind::SlruCut, ..Self::slru_page(slru, 0) }
    }

    /// A database's part in one tablespace: the relation map, or whether it exists.
    pub fn of_database(kind: Kind, spc: u32, db: u32) -> Self {
        Self { shard: 0, kind, spc, db, rel: 0, fork: 0, blkno: 0 }
    }

    /// A tablespace.
    pub fn tablespace(spc: u32) -> Self {
        Self::of_database(Kind::Tablespace, spc, 0)
    }

    /// A prepared transaction, by its full id.
    pub fn two_phase(xid: u64) -> Self {
        Self { rel: xid as u32, blkno: (xid >> 32) as u32, ..Self::of_database(Kind::TwoPhase, 0, 0) }
    }

    /// The full id of a prepared transaction.
    pub fn full_xid(&self) -> u64 {
        u64::from(self.blkno) << 32 | u64::from(self.rel)
    }

    /// Counters, settings and replication origins.
    pub fn control() -> Self {
        Self::of_database(Kind::Control, 0, 0)
    }

    /// The page that redo rebuilds under this key; `None` if it is no page.
    pub fn target(&self) -> Option<Target> {
        match self.kind {
            Kind::Page => {
                let fork = Fork::from_number(self.fork)?;
                Some(Target::Block(BlockTag { rel: self.rel_tag(), fork, blkno: self.blkno }))
            }
            Kind::SlruPage => {
                let kind = Slru::ALL.into_iter().find(|slru| *slru as u32 == self.rel)?;
                Some(Target::Slru { kind, pageno: self.blkno.into() })
            }
            _ => None,
        }
    }

    /// The relation of a page or size.
    pub fn rel_tag(&self) -> RelTag {
        RelTag { spc: self.spc, db: self.db, rel: self.rel }
    }

    /// As stored.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let fields: [&[u8]; 7] = [
            &[self.shard],
            &[self.kind as u8],
            &self.spc.to_be_bytes(),
            &self.db.to_be_bytes(),
            &self.rel.to_be_bytes(),
            &[self.fork],
            &self.blkno.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// From its stored form; `None` if the kind is not known.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let mut r = Reader(bytes);
        let shard = r.u8()?;
        let kind = Kind::from_number(r.u8()?)?;
        let mut field = || r.array().map(u32::from_be_bytes);
        let (spc, db, rel) = (field()?, field()?, field()?);
        let fork = r.u8()?;
        let blkno = r.array().map(u32::from_be_bytes)?;
        Some(Self { shard, kind, spc, db, rel, fork, blkno })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spc, db, rel, fork, blkno, .. } = self;
        match self.kind {
            Kind::Page => write!(f, "{spc}/{db}/{rel} fork={fork} blk={blkno}"),
            Kind::Size => write!(f, "{spc}/{db}/{rel} fork={fork}"),
            kind => write!(f, "{kind:?} {spc}/{db}/{rel} fork={fork} blk={blkno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_bytes_do_and_come_back() {
        let mut keys = Vec::new();
        for kind in [Kind::Page, Kind::Size, Kind::SlruPage, Kind::Tablespace] {
            for spc in [0, 1663, u32::MAX] {
                for (db, rel) in [(0, 5), (1, 0), (256, 255)] {
                    for (fork, blkno) in [(0, 0), (0, 256), (2, 1), (3, u32::MAX)] {
                        keys.push(Key { shard: 0, kind, spc, db, rel, fork, blkno });
                    }
                }
            }
        }
        let mut by_bytes = keys.clone();
        by_bytes.sort_by_key(Key::encode);
        keys.sort();
        assert_eq!(keys, by_bytes);
        for key in keys {
            assert_eq!(Key::decode(&key.encode()), Some(key));
        }
    }
}
