//! The lines of a capture's logs as they come, from a position on.
//!
//! A follower is a cursor over logs that the daemon keeps. It survives the daemon: another one
//! numbers its lines from 1 again, beginning with the oldest packet that is retained, so the follower
//! begins with its first line, and leaves out the lines that it gave out lately. Lines that had left
//! a log before they were taken are counted.

use std::io;
use std::sync::Arc;

use super::daemon::{CaptureView, DaemonLink};
use super::event_kind::EventKind;
use super::lines::{LineBlock, LogReader};
use super::position::CapturePosition;
use super::recent::RecentLines;
use super::tree::{CaptureDirectory, DaemonTree, TreeReader};
use super::trouble::Trouble;

/// Blocks of a log that are looked at for one answer: enough for a quick search, few enough for the
/// time in which a tree has to answer.
const BLOCKS: usize = 64;

/// The daemon and its tree, for all followers of a process.
#[derive(Debug)]
pub(in crate::cli) struct LogSource {
    pub(in crate::cli) daemon: DaemonLink,
    pub(in crate::cli) tree: TreeReader,
}

/// Where a follower without a position begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum LogBeginning {
    /// With the next line to come.
    Now,
    /// With the oldest line that is kept.
    Oldest,
}

/// The logs of one capture, from a position on.
#[derive(Debug)]
pub(in crate::cli) struct CaptureFollower {
    beginning: LogBeginning,
    position: CapturePosition,
    logs: Vec<LogCursor>,
    /// Lines given out lately, for the next daemon.
    recent: RecentLines,
    /// Another daemon than the first one has answered.
    is_restarted: bool,
}

/// The place in one log.
#[derive(Debug)]
struct LogCursor {
    kind: EventKind,
    name: &'static str,
    /// `None` until it is opened, and after an error.
    reader: Option<LogReader>,
    place: LogPlace,
}

/// Where a cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogPlace {
    /// Before the first line that is looked at.
    Beginning(LogBeginning),
    /// After the line of this number.
    After(u64),
}

/// What a log gave.
struct BlockTaken {
    reader: LogReader,
    place: LogPlace,
    /// Lines that had left the log.
    lost: u64,
    block: Option<LineBlock>,
    /// The first of its lines that is wanted.
    first: u64,
    /// False if more lines may be there.
    is_at_end: bool,
}

/// A line that was taken.
#[derive(Clone, Debug)]
pub(in crate::cli) struct TakenLine {
    pub(in crate::cli) kind: EventKind,
    pub(in crate::cli) number: u64,
    /// Without its newline.
    pub(in crate::cli) text: Vec<u8>,
}

/// The lines that have come.
#[derive(Debug, Default)]
pub(in crate::cli) struct LinesTaken {
    /// The logs are those of another daemon, or of another capture of this name.
    pub(in crate::cli) is_restarted: bool,
    /// Lines that had left a log.
    pub(in crate::cli) lost: Vec<(EventKind, u64)>,
    /// Those of a log in their order.
    pub(in crate::cli) lines: Vec<TakenLine>,
    /// False if more lines may be there.
    pub(in crate::cli) is_all: bool,
}

impl LogSource {
    pub(in crate::cli) fn new(daemon: DaemonLink) -> Arc<Self> {
        Arc::new(Self { daemon, tree: TreeReader::default() })
    }
}

impl CaptureFollower {
    /// Follows these logs, from a saved position if there is one.
    pub(in crate::cli) fn new(
        kinds: &[EventKind],
        beginning: LogBeginning,
        saved: Option<CapturePosition>,
    ) -> Self {
        let position = saved.unwrap_or_default();
        let logs = kinds.iter().filter_map(|kind| {
            let place = position.line(*kind);
            let place = place.map_or(LogPlace::Beginning(beginning), LogPlace::After);
            Some(LogCursor { kind: *kind, name: kind.log()?, reader: None, place })
        });
        let logs = logs.collect();
        let recent = RecentLines::default();
        Self { beginning, logs, position, recent, is_restarted: false }
    }

