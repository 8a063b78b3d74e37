//! The lengths of files of flows, and the effort to make them.

use super::{reading, render};
use crate::flow::apps::Application;
use crate::flow::apps::http::exchange::{HEADS, StoredMessage, TransactionView};
use crate::flow::conversation::Flow;
use crate::flow::error::FlowOpenError;
use crate::flow::file::{File, Log, Stat};
use crate::flow::shared::SharedFlows;

impl SharedFlows {
    /// The effort to make a file, see [`StoredMessage::effort`].
    pub(in crate::flow) fn effort(&self, id: u64, file: File) -> u64 {
        let table = self.table.read();
        let http = table.flow(id).and_then(|flow| flow.kept.http.as_ref());
        match (http, file) {
            (Some(http), File::Transcript | File::Har) => http.effort,
            (Some(http), File::Body { index, direction }) => {
                let part = http.exchange(index).and_then(|exchange| exchange.part(direction));
                part.filter(|part| !part.is_plain).map_or(0, StoredMessage::effort)
            }
            (Some(_), File::HttpOpen) => {
                let open = table.flow(id).map_or(0, Flow::open_transactions);
                HEADS.saturating_mul(open as u64)
            }
            _ => 0,
        }
    }

    /// Removes from a flow the packets that the store has dropped since the last call.
    pub(in crate::flow) fn expire(&self, id: u64) {
        let oldest = self.store.bounds().oldest.number;
        let is_stale = |flow: &Flow| flow.packets.begin().0 < oldest;
        if self.table.read().flow(id).is_some_and(is_stale)
            && let Some(flow) = self.table.write().flow_mut(id)
        {
            flow.expire(oldest);
        }
    }

    pub(in crate::flow) fn stat(&self, id: u64, file: File) -> Option<Stat> {
        self.expire(id);
        let (modified, beginning, is_final) = {
            let table = self.table.read();
            let flow = table.flow(id)?;
            let modified = match file {
                File::Body { index, direction } => flow.transaction(index)?.last(direction)?,
                _ if file.application() == Some(Application::Http) => {
                    flow.http_modified().unwrap_or(flow.first)
                }
                _ => flow.last,
            };
            let is_body = match file {
                File::Body { index, .. } => {
                    matches!(flow.transaction(index)?, TransactionView::Ended(_))
                }
                _ => false,
            };
            let before = match file {
                File::Packets => flow.packets.begin().1,
                File::Lines(application) => flow
                    .kept
                    .lines(application)
                    .map_or(0, |lines| lines.begin(self.log(Log::Lines(application)).begin())),
                _ => 0,
            };
            (modified, before, flow.is_sealed || is_body)
        };
        let (size, present) = self.size(id, file, beginning)?;
        Some(Stat { size, present, modified, beginning, is_final })
    }

    /// Bytes of a file, and how many of them are not in holes.
    fn size(&self, id: u64, file: File, beginning: u64) -> Option<(u64, u64)> {
        if let File::Body { index, direction } = file {
            // Without decoding the body.
            let table = self.table.read();
            return table.flow(id)?.transaction(index)?.size(direction);
        }
        if matches!(file, File::Meta | File::HttpOpen) {
            // No copy of it is kept.
            let table = self.table.read();
            let flow = table.flow(id)?;
            let size = match file {
                File::Meta => render::meta(self, flow).len(),
                _ => render::open_lines(self, flow).0.len(),
            };
            return Some((size as u64, size as u64));
        }
        let content = match self.content(id, file, beginning) {
            Ok(content) => content,
            // The file exists, and opening it reports the error.
            Err(FlowOpenError::NoRoom) => return Some((0, 0)),
            Err(FlowOpenError::Gone) => return None,
        };
        let size = content.len(self)?;
        let holes = match content {
            reading::FileContent::Stream { id, direction } => self.bytes_in_holes(id, direction),
            _ => 0,
        };
        Some((size, size.saturating_sub(holes)))
    }
}
