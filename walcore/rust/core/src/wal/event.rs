//! Records that change the state of the server, and what the others amount to.

use super::record::{BlockHeader, Fragment, Record, RecordHeader, fragments};
use super::{RawRecord, WalError};
use crate::reader::Reader;
use crate::version::Major;
use crate::{Lsn, rmgr};

/// `xl_info` of the records of rmgr XLOG. Source: `src/include/catalog/pg_control.h`.
mod xlog {
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    pub const SWITCH: u8 = 0x40;
    pub const BACKUP_END: u8 = 0x50;
    pub const PARAMETER_CHANGE: u8 = 0x60;
    pub const FPW_CHANGE: u8 = 0x80;
    pub const END_OF_RECOVERY: u8 = 0x90;
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
}

/// What a record of rmgr XLOG says of the server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `full_page_writes` was turned on or off.
    FpwChange {
        /// Its value from here on.
        full_page_writes: bool,
    },
    /// A checkpoint; redo can start at its `redo`.
    Checkpoint {
        /// Whether the server went on running.
        online: bool,
        /// The state as of `redo`.
        body: CheckPoint,
    },
    /// Settings that decide what WAL carries, at the start of a server where one changed.
    ParameterChange(Parameters),
    /// A standby became a primary.
    EndOfRecovery {
        /// The timeline from here on.
        tli: u32,
        /// The timeline it branched off.
        prev_tli: u32,
    },
    /// The rest of the segment is empty.
    Switch,
    /// A record before this one was lost in a crash.
    OverwriteContrecord {
        /// Its start.
        overwritten: Lsn,
    },
    /// A base backup that began at `start` is consistent from here on.
    BackupEnd {
        /// The backup's start.
        start: Lsn,
    },
}

/// Body of a checkpoint record.
///
/// Source: `CheckPoint` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckPoint {
    /// Where redo starts.
    pub redo: Lsn,
    /// Timeline.
    pub tli: u32,
    /// The timeline before, if the record begins a new one; else the same.
    pub prev_tli: u32,
    /// Value of `full_page_writes`.
    pub full_page_writes: bool,
    /// Value of `wal_level` (0 minimal, 1 replica, 2 logical); not logged before 17.
    pub wal_level: Option<u32>,
    /// Next transaction, with its epoch in the high half.
    pub next_xid: u64,
    /// Next OID.
    pub next_oid: u32,
    /// Next multixact.
    pub next_multi: u32,
    /// Next member of a multixact.
    pub next_multi_offset: u32,
    /// Oldest transaction that tables may hold unfrozen.
    pub oldest_xid: u32,
    /// A database that has it.
    pub oldest_xid_db: u32,
    /// Oldest multixact that tables may hold.
    pub oldest_multi: u32,
    /// A database that has it.
    pub oldest_multi_db: u32,
    /// When, in seconds since 1970.
    pub time: i64,
    /// Oldest transaction with a commit timestamp.
    pub oldest_commit_ts_xid: u32,
    /// Newest transaction with a commit timestamp.
    pub newest_commit_ts_xid: u32,
    /// Oldest running transaction; 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

/// Body of a parameter change record.
///
/// Source: `xl_parameter_change` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: i32,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// Whether a header is that of an `XLOG_SWITCH`.
pub fn is_switch(header: &RecordHeader) -> bool {
    header.rmid == rmgr::XLOG && header.rmgr_info() == xlog::SWITCH
}

/// Whether the last 8 bytes of a record (`info`, `rmid`, padding, checksum) may be those of an `XLOG_SWITCH`.
pub fn is_switch_tail(tail: &[u8; 8]) -> bool {
    matches!(tail, [info, rmgr::XLOG, 0, 0, ..] if info & 0xF0 == xlog::SWITCH)
}

/// The lost record's start, if this record is an `XLOG_OVERWRITE_CONTRECORD`.
pub fn overwritten_lsn(record: &Record<'_>) -> Option<Lsn> {
    match Event::decode(record, None) {
        Ok(Some(Event::OverwriteContrecord { overwritten })) => Some(overwritten),
        _ => None,
    }
}

impl Event {
    /// Whether a record with this header is an event at all; saves decoding the others.
    pub fn is_event(header: &RecordHeader) -> bool {
        use xlog::{
            BACKUP_END, CHECKPOINT_ONLINE, CHECKPOINT_SHUTDOWN, END_OF_RECOVERY, FPW_CHANGE,
            OVERWRITE_CONTRECORD, PARAMETER_CHANGE, SWITCH,
        };
        header.rmid == rmgr::XLOG
            && matches!(
                header.rmgr_info(),
                CHECKPOINT_SHUTDOWN
                    | CHECKPOINT_ONLINE
                    | SWITCH
                    | BACKUP_END
                    | PARAMETER_CHANGE
                    | FPW_CHANGE
                    | END_OF_RECOVERY
                    | OVERWRITE_CONTRECORD
            )
    }

    /// The event that a record is, if it is one.
    ///
    /// # Errors
    /// `Truncated` if the record is too short for what it says it is.
    pub fn decode(record: &Record<'_>, major: Option<Major>) -> Result<Option<Self>, WalError> {
        if !Self::is_event(&record.header) {
            return Ok(None);
        }
        let info = record.header.rmgr_info();
        match Self::read(info, Reader(record.main_data), major) {
            Some(event) => Ok(Some(event)),
            None => Err(WalError::Truncated { at: record.start, what: "main data of a record of rmgr XLOG" }),
        }
    }

