//! Values into bytes, fast: records are rendered by the million.

use crate::Lsn;
use crate::wal::RelTag;

/// What can be appended to a line of text.
pub trait Put {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
}

/// Appends values one after the other.
macro_rules! put {
    ($out:expr; $($part:expr),+ $(,)?) => {{ $( $crate::describe::text::Put::put(&$part, $out); )+ }};
}
pub(crate) use put;

impl Put for &str {
    // With the length known where it is called, a short literal is a move or two.
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Put for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

macro_rules! decimals {
    ($($unsigned:ty)*; $($signed:ty)*) => {
        $( impl Put for $unsigned {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                put_digits(out, (*self).into());
            }
        } )*
        $( impl Put for $signed {
            fn put(&self, out: &mut Vec<u8>) {
                if *self < 0 {
                    out.push(b'-');
                }
                self.unsigned_abs().put(out);
            }
        } )*
    };
}
decimals!(u8 u16 u32 u64; i8 i32 i64);

/// A number, right-aligned with blanks up to a width of at most 20.
pub struct Padded(pub u32, pub usize);

impl Put for Padded {
    fn put(&self, out: &mut Vec<u8>) {
        let mut field = [b' '; 20];
        let first = write_digits(self.0.into(), &mut field).min(field.len().saturating_sub(self.1));
        out.extend_from_slice(field.get(first..).unwrap_or_default());
    }
}

/// A number in upper-case hexadecimal, with zeros up to a width.
pub struct Hex(pub u32, pub u32);

impl Put for Hex {
    fn put(&self, out: &mut Vec<u8>) {
        let digits = (32 - self.0.leading_zeros()).div_ceil(4).max(self.1).min(8);
        let left_aligned = self.0.checked_shl(32 - 4 * digits).unwrap_or_default();
        put_first(out, hex_digits(left_aligned), digits as usize);
    }
}

/// A position as `%X/%X`.
impl Put for Lsn {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; Hex((self.0 >> 32) as u32, 1), "/", Hex(self.0 as u32, 1));
    }
}

/// A relation as `tablespace/database/relfilenode`.
impl Put for RelTag {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; self.spc, "/", self.db, "/", self.rel);
    }
}

/// `T` or `F`.
pub struct Tf(pub bool);

impl Put for Tf {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(if self.0 { b'T' } else { b'F' });
    }
}

/// A transaction with its epoch, as `epoch:xid`.
pub struct FullXid(pub u64);

impl Put for FullXid {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; (self.0 >> 32) as u32, ":", self.0 as u32);
    }
}

/// A text that ends with the first zero byte, as C prints it.
pub struct CText<'a>(pub &'a [u8]);

impl Put for CText<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.iter().take_while(|b| **b != 0));
    }
}

/// A floating-point number as `%g`.
pub struct General(pub f64);

impl Put for General {
    fn put(&self, out: &mut Vec<u8>) {
        if !self.0.is_finite() {
            let sign = if self.0.is_sign_negative() { "-" } else { "" };
            return put!(out; sign, if self.0.is_nan() { "nan" } else { "inf" });
        }
        // Six significant digits decide between the two forms.
        let scientific = format!("{:.5e}", self.0);
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        if (-4..6).contains(&exponent) {
            let decimals = usize::try_from(5 - exponent).unwrap_or_default();
            put!(out; without_zeros(&format!("{:.decimals$}", self.0)));
        } else {
            let sign = if exponent < 0 { "-" } else { "+" };
            put!(out; without_zeros(mantissa), "e", sign, format!("{:02}", exponent.abs()));
        }
    }
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Appends ` [a, b]`, or ` []`.
///
/// Source: `array_desc` in `src/backend/access/rmgrdesc/rmgrdesc_utils.c`.
pub fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Vec<u8>, T),
) {
    put!(out; " [");
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            put!(out; ", ");
        }
        each(out, item);
    }
    put!(out; "]");
}

