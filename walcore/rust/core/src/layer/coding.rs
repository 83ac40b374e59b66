//! Integers of variable length.

use crate::reader::Reader;

/// Appends `n` in base 128, low digits first, the top bit of a byte saying that more follow.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes one; `None` if it does not end or is not the shortest form of a 64-bit number.
pub fn take_varint(r: &mut Reader<'_>) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = r.u8()?;
        let digit = u64::from(byte & 0x7F);
        if shift == 63 && digit > 1 || shift > 0 && byte == 0 {
            return None;
        }
        n |= digit << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// As [`take_varint`], for a number of 32 bits.
pub fn take_varint32(r: &mut Reader<'_>) -> Option<u32> {
    u32::try_from(take_varint(r)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_overlong_forms_do_not() {
        for n in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut r = Reader(&out);
            assert_eq!((take_varint(&mut r), r.left()), (Some(n), 0));
            out.pop();
            assert_eq!(take_varint(&mut Reader(&out)), None);
        }
        assert_eq!(take_varint(&mut Reader(&[0x80, 0x00])), None);
        assert_eq!(take_varint(&mut Reader(&[0xFF; 11])), None);
    }
}