    /// The place after the lines that were [delivered](Self::delivered).
    pub(in crate::cli) const fn position(&self) -> &CapturePosition {
        &self.position
    }

    /// Notes that a line has reached the one for whom it is.
    pub(in crate::cli) fn delivered(&mut self, kind: EventKind, number: u64) {
        self.position.set_line(kind, number);
    }

    /// Notes the state of the capture that was reported.
    pub(in crate::cli) fn set_state(&mut self, state: &str) {
        self.position.state = Some(state.to_owned());
    }

    /// Takes lines that have come: a block of each log.
    ///
    /// # Errors
    /// The daemon or its tree do not answer. The next call goes on at the same place.
    pub(in crate::cli) async fn take(
        &mut self,
        source: &LogSource,
        view: &CaptureView,
    ) -> Result<LinesTaken, Trouble> {
        let tree = source.tree.tree(&source.daemon).await?;
        let mut taken = LinesTaken { is_all: true, ..LinesTaken::default() };
        taken.is_restarted = self.enter(&tree, view.id());
        let directory = tree.capture(&view.name);
        for index in 0..self.logs.len() {
            let block = self.take_block(source, &directory, index).await;
            let block = block.inspect_err(|_| source.tree.forget())?;
            self.add(index, block, &mut taken);
        }
        Ok(taken)
    }

    /// Begins anew if it is another daemon, or another capture. Returns whether that is so.
    fn enter(&mut self, tree: &DaemonTree, capture: u64) -> bool {
        let is_known = self.position.is_in(&tree.generation, capture);
        if is_known {
            return false;
        }
        let is_other = self.position.is_set();
        self.position.begin(&tree.generation, capture);
        if is_other {
            self.is_restarted = true;
            for log in &mut self.logs {
                log.reader = None;
                log.place = LogPlace::After(0);
            }
        }
        is_other
    }

    async fn take_block(
        &mut self,
        source: &LogSource,
        directory: &CaptureDirectory,
        index: usize,
    ) -> Result<Option<BlockTaken>, Trouble> {
        let Some(log) = self.logs.get_mut(index) else { return Ok(None) };
        let (reader, place, name, directory) =
            (log.reader.take(), log.place, log.name, directory.clone());
        let read = source.tree.read(move || {
            next_block(reader, place, name, &directory)
                .map_err(|error| Trouble::of_tree(name, &error))
        });
        read.await.map(Some)
    }

    fn add(&mut self, index: usize, block: Option<BlockTaken>, taken: &mut LinesTaken) {
        let (Some(block), Some(log)) = (block, self.logs.get_mut(index)) else { return };
        let BlockTaken { reader, place, lost, block, first, is_at_end } = block;
        if lost > 0 {
            taken.lost.push((log.kind, lost));
        }
        taken.is_all &= is_at_end;
        if let LogPlace::After(number) = place
            && block.is_none()
        {
            // Nothing of what is before is still to be delivered.
            let is_first = self.position.line(log.kind).is_none();
            if is_first || lost > 0 {
                self.position.set_line(log.kind, number);
            }
        }
        (log.reader, log.place) = (Some(reader), place);
        let Some(block) = block else { return };
        for (number, text) in block.from(first) {
            let is_new = self.recent.insert(text);
            // Only another daemon says the same again.
            if is_new || !self.is_restarted {
                taken.lines.push(TakenLine { kind: log.kind, number, text: text.to_owned() });
            }
        }
    }

    /// Where it begins without a position.
    pub(in crate::cli) const fn beginning(&self) -> LogBeginning {
        self.beginning
    }
}

