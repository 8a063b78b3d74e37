//! The filter of a capture, as a packet socket is to have it.

use pcap::{Active, Capture};
use protocol::linktype::LinkType;

use crate::filter::{Filter, FilterError, explain, marked};
use crate::libpcap::{self, Instruction};
use crate::own_transport::HEADERS_LEN;
use crate::source::SourceError;

/// A compiled filter, and what a packet socket is to do with packets that match.
#[derive(Debug)]
pub(in crate::source) struct FilterPlan {
    filter: Filter,
    /// The program for a packet socket. A match returns `snaplen`.
    pub(in crate::source) program: Vec<Instruction>,
    /// Bytes that the kernel keeps of a packet: enough to recognize our own packets. What is stored
    /// is cut to the snaplen of the capture.
    pub(in crate::source) snaplen: u32,
    /// The kernel hands over one byte of packets with this mark.
    mark: Option<u32>,
}

impl FilterPlan {
    /// Compiles the filter for a capture that keeps `snaplen` bytes of each packet.
    ///
    /// `live` is an open device with these packets. On such a one libpcap asks the kernel for the
    /// VLAN tag that was removed from a packet, so it compiles expressions about tags.
    ///
    /// # Errors
    /// [`SourceError::Filter`]; [`SourceError::Libpcap`] with this name if the program is too long.
    pub(super) fn new(
        expression: &str,
        live: Option<&Capture<Active>>,
        link_type: LinkType,
        snaplen: u32,
        name: &str,
    ) -> Result<Self, SourceError> {
        let too_long =
            || SourceError::Libpcap { name: name.to_owned(), why: "filter too long".to_owned() };
        let filter = match live {
            Some(live) => {
                let program = live.compile(expression, true).map_err(|error| {
                    FilterError::Compile { expression: expression.to_owned(), why: explain(&error) }
                })?;
                let program = libpcap::instructions(&program);
                Filter::checked(program, expression).ok_or_else(too_long)?
            }
            None => Filter::compile_live(expression, link_type)?,
        };
        // What is too long for the kernel runs here, where packets have their bytes only.
        if filter.is_coarse() && filter.asks_the_kernel() {
            return Err(too_long());
        }
        let snaplen = snaplen.max(HEADERS_LEN);
        Ok(Self { program: filter.program(snaplen), filter, snaplen, mark: None })
    }

    /// Has the kernel hand over one byte of packets with this mark. Has no effect if the program is
    /// not the whole filter, which needs whole packets.
    pub(super) fn set_mark(&mut self, mark: Option<u32>) {
        self.mark = mark.filter(|_| !self.is_coarse());
    }

    /// Returns true if only the kernel can run the program.
    pub(in crate::source) fn is_for_kernel(&self) -> bool {
        self.filter.asks_the_kernel()
    }

    /// Returns true if the program accepts more packets than the filter.
    pub(in crate::source) fn is_coarse(&self) -> bool {
        self.filter.is_coarse()
    }

    /// A program with the [cut](marked) of packets with our mark; `None` if it cannot have one.
    pub(in crate::source) fn cut(&self, program: Vec<Instruction>) -> Option<Vec<Instruction>> {
        self.mark.and_then(|mark| marked::cut(program, mark))
    }

    /// The filter, to apply it to packets in this process.
    pub(super) const fn filter(&self) -> &Filter {
        &self.filter
    }
}
