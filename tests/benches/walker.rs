//! A fast reader of numbered packets: checks order and numbers, not every byte.
//!
//! The tests' own parsers check every byte, which would make 64 of them the bottleneck of what
//! is measured here.

use pcapfs_tests::frame;

/// Takes a savefile (pcap, this machine's byte order, Ethernet) piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    /// Bytes of a record that is not whole yet.
    rest: Vec<u8>,
    begun: bool,
    /// Number of the last packet.
    pub(crate) last: u64,
    /// Packets.
    pub(crate) packets: u64,
    /// Packets that were not the next one.
    pub(crate) jumps: u64,
    /// Bytes, all of them.
    pub(crate) bytes: u64,
}

impl Walker {
    /// Takes the next bytes; `found` is called with each number.
    pub(crate) fn push(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        self.bytes += bytes.len() as u64;
        if self.rest.is_empty() {
            let used = self.walk(bytes, &mut found);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            // Only what completes the record begun: the rest is looked at where it is.
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

    /// Bytes the record or header at the front of `bytes` needs, as far as that is known.
    fn wanted(bytes: &[u8], begun: bool) -> usize {
        if !begun {
            return 24;
        }
        match bytes.get(8..12) {
            Some(len) => 16 + u32::from_ne_bytes(len.try_into().expect("four bytes")) as usize,
            None => 16,
        }
    }

    /// Takes whole records; bytes taken.
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
