//! Standard input, which carries one savefile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::PollTimeout;
use protocol::linktype::LinkType;

use super::arriving::Arriving;
use super::control::is_readable;
use super::{Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};
use crate::ring::Writer;

/// Standard input.
#[derive(Debug)]
pub(super) struct Stdin {
    input: File,
    arriving: Arriving,
}

impl Stdin {
    /// Takes over standard input, which must not be used for anything else afterwards.
    ///
    /// # Errors
    /// [`SourceError::System`] and [`SourceError::Filter`].
    pub(super) fn open(options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let name = "standard input".to_owned();
        let copy: io::Result<OwnedFd> = io::stdin().as_fd().try_clone_to_owned();
        let input = copy.map_err(|error| SourceError::System { name: name.clone(), error })?;
        Ok(Self { input: input.into(), arriving: Arriving::new(name, options)? })
    }
}

impl Source for Stdin {
    fn link_type(&self) -> Option<LinkType> {
        None
    }

    fn rest(&self) -> Rest {
        Rest::Held
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            self.arriving.pause_if_ordered(writer, control);
            // A read blocks, so wait here, where orders are noticed.
            control.wait_for(self.input.as_fd(), PollTimeout::from(1000u16));
            if !is_readable(self.input.as_fd()) {
                observer.tick(writer);
                continue;
            }
            match self.input.read(self.arriving.space()) {
                Ok(0) => {
                    self.arriving.left(observer);
                    observer.tick(writer);
                    self.arriving.end(writer, observer);
                    return Ok(SourceEnd::Exhausted);
                }
                Ok(count) => {
                    self.arriving.arrived(count, writer, observer)?;
                    observer.tick(writer);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => observer.tick(writer),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(self.arriving.system(error)),
                },
            }
        }
        Ok(SourceEnd::Stopped)
    }
}