    fn read(info: u8, mut r: Reader<'_>, major: Option<Major>) -> Option<Self> {
        Some(match info {
            xlog::FPW_CHANGE => Self::FpwChange { full_page_writes: r.u8()? != 0 },
            xlog::CHECKPOINT_SHUTDOWN | xlog::CHECKPOINT_ONLINE => Self::Checkpoint {
                online: info == xlog::CHECKPOINT_ONLINE,
                body: CheckPoint::read(r, major)?,
            },
            xlog::PARAMETER_CHANGE => Self::ParameterChange(Parameters::read(r)?),
            xlog::END_OF_RECOVERY => {
                r.skip(8)?;
                Self::EndOfRecovery { tli: r.u32()?, prev_tli: r.u32()? }
            }
            xlog::OVERWRITE_CONTRECORD => Self::OverwriteContrecord { overwritten: Lsn(r.u64()?) },
            xlog::BACKUP_END => Self::BackupEnd { start: Lsn(r.u64()?) },
            _ => Self::Switch,
        })
    }
}

impl CheckPoint {
    /// Length of its stored form.
    pub const LEN: usize = 88;

    /// Reads the form that records and control files of a major have; `None` if it is too short.
    pub fn decode(bytes: &[u8], major: Major) -> Option<Self> {
        Self::read(Reader(bytes), Some(major))
    }

    /// In that form; padding is zeros.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let fields: [(usize, &[u8]); 17] = [
            (0, &self.redo.0.to_le_bytes()),
            (8, &self.tli.to_le_bytes()),
            (12, &self.prev_tli.to_le_bytes()),
            (16, &[self.full_page_writes.into()]),
            (20, &self.wal_level.unwrap_or_default().to_le_bytes()),
            (24, &self.next_xid.to_le_bytes()),
            (32, &self.next_oid.to_le_bytes()),
            (36, &self.next_multi.to_le_bytes()),
            (40, &self.next_multi_offset.to_le_bytes()),
            (44, &self.oldest_xid.to_le_bytes()),
            (48, &self.oldest_xid_db.to_le_bytes()),
            (52, &self.oldest_multi.to_le_bytes()),
            (56, &self.oldest_multi_db.to_le_bytes()),
            (64, &self.time.to_le_bytes()),
            (72, &self.oldest_commit_ts_xid.to_le_bytes()),
            (76, &self.newest_commit_ts_xid.to_le_bytes()),
            (80, &self.oldest_active_xid.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            for (to, from) in out.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        }
        out
    }

    fn read(mut r: Reader<'_>, major: Option<Major>) -> Option<Self> {
        let (redo, tli, prev_tli, full_page_writes) = (Lsn(r.u64()?), r.u32()?, r.u32()?, r.u8()? != 0);
        r.skip(3)?;
        let wal_level = Some(r.u32()?).filter(|_| major.is_some_and(|m| m >= Major::V17));
        // Fields are read in the order in which they are written here: that of the struct.
        Some(Self {
            redo,
            tli,
            prev_tli,
            full_page_writes,
            wal_level,
            next_xid: r.u64()?,
            next_oid: r.u32()?,
            next_multi: r.u32()?,
            next_multi_offset: r.u32()?,
            oldest_xid: r.u32()?,
            oldest_xid_db: r.u32()?,
            oldest_multi: r.u32()?,
            oldest_multi_db: r.u32()?,
            // Four bytes of alignment come first.
            time: r.skip(4).and_then(|()| r.i64())?,
            oldest_commit_ts_xid: r.u32()?,
            newest_commit_ts_xid: r.u32()?,
            oldest_active_xid: r.u32()?,
        })
    }
}

impl Parameters {
    /// Length of its stored form, without padding.
    pub const LEN: usize = 26;

    /// Reads the form that records have; `None` if it is too short.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(Reader(bytes))
    }

    /// In that form.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.max_connections,
            self.max_worker_processes,
            self.max_wal_senders,
            self.max_prepared_xacts,
            self.max_locks_per_xact,
            self.wal_level,
        ];
        let mut out = numbers.map(i32::to_le_bytes).as_flattened().to_vec();
        out.extend([self.wal_log_hints, self.track_commit_timestamp].map(u8::from));
        out
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        Some(Self {
            max_connections: r.i32()?,
            max_worker_processes: r.i32()?,
            max_wal_senders: r.i32()?,
            max_prepared_xacts: r.i32()?,
            max_locks_per_xact: r.i32()?,
            wal_level: r.i32()?,
            wal_log_hints: r.u8()? != 0,
            track_commit_timestamp: r.u8()? != 0,
        })
    }
}

/// Totals over records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Of them, commits of transactions, prepared ones included.
    pub commits: u64,
    /// Their bytes, images included, padding and page headers not.
    pub record_bytes: u64,
    /// Full-page images.
    pub fpi_count: u64,
    /// Their bytes as stored.
    pub fpi_bytes: u64,
}

impl Counts {
    /// Adds one record.
    ///
    /// # Errors
    /// As [`fragments`].
    pub fn add(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        self.records += 1;
        self.record_bytes += u64::from(raw.header.tot_len);
        if raw.header.rmid == rmgr::XACT && matches!(raw.header.info & 0x70, 0x00 | 0x30) {
            self.commits += 1;
        }
        fragments(raw.start, raw.bytes, |fragment| {
            if let Fragment::Block(BlockHeader { image: Some(image), .. }) = fragment {
                self.fpi_count += 1;
                self.fpi_bytes += u64::from(image.len);
            }
        })
        .map(|_| ())
    }
}
