//! Medians and their spread.

use serde::Serialize;

/// A median and the quartiles around it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

impl Spread {
    /// The spread of some samples; there must be one at least.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Self {
            median: at(2),
            lower: at(1),
            upper: at(3),
        }
    }

    /// The spread of the differences between samples that were taken in pairs.
    pub(crate) fn of_differences(samples: &[f64], others: &[f64]) -> Self {
        let differences: Vec<f64> = samples.iter().zip(others).map(|(a, b)| a - b).collect();
        Self::of(&differences)
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.1} ({:.1}..{:.1})", self.median, self.lower, self.upper);
        f.pad(&text)
    }
}
