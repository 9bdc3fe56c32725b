//! What is printed: medians of rounds, and what was wanted of them.

use std::fmt;

/// The values of one figure, one for each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// NaN without values.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.len() % 2) {
            (None, _) => f64::NAN,
            (Some(&value), 1) => value,
            (Some(&value), _) => sorted.get(middle.wrapping_sub(1)).map_or(value, |below| f64::midpoint(*below, value)),
        }
    }

    /// Value by value: what was measured in pairs.
    pub(crate) fn divided_by(&self, other: &Self) -> Self {
        self.with(other, |value, other| value / other)
    }

    /// Value by value.
    pub(crate) fn with(&self, other: &Self, together: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(&value, &other)| together(value, other)).collect())
    }

    fn ends(&self) -> (f64, f64) {
        self.0.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
    }
}

/// One line of the table, with the ends of its series.
pub(crate) fn figure(name: &str, series: &Series, unit: &str) {
    let (low, high) = series.ends();
    println!("  {name:<66} {:>10} {unit:<8} {} … {}", number(series.median()), number(low), number(high));
}

/// One line of the table, with a second figure of the same thing.
pub(crate) fn beside(name: &str, series: &Series, unit: &str, other: &Series) {
    let (low, high) = series.ends();
    let spread = format!("{} … {}", number(low), number(high));
    println!("  {name:<66} {:>10} {unit:<8} {spread:<20} {:>10}", number(series.median()), number(other.median()));
}

/// One line of the table, from a single run.
pub(crate) fn single(name: &str, value: &str, unit: &str) {
    println!("  {name:<66} {value:>10} {unit:<8}");
}

/// Four significant digits, in a form that a person reads.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100_000.0 => format!("{:.0}k", value / 1000.0),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Wanted {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

/// All that was wanted, for the end.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Vec<(String, Wanted, f64)>);

impl Verdicts {
    pub(crate) fn want(&mut self, what: impl Into<String>, wanted: Wanted, value: f64) {
        self.0.push((what.into(), wanted, value));
    }

    pub(crate) fn print(&self) {
        for (what, wanted, value) in &self.0 {
            let verdict = if wanted.is_met(*value) { "ok" } else { "MISSED" };
            println!("  {what:<66} wanted {wanted}: {} {verdict}", number(*value));
        }
    }
}
