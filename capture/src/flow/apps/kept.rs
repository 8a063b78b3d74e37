//! What a flow keeps of its application protocols for readers, also after its end.

use protocol::tls::{ClientHello, ServerHello};

use super::http::exchange::HttpExchanges;
use super::lines::FlowLines;
use super::{Application, ApplicationSet};

/// The records of one flow.
#[derive(Debug, Default)]
pub(in crate::flow) struct FlowRecords {
    /// Transactions of HTTP, once it was recognized.
    pub(in crate::flow) http: Option<Box<HttpExchanges>>,
    /// The TLS hellos seen so far.
    pub(in crate::flow) tls: Option<Box<TlsHellos>>,
    /// Lines of protocols that were recognized, other than HTTP.
    lines: Box<[FlowLines]>,
}

impl FlowRecords {
    /// Returns `true` if transactions of the flow are recorded.
    pub(in crate::flow) fn has_transactions(&self) -> bool {
        self.http.is_some() || !self.lines.is_empty()
    }

    /// The protocol that `meta.json` names.
    pub(in crate::flow) fn application(&self) -> Option<Application> {
        if self.http.is_some() {
            return Some(Application::Http);
        }
        let of_lines = self.lines.first().map(|lines| lines.application);
        of_lines.or_else(|| self.tls.is_some().then_some(Application::Tls))
    }

    /// The protocols that the flow has files of.
    pub(in crate::flow) fn applications(&self) -> ApplicationSet {
        let of_lines = self.lines.iter().map(|lines| lines.application);
        of_lines.chain(self.http.is_some().then_some(Application::Http)).collect()
    }

    /// The lines of a protocol, if it was recognized and is not HTTP.
    pub(in crate::flow) fn lines(&self, application: Application) -> Option<&FlowLines> {
        self.lines.iter().find(|lines| lines.application == application)
    }

    /// Adds the lines of a protocol that is followed from now on, so that the flow has their file.
    /// HTTP keeps more than lines, and has added it already.
    pub(in crate::flow) fn begin_lines(&mut self, application: Application) {
        let has_lines = application.line_file_name().is_some() && application != Application::Http;
        if has_lines && self.lines(application).is_none() {
            let mut lines = std::mem::take(&mut self.lines).into_vec();
            lines.push(FlowLines::new(application));
            self.lines = lines.into_boxed_slice();
        }
    }

    /// Adds a line of `len` bytes of a protocol, which begins at `in_log` of the log of the
    /// capture. The log begins at `log_begin`. [`begin_lines`](Self::begin_lines) was called.
    pub(in crate::flow) fn add_line(
        &mut self,
        application: Application,
        in_log: u64,
        len: u64,
        log_begin: u64,
    ) {
        let mut all = self.lines.iter_mut();
        let lines = all.find(|lines| lines.application == application);
        debug_assert!(lines.is_some(), "a line of {application:?}, which is not followed");
        if let Some(lines) = lines {
            lines.push(in_log, len, log_begin);
        }
    }

    /// Frees memory kept for growth, when no more records will come.
    pub(in crate::flow) fn shrink(&mut self) {
        if let Some(http) = &mut self.http {
            http.exchanges.shrink_to_fit();
        }
        self.lines.iter_mut().for_each(FlowLines::shrink);
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let http = self.http.as_ref().map_or(0, |http| http.memory());
        let lines = self.lines.iter().map(FlowLines::memory).sum::<usize>();
        http.saturating_add(lines).saturating_add(if self.tls.is_some() { 256 } else { 0 })
    }
}

/// The hellos, which TLS sends in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct TlsHellos {
    pub(in crate::flow) client: Option<ClientHello>,
    pub(in crate::flow) server: Option<ServerHello>,
}
