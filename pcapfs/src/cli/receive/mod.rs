//! `pcapfs receive`: receives over TCP at consecutive ports, and writes the bytes into files.
//!
//! One thread reads all connections in turn, into one buffer. It writes the bytes of each read before
//! it reads again. So memory does not grow with the connections, and the bytes of one read are never
//! mixed with those of another.

mod connection;
mod output;
mod packets;
mod ports;
mod reception;
mod report;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::savefile::TransferSignals;
use crate::failure::Failure;
use crate::size;
use output::{FileForm, OutputFolder};
use reception::{Reception, ReceptionSettings};
use report::ReceiveReport;

/// Ports at which to receive.
#[derive(Debug, Args)]
pub(super) struct Receive {
    /// Address of this machine at which to listen, such as 127.0.0.1; 0.0.0.0 and [::] are all
    #[arg(value_name = "ADDRESS")]
    address: String,

    /// The first port
    #[arg(value_name = "BASE_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,

    /// The number of ports
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,

    /// Directory for the files, which is made if it is missing
    #[arg(short, long, value_name = "DIR", default_value = "./output")]
    output: PathBuf,

    /// A file for each connection, instead of one for each port
    #[arg(long)]
    per_connection: bool,

    /// Receive no more than this from all connections together, and then end
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_bytes: Option<u64>,

    /// Write savefiles: each read is a packet with a time stamp
    #[arg(long)]
    pcapng: bool,

    /// Print connections and sums as JSON, a line for each
    #[arg(long)]
    json: bool,
}

/// `pcapfs receive`: until it is interrupted, or has received as much as it may.
pub(super) fn run(receive: &Receive) -> Result<(), Failure> {
    let address = address(&receive.address)?;
    let ports = ports::range(receive.base_port, receive.count)?;
    let room = reception::room(receive.count, receive.per_connection)?;
    let form = if receive.pcapng { FileForm::Pcapng } else { FileForm::Bytes };
    let settings = ReceptionSettings {
        per_connection: receive.per_connection,
        form,
        max_bytes: receive.max_bytes,
        room,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // They only wait for the disk.
        .max_blocking_threads(2)
        .build()
        .map_err(Failure::System)?;
    let result = runtime.block_on(async {
        // Before it is ready, so that no signal ends it without a summary.
        let mut signals = TransferSignals::new()?;
        let listeners = ports::listen(address, ports).await?;
        // A directory is not made for ports that cannot be had.
        let folder = OutputFolder::open(&receive.output)?;
        let report = ReceiveReport::new(receive.json);
        report.listening(&listeners, folder.path());
        Reception::new(settings, listeners, folder, report).run(&mut signals).await
    });
    runtime.shutdown_background();
    result
}

/// The address at which to listen.
fn address(text: &str) -> Result<IpAddr, Failure> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        Failure::Argument(format!(
            "'{text}' is no address of this machine (127.0.0.1, 0.0.0.0 and [::] are some; see: ip \
             address)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_brackets() {
        for (text, expected) in [("[::1]", "::1"), ("::", "::"), ("127.0.0.1", "127.0.0.1")] {
            assert_eq!(address(text).unwrap(), expected.parse::<IpAddr>().unwrap());
        }
        for text in ["", "eth0", "[127.0.0.1", "127.0.0.1:5000"] {
            assert!(address(text).unwrap_err().is_usage(), "{text}");
        }
    }
}
