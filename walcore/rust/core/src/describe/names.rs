//! Names of records, spelled as `pg_waldump` spells them.

use crate::rmgr;
use crate::version::Major;

/// The name of a record by its resource manager and `xl_info`; `None` if that major writes no such record.
///
/// Source: the `*_identify` functions in `src/backend/access/rmgrdesc`.
pub fn record_name(major: Major, rmid: u8, info: u8) -> Option<&'static str> {
    let opcode = info & 0xF0;
    match rmid {
        rmgr::XLOG => xlog(major, opcode),
        rmgr::XACT => transaction(opcode & 0x70),
        rmgr::SMGR => storage(opcode),
        // These two compare all of `xl_info`.
        rmgr::CLOG => zero_page_or_truncate(opcode),
        rmgr::COMMIT_TS => zero_page_or_truncate(info),
        rmgr::DBASE => database(opcode),
        rmgr::TBLSPC => tablespace(opcode),
        rmgr::MULTIXACT => multixact(opcode),
        rmgr::RELMAP => (opcode == 0).then_some("UPDATE"),
        rmgr::STANDBY => standby(opcode),
        rmgr::HEAP2 => heap2(major, opcode),
        rmgr::HEAP => heap(opcode),
        rmgr::BTREE => btree(opcode),
        rmgr::HASH => hash(opcode),
        rmgr::GIN => gin(opcode),
        rmgr::GIST => gist(opcode),
        rmgr::SEQ => (opcode == 0).then_some("LOG"),
        rmgr::SPGIST => spgist(opcode),
        rmgr::BRIN => brin(opcode),
        rmgr::REPLORIGIN => replication_origin(info),
        rmgr::GENERIC => Some("Generic"),
        rmgr::LOGICALMSG => (opcode == 0).then_some("MESSAGE"),
        _ => None,
    }
}

/// Every kind of record that a major can write: resource manager and name, in order of their numbers.
pub fn record_types(major: Major) -> Vec<(u8, &'static str)> {
    let mut types: Vec<(u8, &'static str)> = Vec::new();
    for (rmid, _) in rmgr::RMGRS {
        for info in (0u8..=240).step_by(16) {
            if let Some(name) = record_name(major, rmid, info)
                && !types.contains(&(rmid, name))
            {
                types.push((rmid, name));
            }
        }
    }
    types
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident { $($opcode:literal => $record:literal,)* })*) => { $(
        $(#[$doc])*
        fn $name(opcode: u8) -> Option<&'static str> {
            Some(match opcode {
                $($opcode => $record,)*
                _ => return None,
            })
        }
    )* };
}

