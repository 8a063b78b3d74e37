//! Packets on their way into flows.

use std::sync::atomic::Ordering;

use protocol::decode::{DecodedPacket, Decoder, PayloadExtents, Portion, Transport};
use protocol::extent::Extent;
use protocol::linktype::LinkType;
use protocol::tcp::{Direction, Segment, SegmentFlags, SegmentOrigin, SegmentVerdict};

use super::Engine;
use crate::flow::arrival::Arrival;
use crate::flow::conversation::Flow;
use crate::flow::key::{FlowKey, Network, TransportProtocol};
use crate::flow::meta::Meta;
use crate::flow::outside::Outside;
use crate::flow::recorder::RecorderJob;
use crate::flow::table::{FlowPlace, FlowTable};
use crate::flow::window::EngineWindow;

/// After this many packets a flow releases the memory for packets that the store has dropped.
const EXPIRE_EVERY: usize = 64;

impl Engine {
    /// Puts an IP packet into its flow.
    pub(super) fn packet(
        &mut self,
        table: &mut FlowTable,
        packet: &DecodedPacket<'_>,
        mut arrival: Arrival,
        foreign: Option<LinkType>,
        window: &EngineWindow<'_>,
    ) {
        let (protocol, ports) = match packet.transport {
            Transport::Tcp(tcp) => {
                (TransportProtocol::Tcp, (tcp.source_port, tcp.destination_port))
            }
            Transport::Udp { source_port, destination_port } => {
                (TransportProtocol::Udp, (source_port, destination_port))
            }
            Transport::Other => {
                let earlier = packet.fragments.len().saturating_sub(1) as u64;
                self.shared.outside.remove(Outside::Fragment, earlier);
                self.shared.outside.add(Outside::Protocol, earlier.saturating_add(1));
                return;
            }
        };
        let tag = Network::tag(packet, self.options.any_vlan, table.hasher());
        let (key, direction) = FlowKey::new(packet, protocol, ports, tag);
        arrival.direction = direction;
        let incoming = Incoming { packet, arrival, key, foreign };
        let extents = PayloadExtents::of(&packet.payload);
        let extents = extents.as_slice();
        let is_taken = match &packet.transport {
            Transport::Tcp(tcp) => {
                let wire_len = packet.payload.len();
                let origin =
                    SegmentOrigin { packet: arrival.number, time: arrival.time, direction };
                let segment = Segment::new(tcp, origin, extents, wire_len);
                match packet.portion {
                    None => self.segment(table, &incoming, &segment, window),
                    Some(portion) => self.portion(table, &incoming, (&segment, portion), window),
                }
            }
            _ => {
                self.datagram(table, &incoming, extents, window);
                true
            }
        };
        if !is_taken {
            self.shared.outside.add(Outside::Late, 1);
        }
    }

    /// Datagrams in tunnels that the decoder gave up: the parts that arrived go into flows after
    /// all.
    pub(super) fn given_up(
        &mut self,
        table: &mut FlowTable,
        decoder: &mut Decoder,
        link_type: Option<LinkType>,
        window: &EngineWindow<'_>,
    ) {
        while let Some((of_packet, packet)) = decoder.given_up() {
            let foreign = Some(of_packet).filter(|_| link_type != Some(of_packet));
            let arrival = packet.fragments.last();
            let arrival = arrival.and_then(|last| window.arrival(*last, Direction::Forward));
            if let Some(arrival) = arrival {
                self.shared.outside.remove(Outside::Fragment, 1);
                self.packet(table, &packet, arrival, foreign, window);
            }
        }
    }

