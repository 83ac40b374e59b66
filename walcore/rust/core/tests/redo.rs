//! What records touch and do, where no page image in the WAL can tell: maps, transaction status, sizes, refusals.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use walcore::Lsn;
use walcore::check::Checker;
use walcore::page::{ALL_VISIBLE, BLCKSZ, PageBuf};
use walcore::redo::{Ctx, Missing, RedoError, Slru, Target, Touched, commit_ts_touches, redo, touches, vm};
use walcore::rmgr;
use walcore::version::Major;
use walcore::wal::{BlockRef, BlockTag, Fork, Image, Record, RecordHeader, RelTag};

const REL: RelTag = RelTag { spc: 1663, db: 5, rel: 16384 };
const CTX: Ctx = Ctx { major: Major::V18, hint_bits_logged: false };

fn block(fork: Fork, blkno: u32) -> BlockTag {
    BlockTag { rel: REL, fork, blkno }
}

fn block_ref(id: u8, tag: BlockTag, data: &[u8]) -> BlockRef<'_> {
    BlockRef { id, tag, will_init: false, data, image: None }
}

fn record<'a>(rmid: u8, info: u8, main_data: &'a [u8], blocks: Vec<BlockRef<'a>>) -> Record<'a> {
    let header = RecordHeader { tot_len: 24, xid: 700, prev: Lsn(0), info, rmid, crc: 0 };
    let (start, end) = (Lsn(0x1000), Lsn(0x1100));
    Record { start, end, header, blocks, origin: None, toplevel_xid: None, main_data }
}

fn touched(record: &Record<'_>, major: Major) -> Vec<Touched> {
    let mut all = Vec::new();
    touches(record, major, &mut |touch| all.push(touch)).unwrap();
    all
}

fn pages(record: &Record<'_>, major: Major) -> Vec<Target> {
    let all = touched(record, major).into_iter();
    all.filter_map(|t| if let Touched::Page { target, .. } = t { Some(target) } else { None }).collect()
}

fn image(bytes: &[u8], info: u8) -> Image<'_> {
    Image { bytes, hole_offset: 0, hole_length: 0, info }
}

/// `xl_heap_delete`: the row at line pointer 1, by transaction 700.
fn delete(flags: u8) -> Vec<u8> {
    [&700u32.to_le_bytes()[..], &1u16.to_le_bytes(), &[0, flags]].concat()
}

fn heap_page() -> PageBuf {
    let mut page = PageBuf::zeroed();
    page.init(0);
    page.put_item(&[0; 32], 1).unwrap();
    page.set_lsn(Lsn(0x800));
    page.set_flag(ALL_VISIBLE, true);
    page
}

fn vm_page(byte: u8) -> PageBuf {
    let mut page = PageBuf::zeroed();
    page.init(0);
    page.bytes_mut()[24..].fill(byte);
    page.set_lsn(Lsn(0x800));
    page
}

fn vm_bits(page: &PageBuf, heap_blkno: u32) -> u8 {
    let index = heap_blkno % vm::HEAPBLOCKS_PER_PAGE;
    page.bytes()[24 + (index / 4) as usize] >> (index % 4 * 2) & 3
}

#[test]
fn a_delete_on_an_all_visible_page_touches_the_map_it_does_not_name() {
    let heap = block(Fork::Main, 40_000);
    let main = delete(1);
    let record = record(rmgr::HEAP, 0x10, &main, vec![block_ref(0, heap, &[])]);

    let all = touched(&record, Major::V15);

    let map = Target::Block(block(Fork::Vm, 1));
    let implicit = Touched::Page { target: map, will_init: false, has_image: false, missing: Missing::Zeros };
    assert_eq!(all[1], implicit);
    assert!(all[1].extends() && !all[0].extends());
    // Without the flag, or with the map named, there is nothing hidden.
    let main = delete(0);
    assert_eq!(pages(&self::record(rmgr::HEAP, 0x10, &main, record.blocks.clone()), Major::V15).len(), 1);
    let named = vec![record.blocks[0].clone(), block_ref(1, block(Fork::Vm, 1), &[])];
    let main = delete(1);
    assert_eq!(pages(&self::record(rmgr::HEAP, 0x10, &main, named), Major::V18).len(), 2);
}

