//! Savefiles of many TCP connections, made quickly: for tests about numbers, not contents.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use frames::Format;

pub use frames::flags;

/// Ethernet, IPv4 and TCP headers.
const HEADERS: usize = 54;
const TEMPLATE: [u8; HEADERS] = {
    let mut frame = [0; HEADERS];
    // Both hardware addresses are made up; IPv4.
    frame[0] = 2;
    frame[5] = 2;
    frame[6] = 2;
    frame[11] = 1;
    frame[12] = 8;
    // No options, no fragments, TTL 64, TCP, from 10.x to 10.128.x.
    frame[14] = 0x45;
    frame[20] = 0x40;
    frame[22] = 64;
    frame[23] = 6;
    frame[26] = 10;
    frame[30] = 10;
    frame[31] = 128;
    // No options.
    frame[46] = 0x50;
    frame[48] = 0xff;
    frame
};

/// The sender of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The side that opens the connection.
    Client,
    /// The other side.
    Server,
}

/// A savefile being written: pcap, nanoseconds, packets a microsecond apart.
#[derive(Debug)]
pub struct Segments {
    file: BufWriter<File>,
    packets: u64,
}

impl Segments {
    /// Begins a savefile.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&Format::default().header())?;
        Ok(Self { file, packets: 0 })
    }

    /// Packets so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Appends a segment of connection `number` (below 2^30), all of which have different
    /// addresses and ports.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn push(
        &mut self,
        number: u32,
        from: From,
        control: u8,
        [sequence, acknowledgment]: [u32; 2],
        payload: &[u8],
    ) -> io::Result<()> {
        let mut frame = TEMPLATE;
        let length = u16::try_from(40 + payload.len()).expect("a packet of IPv4");
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        // Ports are counted first: 32768 of them, then the address.
        let [_, _, high, low] = (number & 0x7fff | 0x8000).to_be_bytes();
        let [_, second, third, fourth] = (number >> 15).to_be_bytes();
        let (client, server) = ([10, second, third, fourth], [10, 128, 0, 80]);
        let (client_port, server_port) = ([high, low], [0, 80]);
        let ends = match from {
            From::Client => (client, server, client_port, server_port),
            From::Server => (server, client, server_port, client_port),
        };
        frame[26..30].copy_from_slice(&ends.0);
        frame[30..34].copy_from_slice(&ends.1);
        frame[34..36].copy_from_slice(&ends.2);
        frame[36..38].copy_from_slice(&ends.3);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[42..46].copy_from_slice(&acknowledgment.to_be_bytes());
        frame[47] = control;

        let time = 1_700_000_000_000_000_000 + self.packets * 1000;
        let length = HEADERS + payload.len();
        self.file.write_all(&Format::default().record_header(time, length, length))?;
        self.file.write_all(&frame)?;
        self.file.write_all(payload)?;
        self.packets += 1;
        Ok(())
    }

    /// Ends the savefile.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{run, tool};
    use crate::skip_unless;

    #[test]
    fn tshark_sees_connections() {
        skip_unless!("tshark");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.pcap");
        let mut file = Segments::create(&path).unwrap();
        for number in [5, 1 << 29] {
            file.push(number, From::Client, flags::SYN, [7, 0], b"").unwrap();
            file.push(number, From::Server, flags::SYN | flags::ACK, [9, 8], b"").unwrap();
            file.push(number, From::Client, flags::ACK, [8, 10], b"hello").unwrap();
        }
        file.finish().unwrap();
        let mut command = tool("tshark");
        let fields = ["-T", "fields", "-e", "tcp.stream", "-e", "tcp.analysis.flags", "-e"];
        let finished = run(command.args(fields).arg("tcp.payload").arg("-r").arg(path), 20);
        assert_eq!(
            finished.text(),
            "0\t\t\n0\t\t\n0\t\t68656c6c6f\n1\t\t\n1\t\t\n1\t\t68656c6c6f\n"
        );
    }
}
