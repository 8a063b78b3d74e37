//! Several interfaces in one capture: `eth0,eth1`.
//!
//! Each has a socket of its own, and one thread takes their packets in turn. In pcapng files each is
//! an interface of its own. Packets of one interface are in their order; those of two interfaces may
//! change places by as much as the kernel keeps packets back.
//!
//! An interface that goes away is looked for while the others go on. The capture is away only while
//! all of them are.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use protocol::linktype::LinkType;

use super::{IDLE, LONG_IDLE, Live, STATISTICS_INTERVAL, real_name};
use crate::ring::{MAX_INTERFACES, Writer};
use crate::source::{
    ANY, InterfaceBackend, Observer, Rest, Source, SourceControl, SourceEnd, SourceError,
    SourceOptions, Workers,
};
use crate::store::{Interface, Store as _};

/// The time between two looks for an interface that is gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Minimum bytes of kernel buffer of each interface: two blocks.
const SMALLEST_BUFFER: u64 = 512 << 10;

/// Interfaces that are captured together.
#[derive(Debug)]
pub(in crate::source) struct SeveralInterfaces {
    members: Vec<Member>,
    link_type: LinkType,
    reopening: Reopening,
}

/// One of the interfaces.
#[derive(Debug)]
struct Member {
    /// As it was written.
    name: String,
    /// `None` while it is gone.
    live: Option<Live>,
    /// Its number in the ring; `None` before the first batch.
    id: Option<u32>,
}

/// How an interface is opened again, see [`SourceOptions`].
#[derive(Debug)]
struct Reopening {
    filter: Option<String>,
    snaplen: u32,
    promiscuous: bool,
    kernel_buffer: u64,
    backend: InterfaceBackend,
    looked: Instant,
}

impl Reopening {
    fn open(&self, name: &str) -> Result<Live, SourceError> {
        let options = SourceOptions {
            filter: self.filter.as_deref(),
            snaplen: self.snaplen,
            promiscuous: self.promiscuous,
            kernel_buffer: self.kernel_buffer,
            backend: self.backend,
            workers: Workers::ONE,
            export_keys: false,
            injection: None,
        };
        Live::open(name, &options)
    }
}

