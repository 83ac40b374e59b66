//! A record's reference to a page.

use std::fmt;

use super::Image;

/// Which file of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fork {
    /// The relation itself.
    Main = 0,
    /// The free space map: advisory, never stored by us.
    Fsm = 1,
    /// The visibility map.
    Vm = 2,
    /// The empty state of an unlogged relation.
    Init = 3,
}

impl Fork {
    /// The fork with this number in the WAL.
    pub fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Main,
            1 => Self::Fsm,
            2 => Self::Vm,
            3 => Self::Init,
            _ => return None,
        })
    }

    /// The name that Postgres prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Fsm => "fsm",
            Self::Vm => "vm",
            Self::Init => "init",
        }
    }
}

/// A relation's physical identity (`RelFileLocator`; `RelFileNode` before 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelTag {
    /// Tablespace.
    pub spc: u32,
    /// Database; 0 for a shared relation.
    pub db: u32,
    /// `relfilenode`.
    pub rel: u32,
}

impl fmt::Display for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)
    }
}

/// A page's physical identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTag {
    /// Relation.
    pub rel: RelTag,
    /// Fork.
    pub fork: Fork,
    /// Block number within the fork, across its files.
    pub blkno: u32,
}

impl fmt::Display for BlockTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fork={} blk={}", self.rel, self.fork.name(), self.blkno)
    }
}

/// One block reference of a record.
#[derive(Clone, Debug)]
pub struct BlockRef<'a> {
    /// Its number in the record, 0 to 32; ascending, gaps allowed.
    pub id: u8,
    /// The page.
    pub tag: BlockTag,
    /// The redo function rebuilds the page from zeros (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The data logged with this block; empty if none.
    pub data: &'a [u8],
    /// The full-page image, if there is one. Applied only if [`Image::apply`].
    pub image: Option<Image<'a>>,
}

impl BlockRef<'_> {
    /// Whether the block carries an image that replaces the page.
    pub fn applies_image(&self) -> bool {
        self.image.as_ref().is_some_and(Image::apply)
    }
}
