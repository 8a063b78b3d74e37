//! A FIFO that programs write savefiles into.
//!
//! It is opened for reading once and stays open, so a writer never gets SIGPIPE. A writer waits
//! only for this thread, and this thread waits for no one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use protocol::linktype::LinkType;

use super::arriving::Arriving;
use super::{Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};
use crate::ring::Writer;

/// Bytes that a FIFO should hold while this thread is not scheduled: the maximum that an ordinary
/// user may request (`/proc/sys/fs/pipe-max-size`), sixteen times the default.
const PIPE_SIZE: i32 = 1 << 20;

/// An open FIFO.
#[derive(Debug)]
pub(super) struct Fifo {
    input: File,
    arriving: Arriving,
}

impl Fifo {
    /// Opens a FIFO. It need not have a writer.
    ///
    /// # Errors
    /// [`SourceError::NoFifo`], [`SourceError::NotAFifo`], [`SourceError::Filter`] and
    /// [`SourceError::System`].
    pub(super) fn open(path: &Path, options: &SourceOptions<'_>) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let system = |error| SourceError::System { name: name.clone(), error };
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoFifo { path: path.to_owned() },
            _ => system(error),
        })?;
        if !metadata.file_type().is_fifo() {
            return Err(SourceError::NotAFifo { path: path.to_owned() });
        }
        let input = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(system)?;
        // A smaller pipe is enough, but it stops the writer sooner.
        let _ = nix::fcntl::fcntl(&input, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        Ok(Self { input, arriving: Arriving::new(name, options)? })
    }

    /// Stores the bytes that have arrived. An error of one writer does not end the source: the next
    /// writer may be fine.
    fn store(
        &mut self,
        count: usize,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        let mut stored = self.arriving.arrived(count, writer, observer);
        while let Err(error @ (SourceError::Malformed { .. } | SourceError::Changed { .. })) =
            &stored
        {
            observer.trouble(Some(error));
            stored = self.arriving.go_on(writer, observer);
        }
        stored
    }
}

impl Source for Fifo {
    fn link_type(&self) -> Option<LinkType> {
        None
    }

    fn rest(&self) -> Rest {
        Rest::Drained
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        // Edge-triggered: a FIFO without a writer is "hung up" all the time, and only the next
        // writer must wake this thread.
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let ready = ready.map_err(|errno| self.arriving.system(errno))?;
        let edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        ready.add(&self.input, edge).map_err(|errno| self.arriving.system(errno))?;
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            self.arriving.pause_if_ordered(writer, control);
            match self.input.read(self.arriving.space()) {
                Ok(0) => self.arriving.left(observer),
                Ok(count) => {
                    self.store(count, writer, observer)?;
                    observer.tick(writer);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.arriving.system(error)),
            }
            observer.tick(writer);
            wait_for_edge(&ready, control);
        }
        Ok(SourceEnd::Stopped)
    }
}

/// Waits for an event on an edge-triggered descriptor, for an order, or for a second. The event is
/// taken before the descriptor is read again, so no byte that comes after that read is missed.
fn wait_for_edge(ready: &Epoll, control: &SourceControl) {
    control.wait_for(ready.0.as_fd(), PollTimeout::from(1000u16));
    // Without an event, or if interrupted: the read that follows finds out what there is.
    let _ = ready.wait(&mut [EpollEvent::empty()], 0u16);
}