impl SeveralInterfaces {
    /// Opens all of these interfaces. They must have the same link type.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    pub(in crate::source) fn open(
        names: &[String],
        options: &SourceOptions<'_>,
    ) -> Result<Self, SourceError> {
        let name = names.join(",");
        let refused = |why: String| SourceError::Device { name: name.clone(), why };
        if names.len() > MAX_INTERFACES {
            return Err(refused(format!("more than {MAX_INTERFACES} interfaces")));
        }
        let mut known = Vec::new();
        for one in names {
            if one.is_empty() || one == ANY {
                return Err(refused("write the names of interfaces, as in eth0,eth1".to_owned()));
            }
            let real = real_name(one)?;
            if known.contains(&real) {
                return Err(refused(format!("{one} is there twice")));
            }
            known.push(real);
        }
        let share = options.kernel_buffer / u64::try_from(names.len()).unwrap_or(1).max(1);
        let reopening = Reopening {
            filter: options.filter.map(str::to_owned),
            snaplen: options.snaplen,
            promiscuous: options.promiscuous,
            kernel_buffer: share.max(SMALLEST_BUFFER),
            backend: options.backend,
            looked: Instant::now(),
        };
        let mut members = Vec::new();
        let mut link_type: Option<LinkType> = None;
        for one in names {
            let live = reopening.open(one)?;
            let sent = live.selection.link_type();
            let held = *link_type.get_or_insert(sent);
            if sent != held {
                return Err(SourceError::Changed { name: one.clone(), held, sent });
            }
            members.push(Member { name: one.clone(), live: Some(live), id: None });
        }
        let link_type = link_type.ok_or_else(|| refused("no interface".to_owned()))?;
        Ok(Self { members, link_type, reopening })
    }

    /// Takes a batch of each interface. Returns whether there were packets.
    fn batches(
        &mut self,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) -> Result<bool, SourceError> {
        let mut has_taken = false;
        for at in 0..self.members.len() {
            let Some(Member { name, live: Some(live), id }) = self.members.get_mut(at) else {
                continue;
            };
            let id = *id.get_or_insert_with(|| described(writer, name));
            writer.set_interface(id);
            let taken = match live.batch(writer) {
                Ok(taken) => taken,
                Err(lost @ SourceError::Lost { .. }) => {
                    self.lose(at, &lost, writer, observer);
                    continue;
                }
                Err(error) => return Err(error),
            };
            has_taken |= taken > 0;
            live.uncounted |= taken > 0;
            if live.statistics_read.elapsed() >= STATISTICS_INTERVAL {
                live.account(writer);
            }
        }
        Ok(has_taken)
    }

    /// Lets go of an interface that is gone.
    fn lose(
        &mut self,
        at: usize,
        lost: &SourceError,
        writer: &mut Writer,
        observer: &mut dyn Observer,
    ) {
        if let Some(member) = self.members.get_mut(at)
            && let Some(mut live) = member.live.take()
        {
            live.account(writer);
        }
        if self.members.iter().all(|member| member.live.is_none()) {
            observer.away(writer, lost);
        } else {
            observer.trouble(Some(lost));
        }
    }

    /// Looks for the interfaces that are gone, now and then.
    fn look(&mut self, writer: &mut Writer, observer: &mut dyn Observer) {
        let Self { members, reopening, link_type, .. } = self;
        if reopening.looked.elapsed() < LOOK_INTERVAL {
            return;
        }
        reopening.looked = Instant::now();
        let were_all_gone = members.iter().all(|member| member.live.is_none());
        let mut lack = None;
        let mut is_found = false;
        for member in members.iter_mut().filter(|member| member.live.is_none()) {
            match reopening.open(&member.name) {
                Ok(live) if live.selection.link_type() == *link_type => {
                    member.live = Some(live);
                    is_found = true;
                }
                Ok(live) => {
                    let (held, sent) = (*link_type, live.selection.link_type());
                    lack = Some(SourceError::Changed { name: member.name.clone(), held, sent });
                }
                Err(error) => lack = Some(error),
            }
        }
        if is_found && were_all_gone {
            observer.back(writer);
        }
        let is_any_there = is_found || !were_all_gone;
        match &lack {
            Some(lack) if !is_any_there => observer.away(writer, lack),
            lack => observer.trouble(lack.as_ref()),
        }
    }

    /// Waits for packets, an order, or until `time` is over.
    fn wait(&self, control: &SourceControl, mut time: Duration) {
        let lives: Vec<&Live> = self.members.iter().filter_map(|one| one.live.as_ref()).collect();
        if lives.len() < self.members.len() {
            time = time.min(LOOK_INTERVAL);
        }
        let patience = lives.iter().filter_map(|live| live.reader.patience());
        let time = patience.fold(time, Duration::min).max(Duration::from_millis(1));
        let sockets: Vec<BorrowedFd<'_>> = lives.iter().map(|live| live.reader.socket()).collect();
        control.wait_for_any(&sockets, time);
    }
}

/// The number of the interface of this name in the ring. The first one is there before.
fn described(writer: &mut Writer, name: &str) -> u32 {
    let Some(own) = writer.ring().interface(0) else { return 0 };
    let wanted = Interface { name: Some(name.to_owned()), ..own };
    // A ring has room for as many as there can be.
    let (Ok(id) | Err(id)) = writer.describe(&wanted, &[]);
    id
}

impl Source for SeveralInterfaces {
    fn link_type(&self) -> Option<LinkType> {
        Some(self.link_type)
    }

    fn rest(&self) -> Rest {
        Rest::Closed
    }

    fn backend(&self) -> Option<InterfaceBackend> {
        self.members.iter().find_map(|member| member.live.as_ref()?.backend())
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        let mut idle_since = Instant::now();
        while !control.must_stop() {
            control.clear_if_ordered(|| writer.clear());
            let has_taken = self.batches(writer, observer)?;
            if self.members.iter().any(|member| member.live.is_none()) {
                self.look(writer, observer);
            }
            observer.tick(writer);
            if has_taken {
                idle_since = Instant::now();
                continue;
            }
            let lives = || self.members.iter().filter_map(|member| member.live.as_ref());
            let time = match idle_since.elapsed() {
                _ if lives().any(|live| live.uncounted) => STATISTICS_INTERVAL,
                idle if idle > LONG_IDLE => LONG_IDLE,
                _ => IDLE,
            };
            self.wait(control, time);
        }
        // The packets that the kernel has collected so far come with its next blocks.
        let lives = self.members.iter().filter_map(|member| member.live.as_ref());
        let delay = lives.map(|live| live.reader.delay()).max().unwrap_or_default();
        let deadline = Instant::now() + 2 * delay;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.wait(control, left);
            self.batches(writer, observer)?;
        }
        for live in self.members.iter_mut().filter_map(|member| member.live.as_mut()) {
            live.account(writer);
        }
        Ok(SourceEnd::Stopped)
    }
}
