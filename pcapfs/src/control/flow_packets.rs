//! The packets of a flow for one client: the file `packets.pcap` of the flow's directory.
//!
//! The file is read on a thread that may block, one chunk at a time, and the next chunk is read when
//! the client has taken the one before.

use capture::flow::{File, FileReading, FlowReadError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::chunks::CHUNK;
use super::connections::Busy;
use super::messages::{Chunk, FlowPacketsRequest};
use crate::fs::captures::CaptureEntry;

/// The chunks of the savefile.
pub(super) type FlowPacketsStream = ReceiverStream<Result<Chunk, Status>>;

/// Opens the packets of a flow that the caller may read.
///
/// # Errors
/// There is no such flow, or no longer.
pub(super) fn open(
    entry: &CaptureEntry,
    asked: &FlowPacketsRequest,
    busy: Busy,
) -> Result<FlowPacketsStream, Status> {
    let alias = entry.alias();
    let gone = || {
        Status::not_found(format!(
            "{alias}: no flow {} between {}: it has left the capture with its packets, or has another \
             number since the daemon was restarted",
            asked.flow,
            asked.ends.join(" and "),
        ))
    };
    let flows = entry.capture.flows();
    let flow = flows.flow(asked.flow).filter(|flow| is_between(&flow.name, &asked.ends));
    let flow = flow.ok_or_else(gone)?;
    let stat = flows.stat(flow.id, File::Packets).ok_or_else(gone)?;
    let reading = flows.open(flow.id, File::Packets, stat.beginning).map_err(|_| gone())?;
    // One chunk is read while the one before is sent.
    let (sender, chunks) = mpsc::channel(1);
    tokio::spawn(send(reading, stat.size, sender, busy));
    Ok(ReceiverStream::new(chunks))
}

/// True if the name of a flow's directory, `NUMBER-PROTOCOL-CLIENT-SERVER`, has these two ends.
fn is_between(name: &str, ends: &[String]) -> bool {
    let [one, other] = ends else { return false };
    let mut words = name.split('-').skip(2);
    let (client, server) = (words.next(), words.next());
    [(one, other), (other, one)]
        .iter()
        .any(|(one, other)| client == Some(one.as_str()) && server == Some(other.as_str()))
}

/// Sends all bytes, until the client has gone.
async fn send(
    reading: FileReading,
    total: u64,
    sender: mpsc::Sender<Result<Chunk, Status>>,
    busy: Busy,
) {
    let _while_sending = busy;
    let (mut reading, mut offset) = (reading, 0_u64);
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let bytes = reading.read(offset, CHUNK as usize);
            (reading, bytes)
        });
        // Fails only when the service ends.
        let Ok((same, bytes)) = read.await else { return };
        reading = same;
        let chunk = match bytes {
            Ok(bytes) if bytes.is_empty() => return,
            Ok(bytes) => {
                let total = if offset == 0 { total } else { 0 };
                offset = offset.saturating_add(bytes.len() as u64);
                Ok(Chunk { data: bytes.into(), total, lost: 0 })
            }
            Err(error) => Err(unreadable(&error)),
        };
        let is_over = chunk.is_err();
        if sender.send(chunk).await.is_err() || is_over {
            return;
        }
    }
}

fn unreadable(error: &FlowReadError) -> Status {
    match error {
        FlowReadError::Expired => Status::data_loss(
            "packets of the flow were overwritten while they were sent (try again)",
        ),
        FlowReadError::Storage(why) => Status::internal(why.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_known_by_its_ends() {
        let name = "000042-tcp-10.0.0.1.43512-fd00__2.80";
        let is_between = |ends: &[&str]| {
            let ends: Vec<String> = ends.iter().map(|end| (*end).to_owned()).collect();
            is_between(name, &ends)
        };
        assert!(is_between(&["10.0.0.1.43512", "fd00__2.80"]));
        assert!(is_between(&["fd00__2.80", "10.0.0.1.43512"]));
        for ends in [
            &["10.0.0.1.43512", "fd00__2.81"][..],
            &["10.0.0.1.43512", "10.0.0.1.43512"],
            &["10.0.0.1.43512"],
            &["", ""],
            &[],
        ] {
            assert!(!is_between(ends), "{ends:?}");
        }
    }
}
