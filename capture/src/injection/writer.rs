//! One program that writes a savefile into `inject.pcap`.

use std::sync::Arc;

use protocol::linktype::LinkType;

use super::{Injection, InjectionError, SavedFrame};
use crate::pipeline::DEFAULT_SNAPLEN;
use crate::savefile::stream::{StreamEvent, StreamReader};

/// A program that writes a savefile, as pcap or pcapng. Dropping this ends the savefile; frames that
/// wait are still injected.
#[derive(Debug)]
pub struct InjectionWriter {
    injection: Arc<Injection>,
    /// The number of its queue.
    number: u64,
    reader: StreamReader,
    /// Bytes taken so far.
    end: u64,
    /// The next frame is the first one of a file.
    begins_file: bool,
    /// Nothing is taken after an error.
    failed: Option<InjectionError>,
}

impl InjectionWriter {
    pub(super) fn new(injection: Arc<Injection>, number: u64) -> Self {
        let reader = StreamReader::new();
        Self { injection, number, reader, end: 0, begins_file: true, failed: None }
    }

    /// Returns true if [`InjectionWriter::write`] takes or refuses bytes now. Otherwise ask again
    /// when the bells of the capture's store have rung.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.failed.is_some() || self.injection.has_room(self.number)
    }

    /// Takes all of these bytes of the savefile. `at` is their offset, if the program chose one.
    ///
    /// # Errors
    /// [`InjectionError`]; nothing is taken any more after one. Frames before a mistake in the
    /// savefile are injected.
    pub fn write(&mut self, at: Option<u64>, bytes: &[u8]) -> Result<(), InjectionError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let mut frames = Vec::new();
        let read = match at.filter(|at| *at != self.end) {
            Some(at) => Err(InjectionError::OutOfOrder { at, end: self.end }),
            None => self.read(bytes, &mut frames),
        };
        let added = self.injection.add(self.number, frames);
        let taken = added.and(read);
        if let Err(error) = &taken {
            if *error != InjectionError::Ended {
                self.injection.report(&error.to_string());
            }
            self.failed = Some(error.clone());
        }
        taken
    }

    /// Takes the bytes apart.
    fn read(
        &mut self,
        mut bytes: &[u8],
        frames: &mut Vec<SavedFrame>,
    ) -> Result<(), InjectionError> {
        let takes = self.injection.takes();
        loop {
            self.events(takes, frames)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let space = self.reader.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            for (to, from) in space.chunks_mut(now.len().max(1)).zip([now]) {
                to.copy_from_slice(from);
            }
            self.reader.filled(now.len());
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// Takes all whole records that the reader has.
    fn events(
        &mut self,
        takes: &[LinkType],
        frames: &mut Vec<SavedFrame>,
    ) -> Result<(), InjectionError> {
        let malformed = |what: String| InjectionError::Malformed(what);
        loop {
            let event = self.reader.event().map_err(|error| malformed(error.to_string()))?;
            let Some(event) = event else { return Ok(()) };
            let foreign = match event {
                StreamEvent::Header(header) => {
                    self.begins_file = true;
                    Some(header.link_type).filter(|sent| !takes.contains(sent))
                }
                StreamEvent::Foreign { link_type } => Some(link_type),
                StreamEvent::Packet(packet) => {
                    if packet.data.len() > DEFAULT_SNAPLEN as usize {
                        let len = packet.data.len();
                        let at = self.reader.event_offset();
                        return Err(malformed(format!(
                            "at byte {at}: a frame of {len} bytes, the maximum is {DEFAULT_SNAPLEN}"
                        )));
                    }
                    frames.push(SavedFrame {
                        time: packet.time,
                        is_cut: (packet.data.len() as u64) < u64::from(packet.original_len),
                        bytes: packet.data.into(),
                        begins_file: std::mem::take(&mut self.begins_file),
                    });
                    None
                }
                StreamEvent::Section(_)
                | StreamEvent::Interface(_)
                | StreamEvent::Kept(_)
                | StreamEvent::LeftOut => None,
            };
            if let Some(sent) = foreign {
                let at = self.reader.event_offset();
                let wanted = takes.first().map(|wanted| wanted.name()).unwrap_or_default();
                return Err(malformed(format!(
                    "at byte {at}: packets of link type {sent}, the device takes {wanted}"
                )));
            }
        }
    }

    /// What is wrong with a savefile that ends here; `None` if it is whole. An error that
    /// [`InjectionWriter::write`] has returned is not said again.
    #[must_use]
    pub fn lack(&self) -> Option<String> {
        let half = self.reader.finish();
        let is_whole = half == 0 || self.failed.is_some();
        let from = self.end - half.min(self.end);
        (!is_whole)
            .then(|| format!("ends inside a record: {half} bytes from byte {from} on are dropped"))
    }
}

impl Drop for InjectionWriter {
    fn drop(&mut self) {
        self.injection.leave(self.number, self.lack());
    }
}
