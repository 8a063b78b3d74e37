//! Smaller rings where their directory has little room, as in a container, whose `/dev/shm` has
//! 64 MiB by default.
//!
//! Only the default size gives way: a size that somebody has chosen is reserved or refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use capture::pipeline::Spec;
use capture::ring::Geometry;
use nix::sys::statvfs::statvfs;

use super::Planned;
use crate::output::say;
use crate::settings::DEFAULT_RING;

/// Sizes are rounded down to a multiple of this, as long as they are larger.
const ROUND: u64 = 1 << 20;

/// Gives captures that are made together smaller rings if their directory has no room for rings of
/// the default size. They share half of the room; the rest is for later captures.
pub(super) fn with_rings(mut planned: Vec<Planned>) -> Vec<Planned> {
    let rings = planned.iter().filter(|one| has_ring(&one.spec));
    let folders: BTreeSet<PathBuf> = rings.map(|one| one.spec.ring_dir.clone()).collect();
    for folder in folders {
        let is_here = |one: &Planned| has_ring(&one.spec) && one.spec.ring_dir == folder;
        let Some(free) = room(&folder) else { continue };
        let specs = || planned.iter().filter(|one| is_here(one)).map(|one| &one.spec);
        // Rings of an earlier run are used again.
        let room = free.saturating_add(specs().map(held).sum());
        let needed: u64 = specs().map(|spec| file_size(spec.ring_size, spec.snaplen)).sum();
        if needed <= room {
            continue;
        }
        let chosen = specs().filter(|spec| !spec.is_default_ring);
        let chosen: u64 = chosen.map(|spec| file_size(spec.ring_size, spec.snaplen)).sum();
        let count = specs().filter(|spec| spec.is_default_ring).count();
        let share = room.saturating_sub(chosen) / 2 / u64::try_from(count.max(1)).unwrap_or(1);
        for one in planned.iter_mut().filter(|one| is_here(one) && one.spec.is_default_ring) {
            // Without any room, opening the ring reports that.
            let Some(size) = fitting(share, one.spec.snaplen) else { continue };
            one.spec.ring_size = size;
            say(format_args!(
                "{}: a ring of {} instead of {}: {} has room for {} only (--ring SIZE chooses)",
                one.spec.alias,
                mebibytes(size),
                mebibytes(DEFAULT_RING),
                folder.display(),
                mebibytes(room),
            ));
        }
    }
    planned
}

fn has_ring(spec: &Spec) -> bool {
    spec.source.savefile_path().is_none()
}

fn mebibytes(bytes: u64) -> String {
    if bytes >= ROUND { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

/// Bytes that are free for files below this directory, which need not exist yet; `None` if that is
/// not known.
fn room(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|place| place.exists())?;
    let found = statvfs(there).ok()?;
    // A file system without a size has no blocks.
    (found.blocks() > 0).then(|| found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Bytes that the ring of an earlier run takes.
fn held(spec: &Spec) -> u64 {
    let found = fs::symlink_metadata(spec.ring_dir.join(format!("{}.ring", spec.alias)));
    // `st_blocks` counts 512 bytes each, stat(2).
    found.map_or(0, |found| found.blocks().saturating_mul(512))
}

/// Bytes of the file of a ring; 0 for a size that no ring has.
fn file_size(size: u64, snaplen: u32) -> u64 {
    Geometry::new(size, snaplen).map_or(0, |geometry| geometry.file_size())
}

/// The size of the largest ring whose file has at most `share` bytes; `None` if none is so small.
fn fitting(share: u64, snaplen: u32) -> Option<u64> {
    let sizes = (1..=32).rev().map(|part| share.min(DEFAULT_RING) / 32 * part);
    let sizes = sizes.map(|size| if size > ROUND { size / ROUND * ROUND } else { size });
    let mut sizes = sizes.filter(|size| Geometry::new(*size, snaplen).is_ok());
    sizes.find(|size| file_size(*size, snaplen) <= share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_ring_that_fits_is_taken() {
        let mebi = |count: u64| count << 20;
        for (share, snaplen, size) in [
            (mebi(32), 262_144, Some(mebi(27))),
            (mebi(8), 262_144, Some(mebi(3))),
            (mebi(1), 262_144, None),
            (mebi(1000), 262_144, Some(mebi(64))),
            (0, 262_144, None),
        ] {
            assert_eq!(fitting(share, snaplen), size, "{share}");
            if let Some(size) = size {
                assert!(file_size(size, snaplen) <= share);
            }
        }
    }
}