#[test]
fn a_hidden_clear_changes_its_bits_whatever_the_lsn_and_leaves_the_lsn() {
    let main = delete(1);
    let record = record(rmgr::HEAP, 0x10, &main, vec![block_ref(0, block(Fork::Main, 6), &[])]);
    let map = Target::Block(block(Fork::Vm, 0));
    let mut page = vm_page(0xFF);
    page.set_lsn(Lsn(0x9999));
    let mut page = Some(page);

    redo(&mut page, &record, &map, &CTX).unwrap();

    let page = page.unwrap();
    assert_eq!([5, 6, 7].map(|n| vm_bits(&page, n)), [3, 0, 3]);
    assert_eq!(page.lsn(), Lsn(0x9999));
    let mut missing = None;
    redo(&mut missing, &record, &map, &CTX).unwrap();
    assert_eq!(missing.unwrap().upper(), BLCKSZ as u16, "made as Postgres makes it");
}

#[test]
fn a_named_clear_obeys_the_lsn_and_moves_it_only_if_a_bit_changed() {
    let main = delete(1);
    let map = block(Fork::Vm, 0);
    let blocks = vec![block_ref(0, block(Fork::Main, 6), &[]), block_ref(1, map, &[])];
    let record = record(rmgr::HEAP, 0x10, &main, blocks);
    let after = |page: PageBuf| {
        let mut page = Some(page);
        redo(&mut page, &record, &Target::Block(map), &CTX).unwrap();
        page.unwrap()
    };

    let set = after(vm_page(0xFF));
    let unset = after(vm_page(0));
    let mut newer = vm_page(0xFF);
    newer.set_lsn(record.end);
    let newer = after(newer);

    assert_eq!((vm_bits(&set, 6), set.lsn()), (0, record.end));
    assert_eq!((vm_bits(&unset, 6), unset.lsn()), (0, Lsn(0x800)));
    assert_eq!((vm_bits(&newer, 6), newer.lsn()), (3, record.end));
}

#[test]
fn a_lock_clears_the_frozen_bit_only() {
    let main = delete(1);
    let record = record(rmgr::HEAP, 0x60, &main, vec![block_ref(0, block(Fork::Main, 6), &[])]);
    let mut page = Some(vm_page(0xFF));

    redo(&mut page, &record, &Target::Block(block(Fork::Vm, 0)), &CTX).unwrap();

    assert_eq!(vm_bits(&page.unwrap(), 6), 1);
}

#[test]
fn an_update_across_pages_touches_both_maps_or_the_one_they_share_once() {
    let update = |flags| {
        let old = [&700u32.to_le_bytes()[..], &1u16.to_le_bytes(), &[0, flags]].concat();
        [old, vec![0; 4], 1u16.to_le_bytes().to_vec()].concat()
    };
    let hidden = |new, old, flags| {
        let main = update(flags);
        let blocks =
            vec![block_ref(0, block(Fork::Main, new), &[]), block_ref(1, block(Fork::Main, old), &[])];
        pages(&record(rmgr::HEAP, 0x20, &main, blocks), Major::V15).split_off(2)
    };
    let map = |blkno| Target::Block(block(Fork::Vm, blkno));

    assert_eq!(hidden(10, 40_000, 3), [map(1), map(0)]);
    assert_eq!(hidden(10, 40_000, 1), [map(1)]);
    assert_eq!(hidden(10, 40_000, 2), [map(0)]);
    assert_eq!(hidden(10, 11, 3), [map(0)]);
}

