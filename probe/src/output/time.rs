//! Times and durations as people read them.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

use crate::calls::TraceInfo;

/// How times of day are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// Local time of day, `12:00:01.123456`.
    #[default]
    Clock,
    /// Seconds since the trace began.
    Relative,
    /// Seconds of `CLOCK_MONOTONIC`: comparable with other tools' times.
    Monotonic,
    /// Not at all.
    None,
}

/// Turns `CLOCK_MONOTONIC` times into text.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    format: TimeFormat,
    zone: TimeZone,
    epoch_ns: u64,
    origin_ns: u64,
}

impl Clock {
    /// A clock that knows nothing of the trace yet.
    pub(super) fn new(format: TimeFormat, zone: TimeZone) -> Clock {
        Clock { format, zone, epoch_ns: 0, origin_ns: 0 }
    }

    /// Takes the trace's origin.
    pub(super) fn begin(&mut self, trace: &TraceInfo) {
        self.epoch_ns = trace.epoch_ns;
        self.origin_ns = trace.origin_ns;
    }

    /// Appends the time at `ns` (`CLOCK_MONOTONIC`), in microseconds' precision; nothing for [`TimeFormat::None`].
    pub(super) fn push(&self, out: &mut String, ns: u64) {
        match self.format {
            TimeFormat::Clock => self.push_time_of_day(out, ns),
            TimeFormat::Relative => push_seconds(out, i128::from(ns) - i128::from(self.origin_ns)),
            TimeFormat::Monotonic => push_seconds(out, i128::from(ns)),
            TimeFormat::None => {}
        }
    }

    fn push_time_of_day(&self, out: &mut String, ns: u64) {
        let wall = i128::from(self.epoch_ns) + i128::from(ns) - i128::from(self.origin_ns);
        // A date beyond the calendar's end can only come of a broken clock: the epoch is shown then.
        let stamp = Timestamp::from_nanosecond(wall).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = self.zone.to_datetime(stamp).time();
        let micros = time.subsec_nanosecond() / 1000;
        let _ = write!(out, "{:02}:{:02}:{:02}.{micros:06}", time.hour(), time.minute(), time.second());
    }
}

fn push_seconds(out: &mut String, ns: i128) {
    let sign = if ns < 0 { "-" } else { "" };
    let micros = ns.unsigned_abs() / 1000;
    let _ = write!(out, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000);
}

/// Columns of a duration: the number, a blank, the unit.
pub(super) const DURATION_WIDTH: usize = 10;

/// Appends a duration, [`DURATION_WIDTH`] columns wide, so that units line up: `   41.2 µs`, blank when not known.
pub(super) fn push_duration(out: &mut String, ns: Option<u64>) {
    let Some(ns) = ns else {
        out.push_str("          ");
        return;
    };
    let (number, unit) = number_and_unit(ns);
    let _ = write!(out, "{number:>7} {unit:<2}");
}

/// A duration within a sentence: `41.2 µs`.
pub fn duration(ns: u64) -> String {
    let (number, unit) = number_and_unit(ns);
    format!("{number} {unit}")
}

/// Rounded half up, in the unit that leaves at most three digits before the point; seconds are the largest unit.
fn number_and_unit(ns: u64) -> (String, &'static str) {
    if ns < 1_000 {
        return (ns.to_string(), "ns");
    }
    for (unit_ns, unit) in [(1_000, "µs"), (1_000_000, "ms")] {
        let tenths = ns.saturating_add(unit_ns / 20) / (unit_ns / 10);
        if tenths < 10_000 {
            return (format!("{}.{}", tenths / 10, tenths % 10), unit);
        }
    }
    let hundredths = ns.saturating_add(5_000_000) / 10_000_000;
    (format!("{}.{:02}", hundredths / 100, hundredths % 100), "s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_width_and_the_right_unit() {
        let shown = |ns| {
            let mut out = String::new();
            push_duration(&mut out, ns);
            out
        };
        for (ns, text) in [
            (Some(0), "      0 ns"),
            (Some(999), "    999 ns"),
            (Some(1_000), "    1.0 µs"),
            (Some(41_249), "   41.2 µs"),
            (Some(41_250), "   41.3 µs"),
            (Some(999_949), "  999.9 µs"),
            (Some(999_950), "    1.0 ms"),
            (Some(27_100_000), "   27.1 ms"),
            (Some(999_950_000), "   1.00 s "),
            (Some(61_234_000_000), "  61.23 s "),
            (None, "          "),
        ] {
            assert_eq!(shown(ns), text);
            assert_eq!(text.chars().count(), DURATION_WIDTH);
        }
    }

    #[test]
    fn times_count_from_where_they_should() {
        let trace = TraceInfo { epoch_ns: 1_700_000_000_123_456_789, origin_ns: 5_000_000_000, ..TraceInfo::default() };
        let shown = |format, ns| {
            let mut clock = Clock::new(format, TimeZone::UTC);
            clock.begin(&trace);
            let mut out = String::new();
            clock.push(&mut out, ns);
            out
        };
        // date -u -d @1700000000 says 22:13:20.
        assert_eq!(shown(TimeFormat::Clock, 6_000_000_000), "22:13:21.123456");
        assert_eq!(shown(TimeFormat::Relative, 6_000_001_000), "1.000001");
        assert_eq!(shown(TimeFormat::Relative, 4_999_000_000), "-0.001000");
        assert_eq!(shown(TimeFormat::Monotonic, 6_000_001_000), "6.000001");
        assert_eq!(shown(TimeFormat::None, 6_000_001_000), "");
    }

    #[test]
    fn the_zone_shifts_the_time_of_day() {
        let mut clock = Clock::new(TimeFormat::Clock, TimeZone::fixed(jiff::tz::offset(2)));
        clock.begin(&TraceInfo { epoch_ns: 1_700_000_000_000_000_000, ..TraceInfo::default() });
        let mut out = String::new();
        clock.push(&mut out, 0);
        assert_eq!(out, "00:13:20.000000");
    }
}
