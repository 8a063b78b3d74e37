//! The beginning of a file. Files of one name with different beginnings are different files.

use capture::cursor::snapshot::SnapshotExtent;
#[cfg(doc)]
use capture::flow::Stat;

/// The beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileBeginning {
    /// At its only place, or the first of several: beginning 0 of [`Stat::beginning`].
    Always,
    /// Where a `replay` begins in its store.
    Extent(SnapshotExtent),
    /// Another [`Stat::beginning`].
    At(u64),
}

impl FileBeginning {
    /// The beginning with this [`Stat::beginning`].
    pub(super) const fn at(beginning: u64) -> Self {
        match beginning {
            0 => Self::Always,
            beginning => Self::At(beginning),
        }
    }

    /// The beginning as a [`Stat::beginning`].
    pub(super) const fn offset(self) -> u64 {
        match self {
            Self::At(beginning) => beginning,
            Self::Always | Self::Extent(_) => 0,
        }
    }
}
