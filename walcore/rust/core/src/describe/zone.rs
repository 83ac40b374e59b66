//! The local time zone, as data: this crate asks no operating system.

use super::text::put;

/// Offsets from UTC over time.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    /// From this second since 1970 on: seconds east of UTC, and the abbreviation. Ascending.
    pub steps: Vec<(i64, i64, String)>,
}

/// Seconds from 1970 to 2000, where Postgres' timestamps begin.
const EPOCH_S: i64 = 946_684_800;
const USECS: i64 = 1_000_000;
const DAY_S: i64 = 86_400;

impl Zone {
    /// Appends a timestamp as `pg_waldump` prints it: local time, six decimals, abbreviation of the zone.
    ///
    /// Source: `timestamptz_to_str` in `src/bin/pg_waldump/compat.c`.
    pub fn put_timestamp(&self, out: &mut Vec<u8>, timestamp: i64) {
        let unix_s = timestamp / USECS + EPOCH_S;
        let step = self.steps.partition_point(|(from, ..)| *from <= unix_s).saturating_sub(1);
        let (offset, name) = self.steps.get(step).map_or((0, "UTC"), |(_, offset, name)| (*offset, name));
        let local_s = unix_s + offset;
        let (year, month, day) = date_of(local_s.div_euclid(DAY_S));
        let second = local_s.rem_euclid(DAY_S);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        two(out, year / 100);
        two(out, year % 100);
        for (before, n) in [("-", month), ("-", day), (" ", hour), (":", minute), (":", second % 60)] {
            put!(out; before);
            two(out, n);
        }
        put!(out; ".", format!("{:06}", timestamp % USECS), " ", name);
    }
}

fn two(out: &mut Vec<u8>, n: i64) {
    if (0..10).contains(&n) {
        put!(out; "0");
    }
    put!(out; n);
}

/// Year, month and day of a day since 1970, by the proleptic Gregorian calendar.
fn date_of(day: i64) -> (i64, i64, i64) {
    // Counted in eras of 400 years that begin on 1 March, so that the leap day is the last of a year.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(zone: &Zone, timestamp: i64) -> String {
        let mut out = Vec::new();
        zone.put_timestamp(&mut out, timestamp);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_print_in_the_zone_of_their_time() {
        let utc = Zone::default();
        assert_eq!(text(&utc, 0), "2000-01-01 00:00:00.000000 UTC");
        assert_eq!(text(&utc, 762_523_199_000_005), "2024-02-29 11:59:59.000005 UTC");
        assert_eq!(text(&utc, -1), "2000-01-01 00:00:00.-00001 UTC");
        let steps = vec![(0, 3600, "CET".to_owned()), (1_711_846_800, 7200, "CEST".to_owned())];
        let local = Zone { steps };
        let change = (1_711_846_800 - EPOCH_S) * USECS;
        assert_eq!(text(&local, change - 1), "2024-03-31 01:59:59.999999 CET");
        assert_eq!(text(&local, change), "2024-03-31 03:00:00.000000 CEST");
    }

    #[test]
    fn dates_follow_each_other() {
        let mut expected = (1600, 1, 1);
        let lengths = |year: i64| {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        for day in -135_140..30_000 {
            assert_eq!(date_of(day), expected);
            let (year, month, date) = expected;
            expected = match (month, date == lengths(year)[usize::try_from(month).unwrap() - 1]) {
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
                _ => (year, month, date + 1),
            };
        }
    }
}
