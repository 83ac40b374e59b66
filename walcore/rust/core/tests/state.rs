//! State that is no page: what records do to counters, and what of it is kept.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use walcore::Lsn;
use walcore::ingest::State;
use walcore::layer::{Key, Kind};
use walcore::reader::Reader;
use walcore::rmgr;
use walcore::state::{Change, Control, changes, full_xid};
use walcore::version::Major;
use walcore::wal::{Record, RecordHeader};

fn record(rmid: u8, info: u8, xid: u32, main_data: &[u8]) -> Record<'_> {
    let header = RecordHeader { tot_len: 24, xid, prev: Lsn(0), info, rmid, crc: 0 };
    let (start, end) = (Lsn(0x1000), Lsn(0x1100));
    Record { start, end, header, blocks: Vec::new(), origin: None, toplevel_xid: None, main_data }
}

fn control(next_xid: u64) -> Control {
    let mut file = [0; 296];
    file[64..72].copy_from_slice(&next_xid.to_le_bytes());
    Control::from_control_file(&file, Major::V18).unwrap()
}

#[test]
fn a_full_id_is_the_one_nearest_to_the_next() {
    let next = (7 << 32) + 10;
    assert_eq!(full_xid(9, next), (7 << 32) + 9);
    assert_eq!(full_xid(10, next), next);
    assert_eq!(full_xid(11, next), (7 << 32) + 11);
    assert_eq!(full_xid(u32::MAX, next), (7 << 32) - 1);
}

#[test]
fn the_next_transaction_follows_all_seen_and_skips_special_ids() {
    let mut state = control((1 << 32) - 2);
    state.follow(&record(rmgr::HEAP, 0, u32::MAX, &[]), None).unwrap();
    assert_eq!(state.now.next_xid, (1 << 32) + 3);
    state.follow(&record(rmgr::HEAP, 0, u32::MAX - 5, &[]), None).unwrap();
    state.follow(&record(rmgr::HEAP, 0, 0, &[]), None).unwrap();
    assert_eq!(state.now.next_xid, (1 << 32) + 3);
}

#[test]
fn an_origin_goes_back_only_by_force() {
    let set = |lsn: u64, is_forced: bool| {
        let mut data = lsn.to_le_bytes().to_vec();
        data.extend([9, 0, is_forced.into(), 0, 0, 0, 0, 0]);
        data
    };
    let mut state = control(100);
    let mut at = |data: &[u8], info| {
        assert_eq!(state.follow(&record(rmgr::REPLORIGIN, info, 0, data), None), Some(true));
        state.origins.get(&9).copied()
    };
    assert_eq!(at(&set(500, false), 0), Some(Lsn(500)));
    assert_eq!(at(&set(400, false), 0), Some(Lsn(500)));
    assert_eq!(at(&set(400, true), 0), Some(Lsn(400)));
    assert_eq!(at(&[9, 0], 0x10), None);
}

#[test]
fn what_is_kept_comes_back_and_nothing_shorter_does() {
    let mut kept = control(77);
    kept.origins.insert(3, Lsn(0x55));
    let bytes = kept.encode();
    assert_eq!(Control::decode(&mut Reader(&bytes)), Some(kept.clone()));
    for len in 0..bytes.len() {
        assert_eq!(Control::decode(&mut Reader(&bytes[..len])), None, "{len} bytes");
    }
    let state = State { control: Some(kept), ..State::default() };
    let bytes = state.encode();
    assert_eq!(State::decode(&bytes).unwrap(), state);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(State::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_record_too_short_for_what_it_claims_is_refused() {
    let kinds = [
        (rmgr::CLOG, 0x10),
        (rmgr::COMMIT_TS, 0x10),
        (rmgr::MULTIXACT, 0x30),
        (rmgr::RELMAP, 0),
        (rmgr::TBLSPC, 0),
        (rmgr::DBASE, 0x20),
        (rmgr::XACT, 0x10),
    ];
    for (rmid, info) in kinds {
        assert_eq!(
            changes(&record(rmid, info, 9, &[1; 3]), None, 10, Major::V18, &mut |_| {}),
            None,
            "{rmid}"
        );
    }
}

#[test]
fn a_database_made_by_file_copy_has_the_originals_map_and_a_dropped_one_none() {
    let seen = |info, data: &[u32]| {
        let data: Vec<u8> = data.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut seen = Vec::new();
        changes(&record(rmgr::DBASE, info, 9, &data), None, 10, Major::V18, &mut |change| seen.push(change))
            .unwrap();
        seen
    };
    let (map, there) = (Key::of_database(Kind::RelMap, 1663, 20), Key::of_database(Kind::Database, 1663, 20));
    assert_eq!(
        seen(0x00, &[20, 1663, 5, 1664]),
        [Change::Copied(map, 1664, 5), Change::Set(there, Vec::new())]
    );
    assert_eq!(seen(0x20, &[20, 1, 1663]), [Change::Gone(map), Change::Gone(there)]);
}