/// Appends ` [a, b]` of 16-bit numbers, two bytes each.
pub fn offsets(out: &mut Vec<u8>, bytes: &[u8]) {
    array(out, bytes.chunks_exact(2), |out, b| put!(out; u16_of(b)));
}

/// The little-endian number in two bytes.
pub fn u16_of(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_le_bytes(*b))
}

/// The eight digits of a number, all at once.
fn hex_digits(n: u32) -> [u8; 8] {
    let n = u64::from(n);
    let n = (n & 0xFFFF_0000) << 16 | (n & 0xFFFF);
    let n = (n << 8 & 0x00FF_0000_00FF_0000) | (n & 0x0000_00FF_0000_00FF);
    let nibbles = (n << 4 & 0x0F00_0F00_0F00_0F00) | (n & 0x000F_000F_000F_000F);
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 7).to_be_bytes()
}

fn put_digits(out: &mut Vec<u8>, n: u64) {
    // Most numbers in records have four digits at most.
    match n {
        0..10 => out.push(b'0' + n as u8),
        10..100 => out.extend_from_slice(&two_digits(n)),
        100..10_000 => {
            let ([thousands, hundreds], [tens, ones]) = (two_digits(n / 100), two_digits(n % 100));
            if n < 1000 {
                out.extend_from_slice(&[hundreds, tens, ones]);
            } else {
                out.extend_from_slice(&[thousands, hundreds, tens, ones]);
            }
        }
        _ => put_many_digits(out, n),
    }
}

/// The digits of a number below 100.
fn two_digits(n: u64) -> [u8; 2] {
    let tens = n as u8 / 10;
    [b'0' + tens, b'0' + (n as u8 - tens * 10)]
}

fn put_many_digits(out: &mut Vec<u8>, n: u64) {
    let mut field = [0u8; 40];
    let (digits, _) = field.split_at_mut(20);
    let first = write_digits(n, digits);
    if let Some(from_first) = field.get(first..).and_then(|rest| rest.first_chunk::<20>()) {
        put_first(out, *from_first, 20 - first);
    }
}

/// Appends the first `len` bytes of `field`: all are copied, which takes fewer steps than so many.
#[inline]
fn put_first<const N: usize>(out: &mut Vec<u8>, field: [u8; N], len: usize) {
    let at = out.len();
    out.extend_from_slice(&field);
    out.truncate(at + len);
}

/// Writes a number at the end of `field`, of an even length; says where it begins, 0 also if it does not fit.
pub fn write_digits(mut n: u64, field: &mut [u8]) -> usize {
    let mut first = field.len();
    for pair in field.rchunks_exact_mut(2) {
        let [tens, ones] = pair else { break };
        let low = n % 100;
        *ones = b'0' + (low % 10) as u8;
        first -= 1;
        if n >= 10 {
            *tens = b'0' + (low / 10) as u8;
            first -= 1;
        }
        n /= 100;
        if n == 0 {
            break;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(part: &impl Put) -> String {
        let mut out = Vec::new();
        part.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_print_as_printf_prints_them() {
        for n in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 12_345, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(text(&n), n.to_string());
        }
        for n in [0, -1, i64::MIN, 7] {
            assert_eq!(text(&n), n.to_string());
        }
        for n in [0, 7, 0xABC, u32::MAX] {
            assert_eq!(text(&Padded(n, 6)), format!("{n:6}"));
            assert_eq!(text(&Hex(n, 1)), format!("{n:X}"));
            assert_eq!(text(&Hex(n, 8)), format!("{n:08X}"));
        }
        assert_eq!(text(&Lsn(0x1_0000_0028)), "1/28");
        assert_eq!(text(&FullXid(0x3_0000_0007)), "3:7");
        assert_eq!(text(&CText(b"ab\0c")), "ab");
    }

    #[test]
    fn floating_point_prints_as_percent_g() {
        for (n, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (100_000.0, "100000"),
            (123_456.7, "123457"),
            (999_999.5, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(text(&General(n)), expected);
        }
    }
}
