//! Savefiles that arrive through a FIFO or standard input.
//!
//! A FIFO is opened for reading once and stays open, so a writer never gets SIGPIPE and never
//! waits for anyone but this thread, which waits for nobody. When a writer leaves, what it left
//! half is dropped; the next one begins with a header of its own and goes on in the same capture.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use protocol::linktype::LinkType;

use super::beside::Beside;
use super::interface::wait_for;
use super::{Control, Ended, LeftOut, STOPPED, SourceError};
use crate::clock;
use crate::filter::Filter;
use crate::ring::Writer;
use crate::savefile::stream::{Event, Reader};
use crate::store::{Header, Store};

/// Bytes a FIFO should hold while this thread is scheduled away: the most an ordinary user may
/// ask for (`/proc/sys/fs/pipe-max-size`), sixteen times what it has by itself.
const PIPE_SIZE: i32 = 1 << 20;

/// A stream of savefiles.
#[derive(Debug)]
pub struct Stream {
    input: File,
    name: String,
    /// Whether another writer may come after the last has left.
    endless: bool,
    filter: Option<String>,
    /// For packets of this link type: what was sent last, or is likely.
    compiled: Option<(LinkType, Filter)>,
    snaplen: u32,
    reader: Reader,
    /// What is read is not stored.
    paused: bool,
    /// What it says beside packets.
    beside: Beside,
    /// Packets of other link types than the capture's, which it cannot hold.
    foreign: u64,
    /// What was told of last of all that is left out.
    told: (u64, u64, u64),
}

