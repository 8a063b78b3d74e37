//! Packets on their way into flows.

use std::sync::atomic::Ordering;

use super::Engine;
use crate::decode::{Decoded, Tcp, TcpFlags, Transport};
use crate::extent::Extent;
use crate::flow::key::{Key, Network, Protocol};
use crate::flow::meta::Meta;
use crate::flow::one::{Arrival, Flow};
use crate::flow::recorder::Job;
use crate::flow::table::{Place, Table};
use crate::flow::window::Window;
use crate::linktype::LinkType;
use crate::record::Record;
use crate::tcp::seq::Sequence;
use crate::tcp::{Flags, Scale, Segment, Verdict};

/// Packets of a flow after which it gives up memory for what the store has dropped.
const EXPIRE_EVERY: usize = 64;

impl Engine {
    /// An IP packet.
    pub(super) fn packet(
        &mut self,
        table: &mut Table,
        packet: &Decoded<'_>,
        record: &Record<'_>,
        foreign: Option<LinkType>,
        window: &Window<'_>,
    ) {
        let (protocol, ports) = match packet.transport {
            Transport::Tcp(tcp) => (Protocol::Tcp, (tcp.source_port, tcp.destination_port)),
            Transport::Udp { source_port, destination_port } => {
                (Protocol::Udp, (source_port, destination_port))
            }
            Transport::Other => return,
        };
        let tag = Network::tag(packet, table.hasher());
        let (key, direction) = Key::new(packet, protocol, ports, tag);
        let arrival = Arrival::new(window.number, window.time, direction, record);
        let incoming = Incoming { packet, arrival, key, foreign };
        let mut extents = Extents::default();
        extents.gather(packet);
        if let Transport::Tcp(tcp) = &packet.transport {
            let segment = segment(tcp, &arrival, extents.as_slice(), packet.payload.len());
            self.segment(table, &incoming, &segment, window);
        } else {
            self.datagram(table, &incoming, extents.as_slice(), window);
        }
    }

    fn segment(
        &mut self,
        table: &mut Table,
        incoming: &Incoming<'_>,
        segment: &Segment<'_>,
        window: &Window<'_>,
    ) {
        let mut found = table.by_key(&incoming.key);
        for _ in 0..2 {
            let is_new = found.is_none();
            let place = found.unwrap_or_else(|| begin(table, incoming));
            let verdict =
                self.with(table, place, window, |flow, tools| flow.segment(segment, tools));
            match verdict {
                Some(Verdict::Taken) => {
                    if is_new && let Some(flow) = table.get(place) {
                        flow.keep_little(segment);
                    }
                    self.joined(table, place, incoming, window, is_new);
                    return;
                }
                Some(Verdict::NewConnection) => {
                    self.finish(table, place, window);
                    found = None;
                }
                Some(Verdict::Late) | None => {
                    self.shared.late.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn datagram(
        &mut self,
        table: &mut Table,
        incoming: &Incoming<'_>,
        extents: &[Extent],
        window: &Window<'_>,
    ) {
        let mut found = table.by_key(&incoming.key);
        if let Some(place) = found
            && table.get(place).is_some_and(|flow| {
                flow.ended.is_some() || flow.deadline(&self.settings) <= incoming.arrival.time
            })
        {
            self.with(table, place, window, |flow, tools| flow.poll(incoming.arrival.time, tools));
            self.finish(table, place, window);
            found = None;
        }
        let place = found.unwrap_or_else(|| begin(table, incoming));
        if let Some(flow) = table.get(place) {
            let limits = &self.settings.limits;
            flow.datagram(&incoming.arrival, extents, incoming.packet.payload.len(), limits);
        }
        self.joined(table, place, incoming, window, found.is_none());
    }

    /// A packet was put into a flow.
    fn joined(
        &mut self,
        table: &mut Table,
        place: Place,
        incoming: &Incoming<'_>,
        window: &Window<'_>,
        is_new: bool,
    ) {
        let Incoming { packet, arrival, .. } = incoming;
        let Some(flow) = table.get(place) else { return };
        let before = flow.packets.len() / EXPIRE_EVERY;
        for number in packet.fragments.iter().filter(|number| **number < arrival.number) {
            if let Some(fragment) = window.arrival(*number, arrival.direction) {
                flow.joined(&fragment);
            }
        }
        flow.joined(arrival);
        if is_new {
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
            self.outbox.push(Job::Flow(Box::new(Meta::of(flow, &self.shared.capture))));
        }
        if flow.packets.len() / EXPIRE_EVERY > before {
            flow.expire(self.oldest);
        }
        let deadline = flow.deadline(&self.settings);
        self.schedule(table, place, deadline);
        table.heard(place);
        table.touched(place);
    }
}

/// A packet of a flow.
struct Incoming<'a> {
    packet: &'a Decoded<'a>,
    arrival: Arrival,
    key: Key,
    /// Its link type, if it is not the usual one.
    foreign: Option<LinkType>,
}

/// A flow that begins with this packet.
fn begin(table: &mut Table, incoming: &Incoming<'_>) -> Place {
    let id = table.take_id();
    let network = Network::of(incoming.packet, incoming.foreign);
    table.insert(Flow::new(id, incoming.key, network, &incoming.arrival))
}

/// Where the payload of a packet was captured: nearly always in one place.
#[derive(Default)]
struct Extents {
    first: [Extent; 1],
    rest: Vec<Extent>,
    len: usize,
}

impl Extents {
    /// The payload; between its parts, extents of packet 0 for bytes that were not captured.
    fn gather(&mut self, packet: &Decoded<'_>) {
        let mut end = 0_u32;
        for part in packet.payload.parts() {
            let len = part.at.saturating_sub(end);
            if len > 0 {
                self.push(Extent { packet: 0, offset: 0, len });
            }
            end = part.at.saturating_add(part.extent.len);
            self.push(part.extent);
        }
    }

    fn push(&mut self, extent: Extent) {
        match self.len {
            0 => self.first = [extent],
            1 => self.rest.extend([self.first[0], extent]),
            _ => self.rest.push(extent),
        }
        self.len = self.len.saturating_add(1);
    }

    fn as_slice(&self) -> &[Extent] {
        match self.len {
            0 => &[],
            1 => &self.first,
            _ => &self.rest,
        }
    }
}

fn segment<'a>(tcp: &Tcp, arrival: &Arrival, payload: &'a [Extent], wire_len: u32) -> Segment<'a> {
    Segment {
        time: arrival.time,
        packet: arrival.number,
        direction: arrival.direction,
        sequence: Sequence(tcp.sequence),
        acknowledgment: tcp.flags.contains(TcpFlags::ACK).then_some(Sequence(tcp.acknowledgment)),
        flags: Flags {
            syn: tcp.flags.contains(TcpFlags::SYN),
            fin: tcp.flags.contains(TcpFlags::FIN),
            rst: tcp.flags.contains(TcpFlags::RST),
        },
        window: tcp.window,
        scale: match tcp.window_scale {
            Some(shift) => Scale::By(shift),
            None if tcp.has_all_options => Scale::Absent,
            None => Scale::Unknown,
        },
        payload,
        wire_len,
    }
}
