//! Checksums of files in the tree, computed by ordinary tools.

use std::path::Path;

use pcapfs_tests::{run, tool};

use crate::data::in_parallel;

/// Number of files given to one run of a tool.
const BATCH: usize = 400;

/// The checksums that `program` (such as `sha256sum`) prints for files, in their order, or its
/// error message for a file that it cannot read.
pub(crate) fn of<P: AsRef<Path> + Sync>(program: &str, files: &[P]) -> Vec<Result<String, String>> {
    let batches: Vec<&[P]> = files.chunks(BATCH).collect();
    in_parallel(&batches, |batch| of_batch(program, batch)).concat()
}

fn of_batch<P: AsRef<Path>>(program: &str, files: &[P]) -> Vec<Result<String, String>> {
    let finished = run(tool(program).args(files.iter().map(AsRef::as_ref)), 120);
    let lines: Vec<&str> = finished.text().lines().collect();
    if lines.len() == files.len() {
        return lines.iter().map(|line| Ok(word(line))).collect();
    }
    // A file cannot be read. Find it by running the tool on each.
    files
        .iter()
        .map(|file| {
            let finished = run(tool(program).arg(file.as_ref()), 60);
            if finished.status.success() {
                Ok(word(finished.text()))
            } else {
                Err(finished.stderr.trim().to_owned())
            }
        })
        .collect()
}

fn word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().trim_start_matches('\\').to_owned()
}
