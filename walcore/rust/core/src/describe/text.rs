//! Numbers into bytes, fast: records are rendered by the million.

use crate::Lsn;

/// Appends an unsigned number in decimal.
pub fn decimal(out: &mut Vec<u8>, n: impl Into<u64>) {
    let mut digits = [0u8; 20];
    out.extend_from_slice(digits_of(n.into(), &mut digits));
}

/// Appends an unsigned number in decimal, right-aligned to `width` with blanks.
pub fn decimal_padded(out: &mut Vec<u8>, n: impl Into<u64>, width: usize) {
    let mut digits = [0u8; 20];
    let digits = digits_of(n.into(), &mut digits);
    let blanks = width.saturating_sub(digits.len());
    out.extend(std::iter::repeat_n(b' ', blanks));
    out.extend_from_slice(digits);
}

/// Appends a signed number in decimal.
pub fn signed(out: &mut Vec<u8>, n: impl Into<i64>) {
    let n = n.into();
    if n < 0 {
        out.push(b'-');
    }
    decimal(out, n.unsigned_abs());
}

/// Appends a number in upper-case hexadecimal, with zeros up to `width`.
pub fn hex(out: &mut Vec<u8>, n: impl Into<u64>, width: usize) {
    let n = n.into();
    let digits = (64 - n.leading_zeros() as usize).div_ceil(4).max(1).max(width);
    for i in (0..digits).rev() {
        let nibble = (n >> (4 * i)) as u8 & 0xF;
        out.push(if nibble < 10 { b'0' + nibble } else { b'A' - 10 + nibble });
    }
}

/// Appends a position as `%X/%X`.
pub fn lsn(out: &mut Vec<u8>, at: Lsn) {
    hex(out, at.0 >> 32, 1);
    out.push(b'/');
    hex(out, at.0 & 0xFFFF_FFFF, 1);
}

fn digits_of(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    for (i, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
        first = i;
        if n == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_printf_prints_them() {
        for n in [0, 1, 9, 10, 99, 12_345, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, n);
            decimal_padded(&mut out, n, 12);
            hex(&mut out, n, 1);
            hex(&mut out, n, 8);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{n}{n:>12}{n:X}{n:08X}"));
        }
        for n in [0, -1, i64::MIN, 7] {
            let mut out = Vec::new();
            signed(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
        let mut out = Vec::new();
        lsn(&mut out, Lsn(0x1_0000_0028));
        assert_eq!(out, b"1/28");
    }
}
