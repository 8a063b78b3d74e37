//! Differences from other programs and from what the owners of captures expect, that are right.

/// One reason, and the cases it is the reason of.
struct Difference {
    /// Word of the set.
    set: &'static str,
    /// A case is meant when its name begins with one of these.
    cases: &'static [&'static str],
    /// Sentences for the documentation.
    why: &'static str,
}

const DIFFERENCES: &[Difference] = &[];

/// Why a case differs, if that is known and as it should be.
pub(crate) fn why(set: &str, case: &str) -> Option<&'static str> {
    DIFFERENCES
        .iter()
        .filter(|difference| difference.set == set)
        .find(|difference| difference.cases.iter().any(|begin| case.starts_with(begin)))
        .map(|difference| difference.why)
}
