//! Append and AppendReply: their bytes, and whether an Append is taken.

use super::take;
use crate::Lsn;

/// WAL of one Append.
pub const WAL_BYTES_MAX: usize = 1 << 20;

/// WAL that a proposer sends to an acceptor.
///
/// ```text
/// offset  0     1         2            6      14    18      26       34        42
///         | 'a' | version | generation | term | tli | start | commit | horizon | WAL
/// ```
///
/// Big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// Of the membership.
    pub generation: u32,
    /// Of the proposer.
    pub term: u64,
    /// Postgres timeline of the WAL.
    pub tli: u32,
    /// Where the WAL stands.
    pub start: Lsn,
    /// Up to here the log is committed.
    pub commit: Lsn,
    /// Below here nobody needs it.
    pub horizon: Lsn,
    /// None of it is a heartbeat.
    pub wal: &'a [u8],
}

impl<'a> Append<'a> {
    /// Length of all before the WAL.
    pub const HEAD_LEN: usize = 42;

    /// Reads one; `None` if it is another message, of another version of the protocol, or none.
    pub fn read(mut body: &'a [u8], version: u8) -> Option<Self> {
        let rest = &mut body;
        let [tag, spoken] = take(rest)?;
        let append = Self {
            generation: u32::from_be_bytes(take(rest)?),
            term: u64::from_be_bytes(take(rest)?),
            tli: u32::from_be_bytes(take(rest)?),
            start: Lsn(u64::from_be_bytes(take(rest)?)),
            commit: Lsn(u64::from_be_bytes(take(rest)?)),
            horizon: Lsn(u64::from_be_bytes(take(rest)?)),
            wal: rest,
        };
        (tag == b'a' && spoken == version && append.wal.len() <= WAL_BYTES_MAX).then_some(append)
    }

    /// The frame of a CopyData up to the WAL.
    pub fn put_head(&self, version: u8, out: &mut Vec<u8>) {
        out.push(b'd');
        out.extend(((4 + Self::HEAD_LEN + self.wal.len()) as u32).to_be_bytes());
        out.extend([b'a', version]);
        out.extend(self.generation.to_be_bytes());
        out.extend(self.term.to_be_bytes());
        out.extend(self.tli.to_be_bytes());
        for lsn in [self.start, self.commit, self.horizon] {
            out.extend(lsn.0.to_be_bytes());
        }
    }
}

/// How far an acceptor is. Everything below `flush` is synced in its log of this term.
///
/// ```text
/// offset  0     1         2            6      14      22      30       38
///         | 'A' | version | generation | term | flush | write | commit | feedback and slots
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Of the membership.
    pub generation: u32,
    /// Of the acceptor.
    pub term: u64,
    /// A record end.
    pub flush: Lsn,
    /// End of all it has taken.
    pub write: Lsn,
    /// A lower bound of its commit LSN.
    pub commit: Lsn,
    /// What its downstreams need, as it was encoded.
    pub needs: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads one; `None` if it is another message, of another version of the protocol, or none.
    pub fn read(mut body: &'a [u8], version: u8) -> Option<Self> {
        let rest = &mut body;
        let [tag, spoken] = take(rest)?;
        let reply = Self {
            generation: u32::from_be_bytes(take(rest)?),
            term: u64::from_be_bytes(take(rest)?),
            flush: Lsn(u64::from_be_bytes(take(rest)?)),
            write: Lsn(u64::from_be_bytes(take(rest)?)),
            commit: Lsn(u64::from_be_bytes(take(rest)?)),
            needs: rest,
        };
        (tag == b'A' && spoken == version).then_some(reply)
    }

    /// All of it as a CopyData.
    pub fn put(&self, version: u8, out: &mut Vec<u8>) {
        out.push(b'd');
        out.extend(((4 + 38 + self.needs.len()) as u32).to_be_bytes());
        out.extend([b'A', version]);
        out.extend(self.generation.to_be_bytes());
        out.extend(self.term.to_be_bytes());
        for lsn in [self.flush, self.write, self.commit] {
            out.extend(lsn.0.to_be_bytes());
        }
        out.extend(self.needs);
    }
}

/// Where a log ends, and what it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Of the membership.
    pub generation: u32,
    /// The highest that the acceptor knows.
    pub term: u64,
    /// Whose Elected it took last.
    pub elected_term: u64,
    /// Postgres timeline of what follows.
    pub tli: u32,
    /// Where it ends, the part not synced yet included.
    pub write: Lsn,
    /// What ends beyond does not fit.
    pub room_end: Lsn,
}