names! {
    transaction {
        0x00 => "COMMIT",
        0x10 => "PREPARE",
        0x20 => "ABORT",
        0x30 => "COMMIT_PREPARED",
        0x40 => "ABORT_PREPARED",
        0x50 => "ASSIGNMENT",
        0x60 => "INVALIDATION",
    }
    storage {
        0x10 => "CREATE",
        0x20 => "TRUNCATE",
    }
    zero_page_or_truncate {
        0x00 => "ZEROPAGE",
        0x10 => "TRUNCATE",
    }
    database {
        0x00 => "CREATE_FILE_COPY",
        0x10 => "CREATE_WAL_LOG",
        0x20 => "DROP",
    }
    tablespace {
        0x00 => "CREATE",
        0x10 => "DROP",
    }
    multixact {
        0x00 => "ZERO_OFF_PAGE",
        0x10 => "ZERO_MEM_PAGE",
        0x20 => "CREATE_ID",
        0x30 => "TRUNCATE_ID",
    }
    standby {
        0x00 => "LOCK",
        0x10 => "RUNNING_XACTS",
        0x20 => "INVALIDATIONS",
    }
    heap {
        0x00 => "INSERT",
        0x80 => "INSERT+INIT",
        0x10 => "DELETE",
        0x20 => "UPDATE",
        0xA0 => "UPDATE+INIT",
        0x30 => "TRUNCATE",
        0x40 => "HOT_UPDATE",
        0xC0 => "HOT_UPDATE+INIT",
        0x50 => "HEAP_CONFIRM",
        0x60 => "LOCK",
        0x70 => "INPLACE",
    }
    btree {
        0x00 => "INSERT_LEAF",
        0x10 => "INSERT_UPPER",
        0x20 => "INSERT_META",
        0x30 => "SPLIT_L",
        0x40 => "SPLIT_R",
        0x50 => "INSERT_POST",
        0x60 => "DEDUP",
        0x70 => "DELETE",
        0x80 => "UNLINK_PAGE",
        0x90 => "UNLINK_PAGE_META",
        0xA0 => "NEWROOT",
        0xB0 => "MARK_PAGE_HALFDEAD",
        0xC0 => "VACUUM",
        0xD0 => "REUSE_PAGE",
        0xE0 => "META_CLEANUP",
    }
    hash {
        0x00 => "INIT_META_PAGE",
        0x10 => "INIT_BITMAP_PAGE",
        0x20 => "INSERT",
        0x30 => "ADD_OVFL_PAGE",
        0x40 => "SPLIT_ALLOCATE_PAGE",
        0x50 => "SPLIT_PAGE",
        0x60 => "SPLIT_COMPLETE",
        0x70 => "MOVE_PAGE_CONTENTS",
        0x80 => "SQUEEZE_PAGE",
        0x90 => "DELETE",
        0xA0 => "SPLIT_CLEANUP",
        0xB0 => "UPDATE_META_PAGE",
        0xC0 => "VACUUM_ONE_PAGE",
    }
    gin {
        0x10 => "CREATE_PTREE",
        0x20 => "INSERT",
        0x30 => "SPLIT",
        0x40 => "VACUUM_PAGE",
        0x50 => "DELETE_PAGE",
        0x60 => "UPDATE_META_PAGE",
        0x70 => "INSERT_LISTPAGE",
        0x80 => "DELETE_LISTPAGE",
        0x90 => "VACUUM_DATA_LEAF_PAGE",
    }
    gist {
        0x00 => "PAGE_UPDATE",
        0x10 => "DELETE",
        0x20 => "PAGE_REUSE",
        0x30 => "PAGE_SPLIT",
        0x60 => "PAGE_DELETE",
        0x70 => "ASSIGN_LSN",
    }
    spgist {
        0x10 => "ADD_LEAF",
        0x20 => "MOVE_LEAFS",
        0x30 => "ADD_NODE",
        0x40 => "SPLIT_TUPLE",
        0x50 => "PICKSPLIT",
        0x60 => "VACUUM_LEAF",
        0x70 => "VACUUM_ROOT",
        0x80 => "VACUUM_REDIRECT",
    }
    brin {
        0x00 => "CREATE_INDEX",
        0x10 => "INSERT",
        0x90 => "INSERT+INIT",
        0x20 => "UPDATE",
        0xA0 => "UPDATE+INIT",
        0x30 => "SAMEPAGE_UPDATE",
        0x40 => "REVMAP_EXTEND",
        0x50 => "DESUMMARIZE",
    }
    replication_origin {
        0x00 => "SET",
        0x10 => "DROP",
    }
    xlog_of_all {
        0x00 => "CHECKPOINT_SHUTDOWN",
        0x10 => "CHECKPOINT_ONLINE",
        0x20 => "NOOP",
        0x30 => "NEXTOID",
        0x40 => "SWITCH",
        0x50 => "BACKUP_END",
        0x60 => "PARAMETER_CHANGE",
        0x70 => "RESTORE_POINT",
        0x80 => "FPW_CHANGE",
        0x90 => "END_OF_RECOVERY",
        0xA0 => "FPI_FOR_HINT",
        0xB0 => "FPI",
        0xD0 => "OVERWRITE_CONTRECORD",
    }
    heap2_of_all {
        0x00 => "REWRITE",
        0x40 => "VISIBLE",
        0x50 => "MULTI_INSERT",
        0xD0 => "MULTI_INSERT+INIT",
        0x60 => "LOCK_UPDATED",
        0x70 => "NEW_CID",
    }
}

fn xlog(major: Major, opcode: u8) -> Option<&'static str> {
    match opcode {
        0xE0 if major >= Major::V17 => Some("CHECKPOINT_REDO"),
        _ => xlog_of_all(opcode),
    }
}

fn heap2(major: Major, opcode: u8) -> Option<&'static str> {
    Some(match (opcode, major >= Major::V17) {
        (0x10, true) => "PRUNE_ON_ACCESS",
        (0x20, true) => "PRUNE_VACUUM_SCAN",
        (0x30, true) => "PRUNE_VACUUM_CLEANUP",
        (0x10, false) => "PRUNE",
        (0x20, false) => "VACUUM",
        (0x30, false) => "FREEZE_PAGE",
        _ => return heap2_of_all(opcode),
    })
}
