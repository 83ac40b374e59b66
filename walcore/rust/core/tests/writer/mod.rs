//! Writes WAL as a server would: page headers, alignment, checksums.
#![allow(dead_code, reason = "each test program uses its part")]

use walcore::Lsn;
use walcore::version::Major;

pub const PAGE: u64 = 8192;
pub const SEGMENT: u64 = 1 << 20;
pub const SYSTEM_ID: u64 = 0x1122_3344_5566_7788;

pub const CONTRECORD: u16 = 1;
pub const LONG: u16 = 2;
pub const REMOVABLE: u16 = 4;
pub const OVERWRITE: u16 = 8;

/// A record as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    pub start: Lsn,
    pub end: Lsn,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

pub struct Writer {
    pub wal: Vec<u8>,
    pub first: u64,
    pub prev: u64,
    pub tli: u32,
    pub major: Major,
    pub records: Vec<Written>,
}

impl Writer {
    /// Begins at `first`; the record before it began at `prev`.
    pub fn new(first: u64, prev: u64) -> Self {
        Self { wal: Vec::new(), first, prev, tli: 1, major: Major::V18, records: Vec::new() }
    }

    pub fn pos(&self) -> u64 {
        self.first + self.wal.len() as u64
    }

    /// Bytes left on the page, once its header is there.
    pub fn room(&self) -> u64 {
        let offset = self.pos() % PAGE;
        if offset == 0 { PAGE - header_len(self.pos()) } else { PAGE - offset }
    }

    pub fn page_header(&mut self, flags: u16, rem_len: u32) {
        let at = self.pos();
        assert_eq!(at % PAGE, 0);
        let long = at % SEGMENT == 0;
        let info = REMOVABLE | flags | if long { LONG } else { 0 };
        self.wal.extend(self.major.wal_magic().to_le_bytes());
        self.wal.extend(info.to_le_bytes());
        self.wal.extend(self.tli.to_le_bytes());
        self.wal.extend(at.to_le_bytes());
        self.wal.extend(rem_len.to_le_bytes());
        self.wal.extend([0; 4]);
        if long {
            self.wal.extend(SYSTEM_ID.to_le_bytes());
            self.wal.extend((SEGMENT as u32).to_le_bytes());
            self.wal.extend((PAGE as u32).to_le_bytes());
        }
    }

    /// Opens the page if at a boundary.
    pub fn open_page(&mut self) {
        if self.pos() % PAGE == 0 {
            self.page_header(0, 0);
        }
    }

    /// A logical message of `tot_len` bytes.
    pub fn message(&mut self, tot_len: u64) -> Written {
        let body = main_data(tot_len - 24, |i| (i * 7 + tot_len) as u8 | 1);
        self.record(21, 0, 9, &body)
    }

    /// A record that ends `short` bytes before the end of the page, padding included; not below 80 bytes long.
    pub fn fill_page(&mut self, short: u64) -> Written {
        self.open_page();
        let room = self.room();
        self.message(if room >= short + 80 { room - short } else { room + PAGE - 24 - short })
    }

    pub fn record(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> Written {
        self.open_page();
        let start = self.pos();
        let bytes = record_bytes(rmid, info, xid, self.prev, body);
        self.put(&bytes, bytes.len());
        let written = Written { start: Lsn(start), end: Lsn(self.pos()), bytes };
        self.prev = start;
        self.records.push(written.clone());
        written
    }

    /// The first `n` bytes of a record, and where the page after them starts nothing: as a crash leaves it.
    pub fn torn(&mut self, bytes: &[u8], n: usize) -> u64 {
        self.open_page();
        let start = self.pos();
        self.put(bytes, n);
        assert_eq!(self.pos() % PAGE, 0, "a torn record ends with a page");
        start
    }

    fn put(&mut self, bytes: &[u8], upto: usize) {
        let mut done = 0;
        while done < upto {
            if self.pos() % PAGE == 0 {
                self.page_header(CONTRECORD, (bytes.len() - done) as u32);
            }
            let n = (self.room() as usize).min(upto - done);
            self.wal.extend(&bytes[done..done + n]);
            done += n;
        }
        while self.pos() % 8 != 0 {
            self.wal.push(0);
        }
    }

    /// `XLOG_SWITCH` and the zeros behind it.
    pub fn switch(&mut self) -> Written {
        let mut written = self.record(0, 0x40, 0, &[]);
        let end = self.pos().div_ceil(SEGMENT) * SEGMENT;
        self.wal.resize((end - self.first) as usize, 0);
        written.end = Lsn(end);
        *self.records.last_mut().unwrap() = written.clone();
        written
    }

    pub fn overwrite_contrecord(&mut self, overwritten: u64) -> Written {
        let mut body = vec![255, 16];
        body.extend(overwritten.to_le_bytes());
        body.extend(0u64.to_le_bytes());
        self.record(0, 0xD0, 0, &body)
    }
}

pub fn header_len(page: u64) -> u64 {
    if page % SEGMENT == 0 { 40 } else { 24 }
}

/// Main data that makes `len` bytes with its own header.
pub fn main_data(len: u64, byte: impl Fn(u64) -> u8) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    let mut body = if len <= 257 { vec![255, (len - 2) as u8] } else { vec![254] };
    if len > 257 {
        body.extend((len as u32 - 5).to_le_bytes());
    }
    let left = len - body.len() as u64;
    body.extend((0..left).map(byte));
    body
}

pub fn record_bytes(rmid: u8, info: u8, xid: u32, prev: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((24 + body.len() as u32).to_le_bytes());
    bytes.extend(xid.to_le_bytes());
    bytes.extend(prev.to_le_bytes());
    bytes.extend([info, rmid, 0, 0]);
    let crc = walcore::crc32c(walcore::crc32c(0, body), &bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Numbers that look random and are always the same.
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
