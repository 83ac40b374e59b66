//! Resource managers: one line each.

pub mod multixact;
pub mod xact;

use crate::reader::Reader;
use crate::version::Major;
use crate::wal::RelTag;

/// Number and name of each built-in resource manager of 15 to 18, as `pg_waldump` prints it.
///
/// Source: `src/include/access/rmgrlist.h`.
pub const RMGRS: [(u8, &str); 22] = [
    (XLOG, "XLOG"),
    (XACT, "Transaction"),
    (SMGR, "Storage"),
    (CLOG, "CLOG"),
    (DBASE, "Database"),
    (TBLSPC, "Tablespace"),
    (MULTIXACT, "MultiXact"),
    (RELMAP, "RelMap"),
    (STANDBY, "Standby"),
    (HEAP2, "Heap2"),
    (HEAP, "Heap"),
    (BTREE, "Btree"),
    (HASH, "Hash"),
    (GIN, "Gin"),
    (GIST, "Gist"),
    (SEQ, "Sequence"),
    (SPGIST, "SPGist"),
    (BRIN, "BRIN"),
    (COMMIT_TS, "CommitTs"),
    (REPLORIGIN, "ReplicationOrigin"),
    (GENERIC, "Generic"),
    (LOGICALMSG, "LogicalMessage"),
];

macro_rules! ids {
    ($($name:ident = $id:literal),* $(,)?) => { $(
        #[doc = concat!("`RM_", stringify!($name), "_ID`")]
        pub const $name: u8 = $id;
    )* };
}
ids! {
    XLOG = 0, XACT = 1, SMGR = 2, CLOG = 3, DBASE = 4, TBLSPC = 5, MULTIXACT = 6, RELMAP = 7,
    STANDBY = 8, HEAP2 = 9, HEAP = 10, BTREE = 11, HASH = 12, GIN = 13, GIST = 14, SEQ = 15,
    SPGIST = 16, BRIN = 17, COMMIT_TS = 18, REPLORIGIN = 19, GENERIC = 20, LOGICALMSG = 21,
}

/// Built-in, or in the range left to extensions.
pub fn is_valid(rmid: u8) -> bool {
    usize::from(rmid) < RMGRS.len() || rmid >= 128
}

/// The name that `pg_waldump` prints, `custom###` for an extension's.
pub fn name(rmid: u8) -> String {
    RMGRS.get(usize::from(rmid)).map_or_else(|| format!("custom{rmid:03}"), |(_, name)| (*name).to_owned())
}

/// A relation as records name it: tablespace, database, number.
pub(crate) fn rel_tag(r: &mut Reader<'_>) -> Option<RelTag> {
    Some(RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? })
}

/// A page number of an SLRU: 4 bytes up to 16, 8 bytes from 17 on.
pub(crate) fn slru_pageno(r: &mut Reader<'_>, major: Major) -> Option<u64> {
    if major >= Major::V17 { r.u64() } else { r.u32().map(u64::from) }
}
