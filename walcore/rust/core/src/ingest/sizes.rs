//! How many blocks every fork has, and where their history begins.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::Lsn;
use crate::layer::{FieldHasher, Key, LayerError, Size, Value};
use crate::reader::Reader;
use crate::wal::{Fork, RelTag};

/// First bytes of a stored size state.
const MAGIC: [u8; 8] = *b"PGSSIZES";
/// The version written and read here.
const VERSION: u32 = 1;

/// A fork, and what the floors of its blocks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Extent {
    blocks: u32,
    /// Times when the fork was cut, or began to exist, and how many blocks it had then. Both ascend: a cut to fewer
    /// blocks makes older ones with as many or more meaningless.
    floors: Vec<(Lsn, u32)>,
}

impl Extent {
    fn size(&self) -> Size {
        let (floor_lsn, floor_blocks) = self.floors.last().copied().unwrap_or_default();
        Size { blocks: self.blocks, floor_lsn, floor_blocks }
    }

    /// Blocks from `blocks` on have no history at or below `lsn`. Returns the size as of `lsn`, with the floor before.
    fn cut(&mut self, blocks: u32, lsn: Lsn) -> Size {
        while self.floors.last().is_some_and(|(_, kept)| *kept >= blocks) {
            self.floors.pop();
        }
        self.blocks = self.blocks.min(blocks);
        let size = self.size();
        self.floors.push((lsn, blocks));
        size
    }
}

/// The size state of a timeline at one LSN.
///
/// Every method that changes it appends what the index must keep: (key, LSN, value).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    forks: HashMap<(RelTag, Fork), Extent, BuildHasherDefault<FieldHasher>>,
}

