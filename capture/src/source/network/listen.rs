//! An address at which senders connect, and send savefiles: `tcp-listen:ADDR:PORT`, or with another
//! transport.
//!
//! It is treated like a FIFO: it listens at all times, and while the capture is stopped, what comes
//! is read but not stored. One sender sends at a time, or as many as the source says; others wait
//! in the kernel until one has left. A sender that says nothing cannot hold up the others: if
//! another waits, it is closed unless its header comes within [`HEADER_WITHIN`].

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use protocol::linktype::LinkType;

use super::place::ListenAddress;
use super::socket;
use super::transport::{Incoming, Transport};
use crate::own_transport::{OwnListener, OwnStream};
use crate::ring::Writer;
use crate::source::arriving::{Arriving, Pause};
use crate::source::control::is_readable;
use crate::source::stream_metadata::SharedInterfaces;
use crate::source::{Observer, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions};

/// The time for a header while another sender waits.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// The time in which the first bytes of a sender are expected: if another one left just before, it
/// is no interruption.
const GREETING: Duration = Duration::from_secs(1);

/// Maximum number of events that are fetched at a time.
const EVENTS: usize = 64;

/// Maximum number of reads from one sender before the others have their turn: 2 MiB at most.
const READS: usize = 8;

/// The listening socket among the events; senders are counted from 1.
const LISTENER: u64 = 0;

/// The wait after no connection could be accepted, usually for want of descriptors.
const RESPITE: Duration = Duration::from_millis(200);

/// The time between two calls of [`Observer::tick`] while nothing comes.
const IDLE: Duration = Duration::from_secs(1);

/// A listening socket with its senders.
#[derive(Debug)]
pub struct Listening {
    name: String,
    transport: Box<dyn Transport>,
    /// The options of the source; the filter is apart.
    options: SourceOptions<'static>,
    filter: Option<String>,
    listener: OwnListener,
    /// Reports the senders, and the listener while there is room for another sender.
    ready: Epoll,
    is_admitting: bool,
    /// Until then, no connection is accepted.
    respite: Option<Instant>,
    /// Maximum number of senders at a time.
    room: usize,
    senders: Vec<Sender>,
    /// Number of the next sender.
    next: u64,
    interfaces: SharedInterfaces,
    pause: Pause,
    /// How a sender left, if one has left since the last bytes.
    last: Option<SourceError>,
    /// The observer knows that all senders have left.
    is_deserted: bool,
}

/// A connected sender.
#[derive(Debug)]
struct Sender {
    number: u64,
    stream: Box<dyn Incoming>,
    /// The source and the address of the sender, for messages.
    name: String,
    arriving: Arriving,
    since: Instant,
    /// Some of its bytes have come.
    is_heard: bool,
    /// There may be more bytes, although its descriptor is not readable.
    has_more: bool,
}

