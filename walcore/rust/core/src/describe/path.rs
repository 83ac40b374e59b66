//! Files of relations, relative to the data directory.

use super::text::{Put, put};
use crate::version::Major;
use crate::wal::{Fork, RelTag};

/// The path of a fork's first file, as Postgres prints it.
///
/// Source: `GetRelationPath` in `src/common/relpath.c`.
pub struct RelPath(pub Major, pub RelTag, pub Fork);

const GLOBAL_TABLESPACE: u32 = 1664;
const DEFAULT_TABLESPACE: u32 = 1663;

impl Put for RelPath {
    fn put(&self, out: &mut Vec<u8>) {
        let Self(major, RelTag { spc, db, rel }, fork) = *self;
        match spc {
            GLOBAL_TABLESPACE => put!(out; "global/", rel),
            DEFAULT_TABLESPACE => put!(out; "base/", db, "/", rel),
            _ => {
                put!(out; "pg_tblspc/", spc, "/PG_", major as u8, "_", major.catalog_version(), "/", db, "/", rel);
            }
        }
        if fork != Fork::Main {
            put!(out; "_", fork.name());
        }
    }
}
