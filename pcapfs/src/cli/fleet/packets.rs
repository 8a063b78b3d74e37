//! The packets of a flow that was found in the stream, from the daemon of its machine.

use std::path::PathBuf;

use clap::Args;

use super::reference::FlowReference;
use crate::cli::client::DaemonSocket;
use crate::cli::savefile;
use crate::control::messages::FlowPacketsRequest;
use crate::failure::Failure;
use crate::process;
use crate::remote::connect;
use crate::remote::error::{RemoteError, RemoteReason};

/// The packets that are wanted.
#[derive(Debug, Args)]
pub(super) struct FlowPackets {
    /// The flow, as find prints it: HOST/CAPTURE/FLOW
    #[arg(value_name = "REF")]
    reference: FlowReference,

    /// Name of the remote that is this machine (pcapfs remote add) [default: the name of the
    /// machine]
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,

    /// Write to FILE, which appears under its name when it is complete; - for standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Fetches them.
pub(super) fn fetch(asked: &FlowPackets, here: &DaemonSocket) -> Result<(), Failure> {
    let FlowReference { host, capture, flow, ends } = &asked.reference;
    let daemon = daemon(host, asked.remote.as_deref(), here)?;
    let request = FlowPacketsRequest { capture: capture.clone(), flow: *flow, ends: ends.to_vec() };
    savefile::flow_packets(request, asked.write.clone(), &daemon)
}

/// The daemon of a machine.
fn daemon(host: &str, remote: Option<&str>, here: &DaemonSocket) -> Result<DaemonSocket, Failure> {
    // Its own captures are read without a remote. A name that cannot be read is not that of `host`.
    if remote.is_none() && process::host_name().is_ok_and(|own| own == host) {
        return Ok(here.clone());
    }
    let remote = connect::find(remote.unwrap_or(host)).map_err(|error| match error {
        RemoteError { remote: name, reason: RemoteReason::Unknown(have) } if remote.is_none() => {
            Failure::Answer(format!(
                "{name}: no remote has the name of this machine (have: {have}; say which one it is \
                 with --remote NAME, or add it with: pcapfs remote add {name} pcap://{name} \
                 --identity FILE)"
            ))
        }
        error => Failure::Remote(Box::new(error)),
    })?;
    Ok(DaemonSocket { socket: None, remote: Some(remote) })
}
