//! A fast reader of numbered packets. It checks order and numbers, not every byte.
//!
//! The tests' own parsers check every byte. With 64 of them, they would be the bottleneck of the
//! measurement.

use pcapfs_tests::frame;

/// Reads a savefile (pcap, this machine's byte order, Ethernet) piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    /// Bytes of an incomplete record.
    rest: Vec<u8>,
    begun: bool,
    /// Number of the last packet.
    pub(crate) last: u64,
    /// Number of packets.
    pub(crate) packets: u64,
    /// Number of packets that did not follow the one before.
    pub(crate) jumps: u64,
    /// Total number of bytes.
    pub(crate) bytes: u64,
}

impl Walker {
    /// Reads the next bytes and calls `found` with each packet's number.
    pub(crate) fn push(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        self.bytes += bytes.len() as u64;
        if self.rest.is_empty() {
            let used = self.walk(bytes, &mut found);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            // Copies only the bytes that complete the record under way. The others are read in
            // place.
            let mut taken = 0;
            while taken < bytes.len() && Self::wanted(&rest, self.begun) > rest.len() {
                let more = (Self::wanted(&rest, self.begun) - rest.len()).min(bytes.len() - taken);
                rest.extend_from_slice(&bytes[taken..taken + more]);
                taken += more;
            }
            let used = self.walk(&rest, &mut found);
            rest.drain(..used);
            if rest.is_empty() {
                let used = self.walk(&bytes[taken..], &mut found);
                rest.extend_from_slice(&bytes[taken + used..]);
            }
            self.rest = rest;
        }
    }

    /// Number of bytes that the record or header at the start of `bytes` needs, as far as it is
    /// known.
    fn wanted(bytes: &[u8], begun: bool) -> usize {
        if !begun {
            return 24;
        }
        match bytes.get(8..12) {
            Some(len) => 16 + u32::from_ne_bytes(len.try_into().expect("four bytes")) as usize,
            None => 16,
        }
    }

    /// Reads whole records. Returns the number of bytes read.
    fn walk(&mut self, bytes: &[u8], found: &mut impl FnMut(u64)) -> usize {
        let mut used = 0;
        loop {
            let left = &bytes[used..];
            let wanted = Self::wanted(left, self.begun);
            if left.len() < wanted.max(16) {
                return used;
            }
            if self.begun {
                let at = 16 + frame::HEADERS;
                assert_eq!(left[at..at + 8], frame::MAGIC, "a packet of ours");
                let number = left[at + 8..at + 16].try_into().expect("eight bytes");
                let number = u64::from_be_bytes(number);
                self.jumps += u64::from(self.last != 0 && number != self.last + 1);
                self.last = number;
                self.packets += 1;
                found(number);
            }
            self.begun = true;
            used += wanted;
        }
    }
}
