//! A figure taken several times.

/// The values of one figure, one for each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds the values of another sample.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// The value below which `part` (0 to 1) of all values lie; 0 if the sample is empty.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = part * (sorted.len().max(1) - 1) as f64;
        let below = sorted.get(index.floor() as usize).copied().unwrap_or(0.0);
        let above = sorted.get(index.ceil() as usize).copied().unwrap_or(0.0);
        below + (above - below) * index.fract()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// This sample's values divided by another's, round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// The median, followed by the smallest and the largest value in parentheses.
    pub(crate) fn show(&self, digits: usize) -> String {
        let [median, min, max] = [0.5, 0.0, 1.0].map(|part| self.quantile(part));
        if self.0.len() < 2 {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