#[test]
fn setting_visibility_makes_the_map_and_moves_the_heap_page_only_if_hints_are_logged() {
    let main = [&[0; 4][..], &[3]].concat();
    let (map, heap) = (block(Fork::Vm, 1), block(Fork::Main, 40_000));
    let blocks = vec![block_ref(0, map, &[]), block_ref(1, heap, &[])];
    let record = record(rmgr::HEAP2, 0x40, &main, blocks);

    let mut map_page = None;
    redo(&mut map_page, &record, &Target::Block(map), &CTX).unwrap();
    let mut quiet = Some(heap_page());
    redo(&mut quiet, &record, &Target::Block(heap), &CTX).unwrap();
    let mut logged = Some(heap_page());
    let ctx = Ctx { hint_bits_logged: true, ..CTX };
    redo(&mut logged, &record, &Target::Block(heap), &ctx).unwrap();

    let map_page = map_page.unwrap();
    assert_eq!([39_999, 40_000, 40_001].map(|n| vm_bits(&map_page, n)), [0, 3, 0]);
    assert_eq!(map_page.lsn(), record.end);
    assert_eq!((quiet.unwrap().lsn(), logged.unwrap().lsn()), (Lsn(0x800), record.end));
}

#[test]
fn truncation_cuts_main_and_map_and_clears_the_tail_of_the_last_page_of_the_map() {
    let fields = [32_672 + 6, REL.spc, REL.db, REL.rel, 7];
    let main: Vec<u8> = fields.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
    let record = record(rmgr::SMGR, 0x20, &main, vec![]);
    let tail = Target::Block(block(Fork::Vm, 1));

    let all = touched(&record, Major::V18);
    let mut page = Some(vm_page(0xFF));
    redo(&mut page, &record, &tail, &CTX).unwrap();
    let mut missing = None;
    redo(&mut missing, &record, &tail, &CTX).unwrap();

    assert_eq!(
        all,
        [
            Touched::Page { target: tail, will_init: false, has_image: false, missing: Missing::Skipped },
            Touched::Truncated { rel: REL, fork: Fork::Vm, blocks: 2 },
            Touched::Truncated { rel: REL, fork: Fork::Main, blocks: 32_678 },
        ]
    );
    let page = page.unwrap();
    assert_eq!([0, 5, 6, 7, 32_671].map(|n| vm_bits(&page, n)), [3, 3, 0, 0, 0]);
    assert_eq!(page.lsn(), Lsn(0x800));
    assert!(missing.is_none());
}

#[test]
fn a_truncation_to_a_page_boundary_of_the_map_keeps_no_tail() {
    let fields = [32_672, REL.spc, REL.db, REL.rel, 3];
    let main: Vec<u8> = fields.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();

    let all = touched(&record(rmgr::SMGR, 0x20, &main, vec![]), Major::V18);

    assert_eq!(all[0], Touched::Truncated { rel: REL, fork: Fork::Vm, blocks: 1 });
}

/// A commit with subtransactions, a dropped relation, dropped statistics and an origin.
fn commit(major: Major, subxids: &[u32]) -> Vec<u8> {
    let word = |n: u32| n.to_le_bytes().to_vec();
    let stats_item = vec![0; if major >= Major::V18 { 16 } else { 12 }];
    [
        vec![0; 8],
        word(1 | 2 | 4 | 1 << 5 | 1 << 8),
        vec![0; 8],
        word(subxids.len() as u32),
        subxids.iter().flat_map(|xid| xid.to_le_bytes()).collect(),
        word(1),
        [REL.spc, REL.db, REL.rel].map(u32::to_le_bytes).concat(),
        word(1),
        stats_item,
        vec![7; 16],
    ]
    .concat()
}

