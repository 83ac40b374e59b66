//! Random records on random pages: redo, touches and masks give an answer or an error, and never panic.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use walcore::Lsn;
use walcore::mask::{AccessMethod, mask};
use walcore::page::{BLCKSZ, PageBuf};
use walcore::redo::{Ctx, Target, Touched, redo, touches};
use walcore::rmgr;
use walcore::version::Major;
use walcore::wal::{BlockRef, BlockTag, Fork, Record, RecordHeader, RelTag};

/// A small generator: the same numbers from the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// Small numbers, mostly: they are what records are made of.
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let words = (0..len.div_ceil(4)).flat_map(|_| {
            let word = self.next();
            (0..4).map(move |i| (word >> (16 * i)) as u16)
        });
        let small = words.map(|half| if half % 3 == 0 { (half >> 8) as u8 } else { half as u8 & 3 });
        small.take(len as usize).collect()
    }

    fn some_len(&mut self) -> u64 {
        let max = [8, 40, 200, 3000][self.below(4) as usize];
        self.below(max)
    }
}

fn page(random: &mut Random) -> PageBuf {
    let mut page = PageBuf::zeroed();
    match random.below(8) {
        0 => return page,
        1 => return PageBuf::from_bytes(&random.bytes(BLCKSZ as u64)).unwrap(),
        _ => {}
    }
    page.init([0, 8, 16][random.below(3) as usize]);
    for _ in 0..random.below(30) {
        let len = 8 + random.some_len();
        let mut item = random.bytes(len);
        // An index tuple of the right length, more often than not.
        let info = (len as u16).to_le_bytes();
        item[6..8].copy_from_slice(&info);
        item[7] |= [0, 0x20, 0x60][random.below(3) as usize];
        if page.append_item(&item).is_err() {
            break;
        }
    }
    let special = usize::from(page.special());
    if random.below(20) == 0 {
        page.bytes_mut()[special..].fill(0xFF);
        return page;
    }
    for at in special..BLCKSZ {
        let byte = random.below(26) as u8;
        page.bytes_mut()[at] = if byte < 24 { byte } else { 0xFF };
    }
    for _ in 0..random.below(4) {
        let end = [24, 60, BLCKSZ as u64][random.below(3) as usize];
        let at = random.below(end) as usize;
        page.bytes_mut()[at] = random.next() as u8;
    }
    page
}

/// How often to try: `HOSTILE_TIMES` times as often as usual, if that is set.
fn rounds(usual: u32) -> u32 {
    std::env::var("HOSTILE_TIMES").ok().and_then(|times| times.parse().ok()).map_or(usual, |n: u32| usual * n)
}

struct Body {
    main: Vec<u8>,
    data: Vec<Vec<u8>>,
}

fn record<'a>(random: &mut Random, body: &'a Body) -> Record<'a> {
    let rmid = random.below(rmgr::RMGRS.len() as u64 + 1) as u8;
    let rmid = if usize::from(rmid) == rmgr::RMGRS.len() { 200 } else { rmid };
    let info = (random.below(16) as u8) << 4;
    let xid = random.next() as u32;
    let header = RecordHeader { tot_len: 24, xid, prev: Lsn(0), info, rmid, crc: 0 };
    let mut blocks = Vec::new();
    let rel = RelTag { spc: 1663, db: 5, rel: 16384 };
    for (id, data) in body.data.iter().enumerate() {
        if random.below(5) == 0 {
            continue;
        }
        let fork = [Fork::Main, Fork::Main, Fork::Main, Fork::Vm, Fork::Fsm][random.below(5) as usize];
        let blkno = if random.below(4) == 0 { random.next() as u32 } else { id as u32 };
        let will_init = random.below(3) == 0;
        let tag = BlockTag { rel, fork, blkno };
        blocks.push(BlockRef { id: id as u8, tag, will_init, data, image: None });
    }
    let (start, end) = (Lsn(1 << 30), Lsn((1 << 30) + 1000));
    Record { start, end, header, blocks, origin: None, toplevel_xid: None, main_data: &body.main }
}

#[test]
fn random_records_on_random_pages_never_panic() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut applied, mut refused) = (0, 0);
    for _ in 0..rounds(8_000) {
        let main_len = random.some_len();
        let mut body = Body { main: random.bytes(main_len), data: Vec::new() };
        for _ in 0..5 {
            let len = random.some_len();
            body.data.push(random.bytes(len));
        }
        let record = record(&mut random, &body);
        let major = Major::ALL[random.below(4) as usize];
        let ctx = Ctx { major, hint_bits_logged: random.below(2) == 0 };
        let mut targets: Vec<Target> = record.blocks.iter().map(|b| Target::Block(b.tag)).collect();
        let read = touches(&record, major, &mut |touched| {
            if let Touched::Page { target, .. } = touched {
                assert!(targets.len() < 10_000);
                targets.push(target);
            }
        });
        refused += u32::from(read.is_err());
        for target in targets {
            let mut page = Some(page(&mut random)).filter(|_| random.below(10) > 0);
            if let Some(page) = &mut page
                && random.below(2) == 0
            {
                page.set_lsn(Lsn(0));
            }
            match redo(&mut page, &record, &target, &ctx) {
                Ok(()) => applied += 1,
                Err(error) => {
                    assert!(error.to_string().contains("lsn=0/40000000"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    // The records are wild, not hopeless: both ways are well trodden.
    assert!(applied > 3_000 && refused > 3_000, "applied={applied} refused={refused}");
}

#[test]
fn masks_of_random_pages_never_panic() {
    let mut random = Random(0x0123_4567_89AB_CDEF);
    for _ in 0..rounds(1_000) {
        let page = page(&mut random);
        for name in ["heap", "btree", "hash", "gin", "gist", "spgist", "brin", "sequence", "generic", "vm"] {
            mask(&mut page.clone(), AccessMethod::from_name(name).unwrap(), 7);
        }
    }
}