/// What is to be done with an Append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Take,
    /// It is of another membership.
    Generation,
    /// Its proposer has had its time: tell it our term.
    Past,
    /// The Elected of its term was not taken.
    NotElected,
    /// It does not begin where the log ends.
    Elsewhere,
    /// Its timeline was not announced.
    Timeline,
    /// There is no room for it.
    Room,
}

impl LogEnd {
    /// Whether the log takes an Append of `len` bytes of WAL. Source: docs/quorum.md rules 1, 11, 17 and 18.
    pub fn judge(&self, generation: u32, term: u64, tli: u32, start: Lsn, len: usize) -> Verdict {
        if generation != self.generation {
            Verdict::Generation
        } else if term < self.term {
            Verdict::Past
        } else if term > self.term || self.elected_term != term {
            Verdict::NotElected
        } else if start != self.write {
            Verdict::Elsewhere
        } else if len == 0 {
            Verdict::Take
        } else if tli != self.tli {
            Verdict::Timeline
        } else if start.0.checked_add(len as u64).is_none_or(|end| end > self.room_end.0) {
            Verdict::Room
        } else {
            Verdict::Take
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogEnd =
        LogEnd { generation: 1, term: 5, elected_term: 5, tli: 2, write: Lsn(0x100), room_end: Lsn(0x200) };

    #[test]
    fn only_what_goes_on_where_the_log_ends_is_taken() {
        assert_eq!(LOG.judge(1, 5, 2, Lsn(0x100), 0x100), Verdict::Take);
        assert_eq!(LOG.judge(1, 5, 9, Lsn(0x100), 0), Verdict::Take, "a heartbeat has no timeline");
        assert_eq!(LOG.judge(2, 5, 2, Lsn(0x100), 1), Verdict::Generation);
        assert_eq!(LOG.judge(1, 4, 2, Lsn(0x100), 1), Verdict::Past);
        assert_eq!(LOG.judge(1, 6, 2, Lsn(0x100), 1), Verdict::NotElected);
        assert_eq!(LogEnd { elected_term: 4, ..LOG }.judge(1, 5, 2, Lsn(0x100), 1), Verdict::NotElected);
        assert_eq!(LOG.judge(1, 5, 2, Lsn(0xff), 1), Verdict::Elsewhere);
        assert_eq!(LOG.judge(1, 5, 2, Lsn(0x101), 0), Verdict::Elsewhere);
        assert_eq!(LOG.judge(1, 5, 3, Lsn(0x100), 1), Verdict::Timeline);
        assert_eq!(LOG.judge(1, 5, 2, Lsn(0x100), 0x101), Verdict::Room);
        let at_the_end = LogEnd { write: Lsn(u64::MAX), room_end: Lsn(u64::MAX), ..LOG };
        assert_eq!(at_the_end.judge(1, 5, 2, Lsn(u64::MAX), 1), Verdict::Room);
    }

    #[test]
    fn messages_come_back_as_they_were_written_and_no_prefix_is_one() {
        let append = Append {
            generation: 7,
            term: 1 << 40,
            tli: 3,
            start: Lsn(0x3000),
            commit: Lsn(0x2000),
            horizon: Lsn(0x1000),
            wal: b"bytes",
        };
        let mut out = Vec::new();
        append.put_head(2, &mut out);
        out.extend(append.wal);
        assert_eq!(out.len(), 5 + Append::HEAD_LEN + 5);
        assert_eq!(Append::read(&out[5..], 2), Some(append));
        assert!((5..5 + Append::HEAD_LEN).all(|end| Append::read(&out[5..end], 2).is_none()));

        let reply =
            Reply { generation: 7, term: 9, flush: Lsn(3), write: Lsn(2), commit: Lsn(1), needs: &[0; 18] };
        let mut out = Vec::new();
        reply.put(2, &mut out);
        assert_eq!(Reply::read(&out[5..], 2), Some(reply));
        assert!((5..5 + 38).all(|end| Reply::read(&out[5..end], 2).is_none()));
    }

    #[test]
    fn other_tags_versions_and_lengths_are_not_appends() {
        let long = Append {
            generation: 1,
            term: 1,
            tli: 1,
            start: Lsn(0),
            commit: Lsn(0),
            horizon: Lsn(0),
            wal: &vec![0; WAL_BYTES_MAX + 1],
        };
        let mut out = Vec::new();
        long.put_head(2, &mut out);
        out.extend(long.wal);
        assert_eq!(Append::read(&out[5..], 2), None);
        let mut plain = out[5..64].to_vec();
        assert!(Append::read(&plain, 2).is_some());
        plain[1] = 1;
        assert_eq!(Append::read(&plain, 2), None);
        plain[..2].copy_from_slice(b"g\x02");
        assert_eq!((Append::read(&plain, 2), Reply::read(&plain, 2)), (None, None));
    }
}