/// What a change adds to the index.
pub type Changes = Vec<(Key, Lsn, Value<'static>)>;

impl Sizes {
    /// A fork of the base.
    pub fn insert(&mut self, rel: RelTag, fork: Fork, blocks: u32) {
        self.forks.insert((rel, fork), Extent { blocks, floors: Vec::new() });
    }

    /// Blocks of a fork; `None` if it does not exist.
    pub fn get(&self, rel: RelTag, fork: Fork) -> Option<u32> {
        self.forks.get(&(rel, fork)).map(|extent| extent.blocks)
    }

    /// Number of forks.
    pub fn len(&self) -> usize {
        self.forks.len()
    }

    /// Whether no fork exists.
    pub fn is_empty(&self) -> bool {
        self.forks.is_empty()
    }

    /// A record that starts at `start` and ends at `end` makes block `blkno` part of a fork.
    pub fn extend(
        &mut self,
        rel: RelTag,
        fork: Fork,
        blkno: u32,
        start: Lsn,
        end: Lsn,
        changes: &mut Changes,
    ) {
        let blocks = blkno.saturating_add(1);
        let extent = self.forks.entry((rel, fork)).or_insert_with(|| {
            // Made without a word: whatever the index has of this name is of an older relation.
            Extent { blocks: 0, floors: vec![(start, 0)] }
        });
        if extent.blocks < blocks {
            extent.blocks = blocks;
            changes.push((Key::size(rel, fork), end, Value::Size(extent.size())));
        }
    }

    /// A fork begins to exist, unless it does.
    pub fn create(&mut self, rel: RelTag, fork: Fork, lsn: Lsn, changes: &mut Changes) {
        self.forks.entry((rel, fork)).or_insert_with(|| {
            let extent = Extent { blocks: 0, floors: vec![(lsn, 0)] };
            changes.push((Key::size(rel, fork), lsn, Value::Size(extent.size())));
            extent
        });
    }

    /// A fork has at most so many blocks.
    pub fn truncate(&mut self, rel: RelTag, fork: Fork, blocks: u32, lsn: Lsn, changes: &mut Changes) {
        if let Some(extent) = self.forks.get_mut(&(rel, fork)) {
            // Also if it is not longer: a base backup may have seen it after the cut, and WAL from before the cut
            // may have touched blocks that the base has not.
            changes.push((Key::size(rel, fork), lsn, Value::Size(extent.cut(blocks, lsn))));
        }
    }

    /// All forks of a relation are gone.
    pub fn drop_relation(&mut self, rel: RelTag, lsn: Lsn, changes: &mut Changes) {
        for fork in [Fork::Main, Fork::Vm, Fork::Init] {
            if self.forks.remove(&(rel, fork)).is_some() {
                changes.push((Key::size(rel, fork), lsn, Value::Tombstone));
            }
        }
    }

    /// A database's part in one tablespace is gone.
    pub fn drop_database(&mut self, spc: u32, db: u32, lsn: Lsn, changes: &mut Changes) {
        self.forks.retain(|(rel, fork), _| {
            let stays = (rel.spc, rel.db) != (spc, db);
            if !stays {
                changes.push((Key::size(*rel, *fork), lsn, Value::Tombstone));
            }
            stays
        });
    }

    /// A database's part in one tablespace becomes a copy of another's; (tablespace, database) each.
    pub fn copy_database(&mut self, from: (u32, u32), to: (u32, u32), lsn: Lsn, changes: &mut Changes) {
        let mut copies = Vec::new();
        for ((rel, fork), extent) in &self.forks {
            if (rel.spc, rel.db) == from {
                let copy = RelTag { spc: to.0, db: to.1, rel: rel.rel };
                copies.push(((copy, *fork), extent.blocks));
            }
        }
        let mut dropped = Vec::new();
        self.drop_database(to.0, to.1, lsn, &mut dropped);
        for ((rel, fork), blocks) in copies {
            self.forks.insert((rel, fork), Extent { blocks, floors: vec![(lsn, 0)] });
            changes.push((Key::size(rel, fork), lsn, Value::Copied { blocks, spc: from.0, db: from.1 }));
        }
        dropped.retain(|(key, ..)| !self.forks.contains_key(&(key.rel_tag(), fork_of(key))));
        changes.append(&mut dropped);
    }

    /// The state in bytes.
    ///
    /// ```text
    /// | magic 8 | version u32 | forks u64 | fork | … | crc u32 |
    ///
    /// fork:  | spc u32 | db u32 | rel u32 | fork u8 | blocks u32 | floors u32 | lsn u64, blocks u32 | … |
    /// ```
    ///
    /// Little-endian; forks ascend; the CRC-32C is of everything before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.forks.len() as u64).to_le_bytes());
        let mut forks: Vec<_> = self.forks.iter().collect();
        forks.sort_unstable_by_key(|(name, _)| **name);
        for ((rel, fork), extent) in forks {
            for field in [rel.spc, rel.db, rel.rel] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            out.push(*fork as u8);
            out.extend_from_slice(&extent.blocks.to_le_bytes());
            out.extend_from_slice(&(extent.floors.len() as u32).to_le_bytes());
            for (lsn, blocks) in &extent.floors {
                out.extend_from_slice(&lsn.0.to_le_bytes());
                out.extend_from_slice(&blocks.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The state from its bytes.
    ///
    /// # Errors
    /// `Truncated`, `Unknown`, `Checksum` or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        let what = "size state";
        let (body, stored) = bytes
            .split_last_chunk::<4>()
            .ok_or(LayerError::Truncated { what, offset: bytes.len() as u64 })?;
        let mut r = Reader(body);
        let magic = r.array().ok_or(LayerError::Truncated { what, offset: 0 })?;
        if magic != MAGIC {
            return Err(LayerError::Unknown { field: "magic", value: u64::from_le_bytes(magic) });
        }
        let (stored, found) = (u32::from_le_bytes(*stored), crc32c::crc32c(body));
        if stored != found {
            return Err(LayerError::Checksum { what, offset: 0, stored, found });
        }
        match r.u32() {
            Some(VERSION) => Self::read(r).ok_or(LayerError::Malformed { what, offset: 0 }),
            version => {
                Err(LayerError::Unknown { field: "version", value: version.unwrap_or_default().into() })
            }
        }
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        let mut sizes = Self::default();
        for _ in 0..r.u64()? {
            let rel = RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? };
            let fork = Fork::from_number(r.u8()?)?;
            let mut extent = Extent { blocks: r.u32()?, floors: Vec::new() };
            for _ in 0..r.u32()? {
                extent.floors.push((Lsn(r.u64()?), r.u32()?));
            }
            sizes.forks.insert((rel, fork), extent);
        }
        (r.left() == 0).then_some(sizes)
    }
}

fn fork_of(key: &Key) -> Fork {
    Fork::from_number(key.fork).unwrap_or(Fork::Main)
}