impl Listening {
    /// Begins to listen. `name` is for messages.
    ///
    /// # Errors
    /// [`SourceError::Place`], [`SourceError::Filter`] and [`SourceError::System`].
    pub fn new(
        name: String,
        place: &ListenAddress,
        transport: Box<dyn Transport>,
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let misplaced = |why| SourceError::Place { name: name.clone(), why };
        // A filter that does not compile is reported now.
        let _ = Arriving::new(name.clone(), options)?;
        let listener = socket::listen(place.address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                misplaced(format!("{error} by another program (see which: ss -ltnp)"))
            }
            io::ErrorKind::AddrNotAvailable => {
                misplaced(format!("{error}: no interface has it (see: ip address)"))
            }
            io::ErrorKind::PermissionDenied => {
                misplaced(format!("{error}: ports below 1024 are for root"))
            }
            _ => SourceError::System { name: name.clone(), error },
        })?;
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let ready = ready
            .map_err(|errno| SourceError::System { name: name.clone(), error: errno.into() })?;
        Ok(Self {
            name,
            transport,
            options: SourceOptions { filter: None, injection: None, ..*options },
            filter: options.filter.map(str::to_owned),
            listener,
            ready,
            is_admitting: false,
            respite: None,
            room: place.senders,
            senders: Vec::new(),
            next: LISTENER + 1,
            interfaces: SharedInterfaces::default(),
            pause: Pause::default(),
            last: None,
            is_deserted: false,
        })
    }

    fn system(&self, error: impl Into<io::Error>) -> SourceError {
        SourceError::System { name: self.name.clone(), error: error.into() }
    }

    /// Lets in the senders that wait, as far as there is room.
    fn admit(&mut self, observer: &mut dyn Observer) -> Result<(), SourceError> {
        self.respite = self.respite.filter(|until| Instant::now() < *until);
        self.close_silent(observer)?;
        while self.senders.len() < self.room && self.respite.is_none() {
            match socket::accept(&self.listener) {
                Ok(Some((stream, peer))) => self.let_in(stream, peer, observer)?,
                Ok(None) => break,
                Err(error) => {
                    observer.trouble(Some(&self.system(error)));
                    self.respite = Some(Instant::now() + RESPITE);
                }
            }
        }
        let is_admitting = self.senders.len() < self.room && self.respite.is_none();
        if is_admitting != self.is_admitting {
            let changed = if is_admitting {
                self.ready.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
            } else {
                self.ready.delete(&self.listener)
            };
            changed.map_err(|errno| self.system(errno))?;
            self.is_admitting = is_admitting;
        }
        Ok(())
    }

    /// If another sender waits, closes one that has not sent a header in time.
    fn close_silent(&mut self, observer: &mut dyn Observer) -> Result<(), SourceError> {
        if self.senders.len() < self.room || !is_readable(self.listener.as_fd()) {
            return Ok(());
        }
        let is_silent = |sender: &&Sender| {
            !sender.arriving.has_begun() && sender.since.elapsed() >= HEADER_WITHIN
        };
        let Some(sender) = self.senders.iter().find(is_silent) else { return Ok(()) };
        let within = HEADER_WITHIN.as_secs();
        let why = format!("closed: no header of a savefile within {within} s, and another waits");
        let error = sender.lost(why);
        observer.trouble(Some(&error));
        self.let_out(sender.number, error)
    }

    fn let_in(
        &mut self,
        stream: OwnStream,
        peer: SocketAddr,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        let number = self.next;
        self.next += 1;
        // An IPv4 sender of an IPv6 socket is still shown as what it is.
        let address = peer.ip().to_canonical();
        let name = format!("{}: {}", self.name, SocketAddr::new(address, peer.port()));
        let options = SourceOptions { filter: self.filter.as_deref(), ..self.options };
        let mut arriving = Arriving::new(name.clone(), &options)?;
        if self.room > 1 {
            arriving = arriving.among(address.to_string(), &self.interfaces);
        }
        let stream = match self.transport.begin(stream) {
            Ok(stream) => stream,
            Err(error) => {
                observer.trouble(Some(&SourceError::Lost { name, why: error.to_string() }));
                return Ok(());
            }
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        self.ready.add(stream.as_fd(), event).map_err(|errno| self.system(errno))?;
        self.senders.push(Sender {
            number,
            stream,
            name,
            arriving,
            since: Instant::now(),
            is_heard: false,
            has_more: false,
        });
        Ok(())
    }

    /// Closes the connection of a sender.
    fn let_out(&mut self, number: u64, how: SourceError) -> Result<(), SourceError> {
        let Some(at) = self.senders.iter().position(|sender| sender.number == number) else {
            return Ok(());
        };
        let sender = self.senders.remove(at);
        self.ready.delete(sender.stream.as_fd()).map_err(|errno| self.system(errno))?;
        if sender.is_heard {
            self.last = Some(how);
        }
        Ok(())
    }

    /// Stores what one sender has sent.
    fn receive(
        &mut self,
        number: u64,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<(), SourceError> {
        for _ in 0..READS {
            let found = self.senders.iter_mut().find(|sender| sender.number == number);
            let Some(sender) = found else { return Ok(()) };
            sender.has_more = true;
            let how = match sender.stream.read(sender.arriving.space()) {
                Ok(0) => {
                    sender.arriving.left(observer);
                    sender.lost("the sender left".to_owned())
                }
                Ok(count) => {
                    sender.is_heard = true;
                    if std::mem::take(&mut self.is_deserted) {
                        observer.back(writer);
                    }
                    self.last = None;
                    sender.arriving.set_pause(self.pause);
                    let stored = sender.arriving.arrived(count, writer, observer);
                    observer.tick(writer);
                    let Err(error) = stored else { continue };
                    observer.trouble(Some(&error));
                    error
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        sender.has_more = false;
                        return Ok(());
                    }
                    io::ErrorKind::Interrupted => continue,
                    _ => {
                        let error = sender.lost(socket::why(&error));
                        observer.trouble(Some(&error));
                        error
                    }
                },
            };
            return self.let_out(number, how);
        }
        Ok(())
    }

    /// Pauses and resumes as ordered, and reports that no sender is left.
    fn follow(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) {
        // One hole ends where the next one, that of the stopped capture, begins.
        if control.is_paused() && std::mem::take(&mut self.is_deserted) {
            observer.back(writer);
        }
        self.pause.follow(writer, control);
        let is_expected = |sender: &Sender| sender.is_heard || sender.since.elapsed() < GREETING;
        if let Some(how) = self.last.as_ref()
            && !self.senders.iter().any(is_expected)
            && !self.is_deserted
            && !self.pause.is_paused()
        {
            observer.left(writer, how);
            self.is_deserted = true;
        }
    }

    /// Waits for senders and their bytes, for an order, or a while. Returns the numbers of the
    /// senders that have sent something.
    fn wait(&self, control: &SourceControl) -> Vec<u64> {
        let unread = self.senders.iter().filter(|sender| sender.has_more);
        let mut numbers: Vec<u64> = unread.map(|sender| sender.number).collect();
        let longest = match self.respite {
            _ if !numbers.is_empty() => Duration::ZERO,
            Some(_) => RESPITE,
            None => IDLE,
        };
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::ZERO);
        control.wait_for(self.ready.0.as_fd(), timeout);
        let mut events = [EpollEvent::empty(); EVENTS];
        // If interrupted, it is asked again soon.
        let count = self.ready.wait(&mut events, 0u16).unwrap_or(0);
        for number in events.iter().take(count).map(EpollEvent::data) {
            if number != LISTENER && !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers
    }
}

impl Sender {
    fn lost(&self, why: String) -> SourceError {
        SourceError::Lost { name: self.name.clone(), why }
    }
}

impl Source for Listening {
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
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            self.admit(observer)?;
            self.follow(writer, control, observer);
            observer.tick(writer);
            for number in self.wait(control) {
                self.receive(number, writer, observer)?;
            }
        }
        Ok(SourceEnd::Stopped)
    }
}
