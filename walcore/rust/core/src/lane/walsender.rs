//! What a primary's walsender says inside a CopyBoth, and the answer to it.

use super::take;
use crate::Lsn;

/// A message of the primary. Source: PostgreSQL 18 `doc/src/sgml/protocol.sgml`, "Streaming Replication Protocol".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPrimary<'a> {
    /// XLogData.
    Wal {
        /// Where it stands.
        start: Lsn,
        /// End of all that the primary could send now.
        end: Lsn,
        /// Its bytes.
        wal: &'a [u8],
    },
    /// A keepalive.
    Keepalive {
        /// End of all that the primary could send now.
        end: Lsn,
        /// It waits for an answer.
        wants_reply: bool,
    },
}

impl<'a> FromPrimary<'a> {
    /// Reads one; `None` if it is none.
    pub fn read(mut body: &'a [u8]) -> Option<Self> {
        let rest = &mut body;
        match take::<1>(rest)? {
            [b'w'] => {
                let [start, end, _sent] =
                    [take(rest)?, take(rest)?, take::<8>(rest)?].map(u64::from_be_bytes);
                Some(Self::Wal { start: Lsn(start), end: Lsn(end), wal: rest })
            }
            [b'k'] => {
                let [end, _sent] = [take(rest)?, take::<8>(rest)?].map(u64::from_be_bytes);
                let [wants_reply] = take(rest)?;
                rest.is_empty().then_some(Self::Keepalive { end: Lsn(end), wants_reply: wants_reply != 0 })
            }
            _ => None,
        }
    }
}

/// A standby status update that calls everything up to `lsn` written, flushed and applied: all of it as a CopyData.
///
/// `time`: microseconds since 2000.
pub fn put_status(lsn: Lsn, time: i64, out: &mut Vec<u8>) {
    out.push(b'd');
    out.extend((4 + 34_u32).to_be_bytes());
    out.push(b'r');
    for position in [lsn, lsn, lsn] {
        out.extend(position.0.to_be_bytes());
    }
    out.extend(time.to_be_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole_or_not_at_all() {
        let mut wal = b"w".to_vec();
        for number in [7_u64, 9, 1] {
            wal.extend(number.to_be_bytes());
        }
        assert!((0..25).all(|end| FromPrimary::read(&wal[..end]).is_none()));
        assert_eq!(FromPrimary::read(&wal), Some(FromPrimary::Wal { start: Lsn(7), end: Lsn(9), wal: b"" }));
        wal.extend(b"xy");
        assert_eq!(
            FromPrimary::read(&wal),
            Some(FromPrimary::Wal { start: Lsn(7), end: Lsn(9), wal: b"xy" })
        );

        let mut alive = b"k".to_vec();
        alive.extend(9_u64.to_be_bytes());
        alive.extend(1_u64.to_be_bytes());
        alive.push(1);
        assert!((0..18).all(|end| FromPrimary::read(&alive[..end]).is_none()));
        assert_eq!(
            FromPrimary::read(&alive),
            Some(FromPrimary::Keepalive { end: Lsn(9), wants_reply: true })
        );
        alive.push(0);
        assert_eq!(FromPrimary::read(&alive), None);
        assert_eq!(FromPrimary::read(b"s"), None);
    }

    #[test]
    fn a_status_is_as_long_as_it_says() {
        let mut out = Vec::new();
        put_status(Lsn(5), -1, &mut out);
        assert_eq!(out.len(), 1 + 4 + 34);
        assert_eq!(out[..6], *b"d\0\0\0\x26r");
        assert_eq!(out[6..30], [5_u64.to_be_bytes(); 3].concat());
        assert_eq!(out[30..], *b"\xff\xff\xff\xff\xff\xff\xff\xff\0");
    }
}