/// The next lines of a log after a place.
fn next_block(
    reader: Option<LogReader>,
    place: LogPlace,
    name: &'static str,
    directory: &CaptureDirectory,
) -> io::Result<BlockTaken> {
    let mut reader = match reader {
        Some(reader) => reader,
        None => LogReader::open(directory, name)?,
    };
    let mut taken_after = match place {
        LogPlace::After(number) => Some(number),
        LogPlace::Beginning(LogBeginning::Oldest) => Some(reader.next_line().saturating_sub(1)),
        LogPlace::Beginning(LogBeginning::Now) => None,
    };
    let mut lost = 0;
    for _ in 0..BLOCKS {
        let block = reader.next_block(directory)?;
        let at_hand = block.as_ref().map_or_else(|| reader.next_line(), LineBlock::first);
        if let Some(after) = &mut taken_after {
            let missing = at_hand.saturating_sub(1).saturating_sub(*after);
            lost += missing;
            *after += missing;
        }
        let Some(block) = block else {
            // A place of a file that says more lines than there are is moved back.
            let end = reader.next_line().saturating_sub(1);
            let place = LogPlace::After(taken_after.map_or(end, |after| after.min(end)));
            return Ok(BlockTaken { reader, place, lost, block: None, first: 0, is_at_end: true });
        };
        if let Some(after) = taken_after
            && block.end() > after.saturating_add(1)
        {
            let place = LogPlace::After(block.end().saturating_sub(1));
            let first = after.saturating_add(1);
            return Ok(BlockTaken {
                reader,
                place,
                lost,
                block: Some(block),
                first,
                is_at_end: false,
            });
        }
    }
    // The lines so far were passed over.
    let place = taken_after.map_or(place, LogPlace::After);
    Ok(BlockTaken { reader, place, lost, block: None, first: 0, is_at_end: false })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::cli::outlet::tree::tests::directory_at;

    fn dropped(folder: &Path, lines: u64) {
        let status =
            format!(r#"{{"flows": {{"log_lines_dropped_by": {{"http.jsonl": {lines}}}}}}}"#);
        fs::write(folder.join("status.json"), status).unwrap();
    }

    fn take(folder: &Path, place: LogPlace) -> (LogPlace, u64, Vec<u64>) {
        let directory = directory_at(folder);
        let (mut reader, mut place, mut lost, mut numbers) = (None, place, 0, Vec::new());
        loop {
            let taken = next_block(reader, place, "http.jsonl", &directory).unwrap();
            lost += taken.lost;
            place = taken.place;
            if let Some(block) = &taken.block {
                numbers.extend(block.from(taken.first).map(|(number, _)| number));
            }
            if taken.is_at_end {
                return (place, lost, numbers);
            }
            reader = Some(taken.reader);
        }
    }

    #[test]
    fn a_place_is_found_again_and_what_has_left_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("http.jsonl")).unwrap();
        for number in 101..=200 {
            writeln!(file, "line {number}").unwrap();
        }
        dropped(folder.path(), 100);
        let all: Vec<u64> = (101..=200).collect();
        let end = LogPlace::After(200);
        let take = |place| take(folder.path(), place);
        assert_eq!(take(LogPlace::Beginning(LogBeginning::Oldest)), (end, 0, all.clone()));
        assert_eq!(take(LogPlace::Beginning(LogBeginning::Now)), (end, 0, vec![]));
        assert_eq!(take(LogPlace::After(0)), (end, 100, all.clone()));
        assert_eq!(take(LogPlace::After(98)), (end, 2, all));
        assert_eq!(take(LogPlace::After(198)), (end, 0, vec![199, 200]));
        assert_eq!(take(LogPlace::After(200)), (end, 0, vec![]));
        assert_eq!(take(LogPlace::After(999)), (end, 0, vec![]), "from a file that is wrong");
    }

    #[test]
    fn a_log_without_lines_has_lost_what_has_left_it() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("http.jsonl")).unwrap();
        dropped(folder.path(), 7);
        assert_eq!(take(folder.path(), LogPlace::After(2)), (LogPlace::After(7), 5, vec![]));
    }
}
