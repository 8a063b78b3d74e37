//! Copies the packets of a ring into a ring of another size.

use std::sync::atomic::Ordering;

use super::Ring;
use super::writer::{Append, Writer};
use crate::record::PacketRecords;
use crate::store::{RecordInterface, Store};

/// Copies every retained packet with its note and its interface, the loss counters, the
/// permissions, and the time at which the ring was left.
pub(super) fn copy(from: &Ring, into: &mut Writer) {
    let losses = from.losses();
    into.add_loss(losses.kernel, losses.interface);
    into.ring().file_header().dropped_oversize.fetch_add(losses.oversize, Ordering::Relaxed);
    into.add_excluded(from.excluded());
    let alive = from.file_header().last_alive.load(Ordering::Relaxed);
    into.ring().file_header().last_alive.store(alive, Ordering::Relaxed);
    if let Some(permissions) = from.permissions() {
        into.ring().set_permissions(permissions);
    }
    let bounds = from.bounds();
    let mut described = from.interfaces_before(bounds.oldest.number);
    let mut chunk = bounds.oldest_chunk;
    while let Ok(pinned) = from.pin(chunk) {
        for (index, record) in PacketRecords::new(pinned.bytes()).enumerate() {
            let time = record.time(from.precision());
            let interface = pinned.interface(index).unwrap_or(RecordInterface { id: 0, known: 1 });
            describe(from, into, described, interface.known);
            described = described.max(interface.known);
            into.set_interface(interface.id);
            // A record longer than the new ring's segments is counted as oversize there.
            let (Append::Stored | Append::Oversize) =
                into.append_noted(time, record.original_len, record.data, pinned.note(index));
        }
        chunk += 1;
    }
    into.set_interface(0);
    into.publish();
}

/// Copies the section's options and the descriptions that come first in a file that begins with the
/// oldest packet.
pub(super) fn begin(from: &Ring, into: &mut Writer) {
    into.begin_section(from.section_options());
    describe(from, into, 0, from.interfaces_before(from.bounds().oldest.number));
}

/// Describes the interfaces with numbers from `described` to `known`.
fn describe(from: &Ring, into: &mut Writer, described: u32, known: u32) {
    for id in described..known {
        let Some(interface) = from.interface(id) else { break };
        // Nothing else has been described, so each interface keeps its number.
        let taken: Vec<u32> = (0..id).collect();
        let (Ok(_) | Err(_)) = into.describe(&interface, &taken);
    }
}
