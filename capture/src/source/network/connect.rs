//! A far end that this machine connects to, and that sends a savefile: `tcp:HOST:PORT`, or with
//! another transport.
//!
//! The source itself connects again whenever the connection has ended, for whatever reason, until
//! it is stopped. Each wait ends with an order, also that for a name server. What the far end would
//! have sent in the meantime is a hole in the capture, and pcapng streams say so.

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFlags, PollTimeout};
use protocol::linktype::LinkType;

use super::lookup::Lookup;
use super::place::HostAndPort;
use super::socket;
use super::transport::{Incoming, Transport};
use crate::own_transport::OwnStream;
use crate::ring::Writer;
use crate::source::arriving::Arriving;
use crate::source::{
    Observer, ReconnectPatience, Rest, Source, SourceControl, SourceEnd, SourceError, SourceOptions,
};

/// The longest wait for one address of the far end: enough for two packets that get lost when a
/// connection begins. The kernel sends them again after one second and after three.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest wait for the resolver: with its defaults, it asks two name servers twice.
const LOOKUP_WITHIN: Duration = Duration::from_secs(20);

/// Maximum number of addresses of one name that are tried in turn.
const MAX_ADDRESSES: usize = 8;

/// The time between two calls of [`Observer::tick`] while nothing comes.
const IDLE: Duration = Duration::from_secs(1);

/// After a connection that lasted this long, the next attempt follows at once. After a shorter one
/// it waits, or a far end that sends a short file each time would be asked again and again.
const LASTING: Duration = Duration::from_secs(10);

/// A far end, connected or not.
#[derive(Debug)]
pub struct Connecting {
    name: String,
    place: HostAndPort,
    transport: Box<dyn Transport>,
    arriving: Arriving,
    /// Since the last connection that lasted.
    patience: Option<ReconnectPatience>,
    /// Why the last connection ended, or there was none.
    away: Option<SourceError>,
}

/// An order to stop came during a step.
struct Stopped;

/// The parts that each step of the source's thread needs.
struct Context<'a> {
    writer: &'a mut Writer,
    control: &'a SourceControl,
    observer: &'a mut dyn Observer,
}

impl Context<'_> {
    /// Carries out the orders.
    fn obey(&mut self) -> Result<(), Stopped> {
        self.control.clear_if_ordered(|| self.writer.clear());
        if self.control.must_stop() { Err(Stopped) } else { Ok(()) }
    }

    /// Waits until `source` has one of these events, until `deadline`, for an order or for
    /// [`IDLE`].
    fn wait(
        &mut self,
        source: BorrowedFd<'_>,
        events: PollFlags,
        deadline: Instant,
    ) -> Result<(), Stopped> {
        let left = deadline.saturating_duration_since(Instant::now()).min(IDLE);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        self.control.wait_until_ready(source, events, timeout);
        self.observer.tick(self.writer);
        self.obey()
    }
}

impl Connecting {
    /// A far end. It need not be there. `name` is for messages.
    ///
    /// # Errors
    /// [`SourceError::Filter`].
    pub fn new(
        name: String,
        place: HostAndPort,
        transport: Box<dyn Transport>,
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let arriving = Arriving::new(name.clone(), options)?;
        Ok(Self { name, place, transport, arriving, patience: None, away: None })
    }

    fn lost(&self, why: String) -> SourceError {
        SourceError::Lost { name: self.name.clone(), why }
    }

