//! Decimal digits, as a line of JSON has several of.
//!
//! They are made in a register, eight at a time, and stored as eight bytes. Digits that are made in memory by twos and then
//! copied make the copy wait for each of the stores: that was a third of what a line took (`perf`, AMD Zen 4).

/// Appends `n` in decimal.
#[inline]
pub(super) fn push(out: &mut Vec<u8>, n: u64) {
    match n {
        0..EIGHT => some(out, n),
        EIGHT..SIXTEEN => {
            some(out, n / EIGHT);
            eight(out, n % EIGHT);
        }
        SIXTEEN.. => {
            some(out, n / SIXTEEN);
            eight(out, n / EIGHT % EIGHT);
            eight(out, n % EIGHT);
        }
    }
}

const EIGHT: u64 = 100_000_000;
const SIXTEEN: u64 = EIGHT * EIGHT;
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Without leading zeros.
#[inline]
fn some(out: &mut Vec<u8>, n: u64) {
    let digits = values(n);
    let leading = (digits.trailing_zeros() / 8).min(7);
    let end = out.len() + 8 - leading as usize;
    out.extend_from_slice(&((digits | ZEROS) >> (8 * leading)).to_le_bytes());
    out.truncate(end);
}

#[inline]
fn eight(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&(values(n) | ZEROS).to_le_bytes());
}

/// The eight digits of `n`, below [`EIGHT`]: the first in the lowest byte. Halves are divided side by side in one word: fours
/// by 100 (`* 10486 >> 20`, exact below 10,000), twos by 10 (`* 103 >> 10`, exact below 100).
#[inline]
fn values(n: u64) -> u64 {
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - tens * 10) << 8)
}

#[cfg(test)]
mod tests {
    use super::push;

    fn check(n: u64) {
        let mut out = b"n:".to_vec();
        push(&mut out, n);
        assert_eq!(String::from_utf8_lossy(&out), format!("n:{n}"));
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        // Each half of eight digits on its own: all values of four digits, in each place.
        for n in 0..10_000_u64 {
            for unit in [1, 10_000, 100_000_000, 1_000_000_000_000, 10_000_000_000_000_000] {
                n.checked_mul(unit).into_iter().for_each(check);
            }
        }
        for digits in 0..20 {
            let power = 10_u64.pow(digits);
            [power - 1, power, power + 1, power.saturating_mul(9), power.saturating_mul(18)]
                .into_iter()
                .for_each(check);
        }
        for bit in 0..64 {
            [1 << bit, u64::MAX >> bit, u64::MAX << bit].into_iter().for_each(check);
        }
        let mut n: u64 = 1;
        for _ in 0..100_000 {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            check(n >> (n >> 58));
        }
    }
}
