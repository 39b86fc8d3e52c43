//! Figures: samples of each measure and chain, round by round, and the table and the JSON made of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// A median and between what its samples lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None of no samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut samples: Vec<_> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        let (least, most) = (*samples.first()?, *samples.last()?);
        let half = samples.len() / 2;
        let median =
            if samples.len() % 2 == 1 { samples[half] } else { (samples[half - 1] + samples[half]) / 2.0 };
        Some(Self { median, least, most })
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reach {
    AtLeast(f64),
    AtMost(f64),
}

impl Reach {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What was measured, or why nothing was.
    pub(crate) measured: Option<Spread>,
    pub(crate) unit: &'static str,
    /// Over what the ratio is; empty where the figure stands alone.
    pub(crate) over: String,
    /// Of the two in each round.
    pub(crate) ratio: Option<Spread>,
    pub(crate) reach: Option<String>,
    pub(crate) verdict: Option<String>,
}

/// Samples by measure and chain; the rounds of all chains of a measure correspond.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(String, String), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, measure: &str, chain: impl ToString, sample: f64) {
        self.0.entry((measure.to_owned(), chain.to_string())).or_default().push(sample);
    }

    fn of(&self, measure: &str, chain: &str) -> &[f64] {
        self.0.get(&(measure.to_owned(), chain.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// A line of what was measured, over what was measured of another chain in the same rounds.
    pub(crate) fn row(
        &self,
        (measure, unit): (&str, &'static str),
        chain: impl ToString,
        over: Option<&str>,
        reach: Option<Reach>,
    ) -> Row {
        let chain = chain.to_string();
        let samples = self.of(measure, &chain);
        let ratio = over.and_then(|over| {
            Spread::of(samples.iter().zip(self.of(measure, over)).map(|(sample, base)| sample / base))
        });
        Row::new(format!("{measure}: {chain}"), unit, Spread::of(samples.iter().copied()))
            .over(over.unwrap_or_default(), ratio)
            .reach(reach)
    }
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, measured: Option<Spread>) -> Self {
        let (over, ratio, reach, verdict) = (String::new(), None, None, None);
        Self { name: name.into(), measured, unit, over, ratio, reach, verdict }
    }

    /// The same beside something else.
    pub(crate) fn over(mut self, over: impl Into<String>, ratio: Option<Spread>) -> Self {
        (self.over, self.ratio) = (over.into(), ratio);
        self
    }

    /// The same with what is to be reached, by the ratio where there is something to compare with.
    pub(crate) fn reach(mut self, reach: Option<Reach>) -> Self {
        let Some(reach) = reach else { return self };
        self.reach = Some(reach.in_words());
        let value = if self.over.is_empty() { self.measured } else { self.ratio };
        self.verdict = Some(match value {
            Some(value) if reach.is_met(value.median) => "reached".to_owned(),
            Some(_) => "missed".to_owned(),
            None => "not measured".to_owned(),
        });
        self
    }
}

/// All that is measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The machine, and what else was going on.
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// As a table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        for note in &self.notes {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{note}");
        }
        table += "\n| what | measured (least to most) | over | ratio (least to most) | reach | verdict |\n";
        table += "|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let measured = row.measured.map(|spread| format!("{} {}", shown(spread), row.unit));
            let [measured, ratio] = [measured, row.ratio.map(shown)].map(Option::unwrap_or_default);
            let [reach, verdict] = [&row.reach, &row.verdict].map(|text| text.as_deref().unwrap_or_default());
            let _ = writeln!(
                table,
                "| {} | {measured} | {} | {ratio} | {reach} | {verdict} |",
                row.name, row.over
            );
        }
        table
    }
}

fn shown(spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    // Three digits that count.
    let digits = match median.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    if least == most {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        let spread = |samples: &[f64]| Spread::of(samples.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn a_ratio_is_that_of_each_round() {
        let mut samples = Samples::default();
        for (mine, other) in [(2.0, 1.0), (30.0, 10.0), (400.0, 100.0)] {
            samples.add("speed", "mine", mine);
            samples.add("speed", "other", other);
        }
        let row = samples.row(("speed", "m/s"), "mine", Some("other"), Some(Reach::AtLeast(3.0)));
        assert_eq!(row.ratio, Some(Spread { median: 3.0, least: 2.0, most: 4.0 }));
        assert_eq!((row.reach.as_deref(), row.verdict.as_deref()), (Some("≥ 3"), Some("reached")));
        let row = samples.row(("speed", "m/s"), "mine", Some("other"), Some(Reach::AtMost(2.9)));
        assert_eq!(row.verdict.as_deref(), Some("missed"));
        let row = samples.row(("speed", "m/s"), "mine", Some("nobody"), Some(Reach::AtMost(2.9)));
        assert_eq!(row.verdict.as_deref(), Some("not measured"));
    }
}