#[test]
fn a_commit_touches_the_status_page_of_every_transaction_once_and_drops_relations() {
    for major in Major::ALL {
        let main = commit(major, &[701, 32_768, 32_769, 65_536]);
        let record = record(rmgr::XACT, 0x80, &main, vec![]);

        let all = touched(&record, major);

        let clog = |pageno| Target::Slru { kind: Slru::Clog, pageno };
        assert_eq!(pages(&record, major), [clog(0), clog(1), clog(2)]);
        assert_eq!(all.last(), Some(&Touched::Dropped { rel: REL }));
        let mut page = None;
        redo(&mut page, &record, &clog(1), &Ctx { major, ..CTX }).unwrap();
        assert_eq!(page.unwrap().bytes()[..2], [0b0101, 0]);
    }
}

#[test]
fn the_status_of_a_prepared_transaction_is_its_own_and_not_the_finishing_one() {
    let main = [vec![0; 8], (1u32 << 4).to_le_bytes().to_vec(), 5u32.to_le_bytes().to_vec()].concat();
    let record = record(rmgr::XACT, 0x80 | 0x40, &main, vec![]);
    let mut page = Some(PageBuf::zeroed());

    redo(&mut page, &record, &Target::Slru { kind: Slru::Clog, pageno: 0 }, &CTX).unwrap();

    let page = page.unwrap();
    assert_eq!(page.bytes()[1], 0b1000, "transaction 5 aborted");
    assert!(page.bytes().iter().filter(|b| **b != 0).count() == 1);
}

#[test]
fn a_page_of_status_is_numbered_in_four_bytes_up_to_16_and_eight_after() {
    let main = 9u64.to_le_bytes();
    let of = |major, len: usize| pages(&record(rmgr::CLOG, 0, &main[..len], vec![]), major);

    assert_eq!(of(Major::V16, 4), of(Major::V17, 8));
    assert_eq!(of(Major::V17, 8), [Target::Slru { kind: Slru::Clog, pageno: 9 }]);
}