    /// Connects to the far end.
    fn connect(
        &self,
        context: &mut Context<'_>,
    ) -> Result<Result<Box<dyn Incoming>, SourceError>, Stopped> {
        let addresses = match self.addresses(context)? {
            Ok(addresses) => addresses,
            Err(why) => return Ok(Err(self.lost(why))),
        };
        let mut whys = Vec::new();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match connect_to(address, context)? {
                Ok(stream) => {
                    let begun = self.transport.begin(stream);
                    return Ok(begun.map_err(|error| self.lost(error.to_string())));
                }
                Err(error) if self.place.address().is_some() => whys.push(error.to_string()),
                // The user wrote a name.
                Err(error) => whys.push(format!("{address}: {error}")),
            }
        }
        Ok(Err(self.lost(format!("no connection: {}", whys.join("; ")))))
    }

    /// The addresses of the far end, or why there are none.
    fn addresses(
        &self,
        context: &mut Context<'_>,
    ) -> Result<Result<Vec<SocketAddr>, String>, Stopped> {
        let deadline = Instant::now() + LOOKUP_WITHIN;
        let lookup = match Lookup::start(&self.place) {
            Ok(lookup) => lookup,
            Err(error) => return Ok(Err(format!("no thread can ask for the name: {error}"))),
        };
        let host = &self.place.host;
        loop {
            match lookup.answer() {
                Some(Ok(addresses)) => return Ok(Ok(addresses)),
                Some(Err(error)) => {
                    let why = format!(
                        "the name {host} does not resolve: {error} (try: getent ahosts {host})"
                    );
                    return Ok(Err(why));
                }
                None if Instant::now() >= deadline => {
                    let why = format!(
                        "no name server answers for {host} (see /etc/resolv.conf, or write an \
                         address)"
                    );
                    return Ok(Err(why));
                }
                None => context.wait(lookup.as_fd(), PollFlags::POLLIN, deadline)?,
            }
        }
    }

    /// Stores what the far end sends until the connection ends. Returns why it has ended.
    fn receive(
        &mut self,
        mut stream: Box<dyn Incoming>,
        context: &mut Context<'_>,
    ) -> Result<SourceError, Stopped> {
        let mut is_silent = true;
        if let Some(before) = self.away.take() {
            let silent = SourceError::Silent { before: Box::new(before) };
            context.observer.away(context.writer, &silent);
        }
        loop {
            context.obey()?;
            match stream.read(self.arriving.space()) {
                Ok(0) => return Ok(self.lost(self.closed(is_silent))),
                Ok(count) => {
                    if std::mem::take(&mut is_silent) {
                        context.observer.back(context.writer);
                    }
                    let stored = self.arriving.arrived(count, context.writer, context.observer);
                    context.observer.tick(context.writer);
                    if let Err(error) = stored {
                        return Ok(error);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        context.wait(stream.as_fd(), PollFlags::POLLIN, Instant::now() + IDLE)?;
                    }
                    io::ErrorKind::Interrupted => {}
                    _ => return Ok(self.lost(socket::why(&error))),
                },
            }
        }
    }

    /// Says that the far end closed the connection.
    fn closed(&self, is_silent: bool) -> String {
        let how = match self.arriving.half() {
            _ if is_silent => " without sending anything".to_owned(),
            0 => String::new(),
            half => format!(" inside a record: {half} bytes dropped"),
        };
        format!("the far end closed the connection{how}")
    }

    /// Connects and receives, again and again, until it is stopped.
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Infallible, Stopped> {
        loop {
            let connected = self.connect(context)?;
            let began = Instant::now();
            let why = match connected {
                Ok(stream) => self.receive(stream, context)?,
                Err(why) => why,
            };
            self.arriving.next_writer();
            context.observer.away(context.writer, &why);
            self.away = Some(why);
            if began.elapsed() >= LASTING {
                self.patience = None;
            }
            let patience = self.patience.get_or_insert_with(ReconnectPatience::begin);
            let _ = patience.wait(context.control);
            context.obey()?;
        }
    }
}

/// Connects to one address.
fn connect_to(
    address: SocketAddr,
    context: &mut Context<'_>,
) -> Result<io::Result<OwnStream>, Stopped> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    let connecting = match socket::begin_connecting(address) {
        Ok(connecting) => connecting,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match socket::connected(&connecting) {
            Ok(true) => return Ok(Ok(connecting)),
            Ok(false) if Instant::now() >= deadline => {
                let why = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
                return Ok(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            Ok(false) => context.wait(connecting.as_fd(), PollFlags::POLLOUT, deadline)?,
            Err(error) => return Ok(Err(error)),
        }
    }
}

impl Source for Connecting {
    fn link_type(&self) -> Option<LinkType> {
        None
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let Err(Stopped) = self.go_on(&mut Context { writer, control, observer });
        Ok(SourceEnd::Stopped)
    }
}
