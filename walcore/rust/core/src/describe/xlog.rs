//! XLOG.
//!
//! Source: `src/backend/access/rmgrdesc/xlogdesc.c`.

use super::Scene;
use super::text::{CText, FullXid, put};
use crate::Lsn;
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::event::{CheckPoint, Parameters};
use crate::wal::{Event, Record};

pub(super) fn xlog(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x30 => put!(out; r.u32()?),
        0x70 => {
            r.skip(8)?;
            put!(out; CText(r.0));
        }
        0x90 => {
            let time = r.i64()?;
            put!(out; "tli ", r.u32()?, "; prev tli ", r.u32()?, "; time ");
            scene.zone.put_timestamp(out, time);
            if scene.major >= Major::V17 {
                put!(out; "; wal_level ", wal_level(r.u32()?));
            }
        }
        0xD0 => {
            put!(out; "lsn ", Lsn(r.u64()?), "; time ");
            scene.zone.put_timestamp(out, r.i64()?);
        }
        0xE0 if scene.major >= Major::V17 => put!(out; "wal_level ", wal_level(r.u32()?)),
        _ => match Event::decode(record, Some(scene.major)).ok()? {
            Some(Event::Checkpoint { online, body }) => checkpoint(out, online, &body),
            Some(Event::BackupEnd { start }) => put!(out; start),
            Some(Event::FpwChange { full_page_writes }) => put!(out; truth(full_page_writes)),
            Some(Event::ParameterChange(parameters)) => parameter_change(out, &parameters),
            _ => {}
        },
    }
    Some(())
}

/// Source: `wal_level_options`.
fn wal_level(n: u32) -> &'static str {
    match n {
        0 => "minimal",
        1 => "replica",
        2 => "logical",
        _ => "?",
    }
}

fn truth(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

fn switch(is: bool) -> &'static str {
    if is { "on" } else { "off" }
}

fn checkpoint(out: &mut Vec<u8>, online: bool, body: &CheckPoint) {
    put!(out; "redo ", body.redo, "; tli ", body.tli, "; prev tli ", body.prev_tli);
    put!(out; "; fpw ", truth(body.full_page_writes));
    if let Some(level) = body.wal_level {
        put!(out; "; wal_level ", wal_level(level));
    }
    put!(out; "; xid ", FullXid(body.next_xid), "; oid ", body.next_oid);
    put!(out; "; multi ", body.next_multi, "; offset ", body.next_multi_offset);
    put!(out; "; oldest xid ", body.oldest_xid, " in DB ", body.oldest_xid_db);
    put!(out; "; oldest multi ", body.oldest_multi, " in DB ", body.oldest_multi_db);
    put!(out; "; oldest/newest commit timestamp xid: ", body.oldest_commit_ts_xid);
    put!(out; "/", body.newest_commit_ts_xid, "; oldest running xid ", body.oldest_active_xid);
    put!(out; if online { "; online" } else { "; shutdown" });
}

fn parameter_change(out: &mut Vec<u8>, p: &Parameters) {
    put!(out; "max_connections=", p.max_connections, " max_worker_processes=", p.max_worker_processes);
    put!(out; " max_wal_senders=", p.max_wal_senders, " max_prepared_xacts=", p.max_prepared_xacts);
    put!(out; " max_locks_per_xact=", p.max_locks_per_xact);
    put!(out; " wal_level=", u32::try_from(p.wal_level).map_or("?", wal_level));
    put!(out; " wal_log_hints=", switch(p.wal_log_hints));
    put!(out; " track_commit_timestamp=", switch(p.track_commit_timestamp));
}