/// `xl_multixact_create` with two members, 900 sharing and 901 updating.
fn create_multixact(mid: u32, offset: u32) -> Vec<u8> {
    [mid, offset, 2, 900, 1, 901, 5].iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[test]
fn a_multixact_touches_the_pages_of_its_offset_of_the_next_ones_and_of_its_members() {
    let of = |mid, offset| {
        pages(&record(rmgr::MULTIXACT, 0x20, &create_multixact(mid, offset), vec![]), CTX.major)
    };
    let offsets = |pageno| Target::Slru { kind: Slru::MultiOffsets, pageno };
    let members = |pageno| Target::Slru { kind: Slru::MultiMembers, pageno };

    assert_eq!(of(5, 10), [offsets(0), members(0)]);
    assert_eq!(of(2047, 1635), [offsets(0), offsets(1), members(0), members(1)]);
    // Ids and members go round the clock.
    let last = u64::from(u32::MAX);
    assert_eq!(of(u32::MAX, u32::MAX), [offsets(last / 2048), offsets(0), members(last / 1636), members(0)]);
}

#[test]
fn a_multixact_is_written_where_postgres_looks_for_it() {
    let main = create_multixact(7, 6);
    let record = record(rmgr::MULTIXACT, 0x20, &main, vec![]);
    let after = |kind| {
        let mut page = None;
        redo(&mut page, &record, &Target::Slru { kind, pageno: 0 }, &CTX).unwrap();
        page.unwrap()
    };

    let (offsets, members) = (after(Slru::MultiOffsets), after(Slru::MultiMembers));

    assert_eq!(offsets.bytes()[28..36], [6, 0, 0, 0, 8, 0, 0, 0]);
    // Second group of four: its flags, then its transactions; members 6 and 7 are its last two.
    assert_eq!(members.bytes()[20..24], [0, 0, 1, 5]);
    assert_eq!(members.bytes()[32..40], [0x84, 3, 0, 0, 0x85, 3, 0, 0]);
}

#[test]
fn zeroing_a_page_of_offsets_keeps_a_first_entry_that_came_before_it() {
    let main = 0u64.to_le_bytes();
    let record = record(rmgr::MULTIXACT, 0x00, &main, vec![]);
    let target = Target::Slru { kind: Slru::MultiOffsets, pageno: 0 };
    let after = |bytes: &[u8]| {
        let mut page = PageBuf::zeroed();
        page.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let mut page = Some(page);
        redo(&mut page, &record, &target, &CTX).unwrap();
        page.unwrap().bytes()[..8].to_vec()
    };

    assert_eq!(after(&[9, 0, 0, 0]), [9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(after(&[9, 0, 0, 0, 11]), [0; 8]);
}

#[test]
fn commit_times_are_touched_only_where_asked_for_and_only_by_commits() {
    let main = commit(Major::V18, &[819]);
    let committed = record(rmgr::XACT, 0x80, &main, vec![]);
    let aborted = record(rmgr::XACT, 0x20, &[0; 8], vec![]);
    let asked = |record: &Record<'_>| {
        let mut all = Vec::new();
        commit_ts_touches(record, Major::V18, &mut |touch| all.push(touch)).unwrap();
        all.len()
    };

    assert_eq!((asked(&committed), asked(&aborted)), (2, 0));
    let is_time = |target: &Target| matches!(target, Target::Slru { kind: Slru::CommitTs, .. });
    assert!(!pages(&committed, Major::V18).iter().any(is_time));
    let mut page = None;
    let mut committed = committed;
    committed.origin = Some(3);
    redo(&mut page, &committed, &Target::Slru { kind: Slru::CommitTs, pageno: 1 }, &CTX).unwrap();
    // The origin's own time of the commit, and the origin.
    assert_eq!(page.unwrap().bytes()[..10], [7, 7, 7, 7, 7, 7, 7, 7, 3, 0]);
}

#[test]
fn databases_are_copied_and_dropped_by_tablespace() {
    let words = |all: &[u32]| all.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (copy, drop) = (words(&[20, 1663, 5, 1664]), words(&[20, 2, 1663, 90_000]));

    let copied = touched(&record(rmgr::DBASE, 0x00, &copy, vec![]), Major::V18);
    let dropped = touched(&record(rmgr::DBASE, 0x20, &drop, vec![]), Major::V18);

    assert_eq!(copied, [Touched::DatabaseCopied { src_spc: 1664, src_db: 5, spc: 1663, db: 20 }]);
    assert_eq!(dropped, [1663, 90_000].map(|spc| Touched::DatabaseDropped { spc, db: 20 }));
}

#[test]
fn a_record_cut_short_is_an_error_and_not_a_guess() {
    for (rmid, info, main) in [
        (rmgr::HEAP, 0x10, &delete(1)[..7]),
        (rmgr::XACT, 0x80, &commit(Major::V18, &[701])[..30]),
        (rmgr::SMGR, 0x20, &[0; 19]),
        (rmgr::DBASE, 0x20, &[9; 12]),
        (rmgr::CLOG, 0x00, &[0; 7]),
    ] {
        let record = record(rmid, info, main, vec![block_ref(0, block(Fork::Main, 6), &[])]);

        let error = touches(&record, Major::V18, &mut |_| ()).unwrap_err();

        assert!(matches!(error, RedoError::Malformed { .. }), "{error}");
    }
}

#[test]
fn free_space_maps_and_hints_without_an_image_are_not_reported() {
    let blocks = vec![block_ref(0, block(Fork::Fsm, 0), &[])];
    assert!(touched(&record(rmgr::XLOG, 0xB0, &[], blocks), Major::V18).is_empty());
    let blocks = vec![block_ref(0, block(Fork::Main, 0), &[])];
    assert!(touched(&record(rmgr::XLOG, 0xA0, &[], blocks), Major::V18).is_empty());
}

#[test]
fn a_record_older_than_the_page_changes_nothing() {
    let heap = block(Fork::Main, 6);
    let main = delete(0);
    let record = record(rmgr::HEAP, 0x10, &main, vec![block_ref(0, heap, &[])]);
    let mut page = Some(heap_page());
    redo(&mut page, &record, &Target::Block(heap), &CTX).unwrap();
    let once = page.clone().unwrap();

    redo(&mut page, &record, &Target::Block(heap), &CTX).unwrap();

    assert_eq!(once.lsn(), record.end);
    assert!(page.unwrap() == once);
}

#[test]
fn a_page_that_no_redo_is_known_for_comes_back_with_its_next_image() {
    let tag = block(Fork::Main, 6);
    let bytes = heap_page().bytes().to_vec();
    let custom = record(200, 0, &[], vec![block_ref(0, tag, &[])]);
    let mut page = Some(heap_page());

    let error = redo(&mut page, &custom, &Target::Block(tag), &CTX).unwrap_err();
    let mut with_image = custom.clone();
    with_image.blocks[0].image = Some(image(&bytes, 0x02));
    redo(&mut page, &with_image, &Target::Block(tag), &CTX).unwrap();

    let said = error.to_string();
    assert!(matches!(error, RedoError::Unsupported { rmid: 200, .. }));
    assert!(said.contains("custom200") && said.contains("1663/5/16384") && said.contains("lsn=0/1000"));
    assert_eq!(page.unwrap().lsn(), with_image.end);
}

#[test]
fn a_record_that_does_not_fit_names_page_record_and_reason() {
    let tag = block(Fork::Main, 6);
    let main = [&700u32.to_le_bytes()[..], &9u16.to_le_bytes(), &[0, 0]].concat();
    let record = record(rmgr::HEAP, 0x10, &main, vec![block_ref(0, tag, &[])]);
    let mut page = Some(heap_page());

    let error = redo(&mut page, &record, &Target::Block(tag), &CTX).unwrap_err().to_string();

    for part in ["line pointer does not exist", "rmgr=Heap", "info=0x10", "blk=6", "lsn=0/1000"] {
        assert!(error.contains(part), "{error}");
    }
    let missing = redo(&mut None, &record, &Target::Block(tag), &CTX).unwrap_err();
    assert!(missing.to_string().contains("page does not exist"));
}

#[test]
fn the_check_counts_a_page_unlike_its_image_once_and_goes_on_from_the_image() {
    let tag = block(Fork::Main, 6);
    let main = delete(0);
    let mut page = Some(heap_page());
    let plain = record(rmgr::HEAP, 0x10, &main, vec![block_ref(0, tag, &[])]);
    redo(&mut page, &plain, &Target::Block(tag), &CTX).unwrap();
    let right = page.unwrap().bytes().to_vec();
    let mut wrong = right.clone();
    wrong[BLCKSZ - 4] ^= 1;
    let start = heap_page().bytes().to_vec();
    let run = |expected: &[u8]| {
        let mut checker = Checker::default();
        let mut first = record(rmgr::XLOG, 0xB0, &[], vec![block_ref(0, tag, &[])]);
        first.start = Lsn(0x700);
        first.end = Lsn(0x800);
        first.blocks[0].image = Some(image(&start, 0x02));
        checker.add(&first, CTX);
        let mut deleted = plain.clone();
        deleted.blocks[0].image = Some(image(expected, 0));
        checker.add(&deleted, CTX);
        let count = checker.counts()[&(rmgr::HEAP, 0x10)];
        (count.compared, count.different, checker.differences().map(|d| d.what.clone()).next())
    };

    assert_eq!(run(&right), (1, 0, None));
    let (compared, different, what) = run(&wrong);
    assert_eq!((compared, different), (1, 1));
    let what = what.unwrap();
    assert!(what.contains("first_byte=8188") && what.contains("item 1 byte 28"), "{what}");
}