impl Stream {
    /// Opens a FIFO. There need be no writer.
    ///
    /// # Errors
    /// [`SourceError::NoFifo`], [`SourceError::NotAFifo`] and [`SourceError::System`].
    pub fn fifo(path: &Path, filter: Option<&str>, snaplen: u32) -> Result<Self, SourceError> {
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
        // Less is enough, only less comfortable for the writer.
        let _ = nix::fcntl::fcntl(&input, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        Self::new(input, name, true, filter, snaplen)
    }

    /// Takes standard input, which should not be used otherwise any more.
    ///
    /// # Errors
    /// [`SourceError::System`].
    pub fn stdin(filter: Option<&str>, snaplen: u32) -> Result<Self, SourceError> {
        let name = "standard input".to_owned();
        let copy: io::Result<OwnedFd> = io::stdin().as_fd().try_clone_to_owned();
        let input = copy.map_err(|error| SourceError::System { name: name.clone(), error })?;
        Self::new(input.into(), name, false, filter, snaplen)
    }

    fn new(
        input: File,
        name: String,
        endless: bool,
        filter: Option<&str>,
        snaplen: u32,
    ) -> Result<Self, SourceError> {
        // Whether it compiles is best known now; what it compiles to depends on the link type,
        // which is not known yet. Ethernet is the likely one.
        let compiled = match filter {
            Some(expression) => {
                Some((LinkType::ETHERNET, Filter::compile(expression, LinkType::ETHERNET)?))
            }
            None => None,
        };
        Ok(Self {
            input,
            name,
            endless,
            filter: filter.map(str::to_owned),
            compiled,
            snaplen,
            reader: Reader::new(),
            paused: false,
            beside: Beside::default(),
            foreign: 0,
            told: (0, 0, 0),
        })
    }

    /// The same, with the decryption secrets it sends or without them.
    #[must_use]
    pub fn with_keys(mut self, export_keys: bool) -> Self {
        self.beside.without_keys(!export_keys);
        self
    }

    /// Packets left out because a capture holds one link type only.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Fills the ring until it is told to stop or standard input ends.
    ///
    /// `tick` is called after every batch and at least once a second; `trouble` with what went
    /// wrong with one writer, after which the next is waited for, with how many packets were left
    /// out, and with `None` when a writer has begun well.
    ///
    /// # Errors
    /// [`SourceError`], for standard input also when it is malformed; all that came before is in
    /// the ring.
    pub fn run(
        &mut self,
        writer: &mut Writer,
        control: &Control,
        tick: &mut dyn FnMut(&Writer),
        trouble: &mut dyn FnMut(Option<&SourceError>),
    ) -> Result<Ended, SourceError> {
        let system = |errno: nix::Error| SourceError::System {
            name: self.name.clone(),
            error: errno.into(),
        };
        // Edge-triggered: a FIFO without a writer is "hung up" all the time, and only the next
        // writer is news. A regular file as standard input cannot be waited for and need not be.
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?;
        let edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        match ready.add(&self.input, edge) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(system(errno)),
        }
        // After an error nothing of this writer means anything any more; it ends with the end of
        // file, or where another one's file begins.
        let mut skipping = false;
        loop {
            if control.must_stop() {
                return Ok(Ended::Stopped);
            }
            control.clear_if_ordered(|| writer.clear());
            self.pause_if_ordered(writer, control);
            if !self.endless {
                // Standard input blocks in read: wait here, where orders are heard.
                wait_for(self.input.as_fd(), control, PollTimeout::from(1000u16));
                if !is_readable(self.input.as_fd()) {
                    tick(writer);
                    continue;
                }
            }
            match self.input.read(self.reader.space()) {
                Ok(0) => {
                    let left = self.reader.finish();
                    if left > 0 && !skipping {
                        let why = format!("ended inside a record: {left} bytes dropped");
                        let error = SourceError::Malformed { name: self.name.clone(), why };
                        trouble(Some(&error));
                    }
                    self.reader.reset();
                    self.beside.reset();
                    skipping = false;
                    tick(writer);
                    if !self.endless {
                        self.beside.end();
                        self.tell(writer, trouble);
                        return Ok(Ended::Exhausted);
                    }
                    wait_for_edge(&ready, control);
                }
                Ok(count) => {
                    self.reader.filled(count);
                    while !skipping || self.reader.resume() {
                        if skipping {
                            self.beside.reset();
                        }
                        skipping = false;
                        match self.take(writer, trouble) {
                            Ok(()) => break,
                            Err(
                                error @ (SourceError::Malformed { .. }
                                | SourceError::Changed { .. }),
                            ) if self.endless => {
                                trouble(Some(&error));
                                skipping = true;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    tick(writer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tick(writer);
                    wait_for_edge(&ready, control);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(SourceError::System { name: self.name.clone(), error });
                }
            }
        }
    }

    /// Stops and starts as `control` says. Packets that come while it is stopped are read, and not stored.
    fn pause_if_ordered(&mut self, writer: &mut Writer, control: &Control) {
        if self.paused == control.is_paused() {
            return;
        }
        self.paused = !self.paused;
        let now = clock::now();
        if self.paused {
            writer.source_rests(now, STOPPED);
        } else {
            writer.source_found(now);
        }
        writer.set_ended(self.paused);
    }

    /// Stores every whole record that was read.
    fn take(
        &mut self,
        writer: &mut Writer,
        trouble: &mut dyn FnMut(Option<&SourceError>),
    ) -> Result<(), SourceError> {
        let malformed =
            |name: &str, why: String| SourceError::Malformed { name: name.to_owned(), why };
        let result = loop {
            match self.reader.event() {
                Ok(None) => break Ok(()),
                Ok(Some(Event::Section(options))) => self.beside.section(options),
                Ok(Some(Event::Interface(interface))) => {
                    self.beside.interface(interface, self.snaplen, writer);
                }
                Ok(Some(Event::Kept(block))) => self.beside.block(block, writer),
                Ok(Some(Event::LeftOut)) => self.beside.leave_out(),
                Ok(Some(Event::Header(header))) => {
                    if let Err(error) = self.begin(&header, writer) {
                        break Err(error);
                    }
                    if let Some(expression) = &self.filter
                        && let sent = header.link_type
                        && self.compiled.as_ref().is_none_or(|(known, _)| *known != sent)
                    {
                        self.compiled = Some((sent, Filter::compile(expression, sent)?));
                    }
                    trouble(None);
                    self.told = (0, 0, 0);
                }
                Ok(Some(Event::Packet(packet))) => {
                    let data = packet.data.get(..self.snaplen as usize).unwrap_or(packet.data);
                    let matches = self
                        .compiled
                        .as_ref()
                        .is_none_or(|(_, filter)| filter.matches(packet.original_len, packet.data));
                    // A paused stream is read to stay in step with it.
                    if matches && !self.paused {
                        self.beside.store(&packet, data, writer);
                    }
                }
                Ok(Some(Event::Foreign { .. })) => self.foreign += 1,
                Err(error) => break Err(malformed(&self.name, error.to_string())),
            }
        };
        writer.publish();
        self.tell(writer, trouble);
        result
    }

    /// Says what is left out, if that has become more.
    fn tell(&mut self, writer: &Writer, trouble: &mut dyn FnMut(Option<&SourceError>)) {
        let (notes, interfaces) = self.beside.left_out(writer);
        if self.told != (self.foreign, notes, interfaces)
            && let Some(held) = writer.ring().header()
        {
            self.told = (self.foreign, notes, interfaces);
            let (held, packets) = (held.link_type, self.foreign);
            let left_out = LeftOut { held, packets, notes, interfaces };
            trouble(Some(&SourceError::NotAll { name: self.name.clone(), left_out }));
        }
    }

    /// A writer has said what it sends.
    fn begin(&mut self, header: &Header, writer: &mut Writer) -> Result<(), SourceError> {
        let sent = header.link_type;
        let changed = |held| SourceError::Changed { name: self.name.clone(), held, sent };
        // Nothing is described of a writer that is refused.
        if let Some(held) = writer.ring().header().filter(|held| held.link_type != sent) {
            return Err(changed(held.link_type));
        }
        if self.reader.is_pcapng() {
            self.beside.begin(self.snaplen, writer);
        } else {
            self.beside.reset();
            writer.set_own_interface();
        }
        writer.declare(sent, header.snaplen.min(self.snaplen)).map_err(changed)
    }
}

/// Waits for news on an edge-triggered descriptor, an order, or a second. What is news is taken
/// before the descriptor is read again, so nothing that comes after that read is missed.
fn wait_for_edge(ready: &Epoll, control: &Control) {
    wait_for(ready.0.as_fd(), control, PollTimeout::from(1000u16));
    // Nothing there, or interrupted: the read that follows says what there is.
    let _ = ready.wait(&mut [EpollEvent::empty()], 0u16);
}

fn is_readable(input: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(input, PollFlags::POLLIN)];
    // At the end of a pipe only POLLHUP is set.
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}