    /// Processes a portion of a segment that comes in fragments. Each of its runs of bytes is
    /// treated as a segment, because other segments may arrive between them.
    fn portion(
        &mut self,
        table: &mut FlowTable,
        incoming: &Incoming<'_>,
        (whole, portion): (&Segment<'_>, &Portion),
        window: &EngineWindow<'_>,
    ) -> bool {
        let (mut at, mut rest) = (0_u32, whole.payload);
        loop {
            let run = rest.split(|extent| extent.packet == 0).next().unwrap_or_default();
            let len = run.iter().map(|extent| extent.len).fold(0, u32::saturating_add);
            rest = rest.get(run.len()..).unwrap_or_default();
            let is_last = rest.is_empty();
            let offset = portion.at.saturating_add(at);
            let is_first = offset == 0;
            let syn = whole.flags.syn;
            let segment = Segment {
                sequence: whole.sequence.plus(offset).plus(u32::from(syn && !is_first)),
                flags: SegmentFlags {
                    syn: syn && is_first,
                    fin: whole.flags.fin && portion.ends && is_last,
                    rst: whole.flags.rst && is_first,
                },
                payload: run,
                // The urgent pointer counts from the first byte of the whole segment.
                urgent: whole.urgent.filter(|_| is_first),
                wire_len: if is_last { whole.wire_len.saturating_sub(at) } else { len },
                ..*whole
            };
            let is_empty = !is_last && run.is_empty();
            if !is_empty && !self.segment(table, incoming, &segment, window) {
                return false;
            }
            at = at.saturating_add(len);
            let Some((hole, behind)) = rest.split_first() else { return true };
            at = at.saturating_add(hole.len);
            rest = behind;
        }
    }

    /// Processes a segment. Returns whether it is in a flow.
    fn segment(
        &mut self,
        table: &mut FlowTable,
        incoming: &Incoming<'_>,
        segment: &Segment<'_>,
        window: &EngineWindow<'_>,
    ) -> bool {
        let mut found = table.by_key(&incoming.key);
        for _ in 0..2 {
            let is_new = found.is_none();
            let place = found.unwrap_or_else(|| begin(table, incoming));
            let verdict =
                self.with(table, place, window, |flow, tools| flow.segment(segment, tools));
            match verdict {
                Some(SegmentVerdict::Taken) => {
                    if is_new && let Some(flow) = table.get(place) {
                        flow.keep_little(segment);
                    }
                    self.joined(table, place, incoming, window, is_new);
                    return true;
                }
                Some(SegmentVerdict::NewConnection) => {
                    self.finish(table, place, window);
                    found = None;
                }
                Some(SegmentVerdict::Late) | None => return false,
            }
        }
        false
    }

    fn datagram(
        &mut self,
        table: &mut FlowTable,
        incoming: &Incoming<'_>,
        extents: &[Extent],
        window: &EngineWindow<'_>,
    ) {
        let mut found = table.by_key(&incoming.key);
        if let Some(place) = found
            && table
                .get(place)
                .is_some_and(|flow| flow.ended.is_some() || flow.silence() <= incoming.arrival.time)
        {
            self.with(table, place, window, |flow, tools| flow.poll(incoming.arrival.time, tools));
            self.finish(table, place, window);
            found = None;
        }
        let place = found.unwrap_or_else(|| begin(table, incoming));
        let Incoming { packet, arrival, .. } = incoming;
        self.with(table, place, window, |flow, tools| {
            let portion = packet.portion;
            flow.datagram(arrival, extents, packet.payload.len(), portion, tools);
        });
        self.joined(table, place, incoming, window, found.is_none());
    }

    /// Counts a packet that was put into a flow.
    fn joined(
        &mut self,
        table: &mut FlowTable,
        place: FlowPlace,
        incoming: &Incoming<'_>,
        window: &EngineWindow<'_>,
        is_new: bool,
    ) {
        let Incoming { packet, arrival, .. } = incoming;
        let Some(flow) = table.get(place) else { return };
        let before = flow.packets.len() / EXPIRE_EVERY;
        let mut placed = 0;
        for number in packet.fragments.iter().filter(|number| **number < arrival.number) {
            if let Some(fragment) = window.arrival(*number, arrival.direction) {
                placed += u64::from(flow.joined(&fragment));
            }
        }
        if placed > 0 {
            self.shared.outside.remove(Outside::Fragment, placed);
        }
        // The newest fragment of a datagram that was given up arrived long ago.
        let is_old = arrival.number != window.number;
        if !flow.joined(arrival) && is_old {
            self.shared.outside.add(Outside::Fragment, 1);
        }
        if is_new {
            self.shared.opened.fetch_add(1, Ordering::Relaxed);
            self.outbox.push(RecorderJob::Flow(Box::new(Meta::of(flow, &self.shared.capture))));
        }
        if flow.packets.len() / EXPIRE_EVERY > before {
            flow.expire(self.oldest);
        }
        let deadline = flow.deadline(&self.settings);
        self.schedule(table, place, deadline);
        table.move_to_newest(place);
        table.touched(place);
    }
}

/// A packet of a flow.
struct Incoming<'a> {
    packet: &'a DecodedPacket<'a>,
    arrival: Arrival,
    key: FlowKey,
    /// Link type of the packet, if it is not that of the store's header.
    foreign: Option<LinkType>,
}

/// A flow that begins with this packet.
fn begin(table: &mut FlowTable, incoming: &Incoming<'_>) -> FlowPlace {
    let id = table.take_id();
    let network = Network::of(incoming.packet, incoming.foreign);
    table.insert(Flow::new(id, incoming.key, network, &incoming.arrival))
}
