//! Answers about the flows and transactions of a capture, from its logs and the directories of its
//! flows.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Handled, JSON, Problem, json, whole};
use super::cursor;
use super::log::LinesAt;
use super::pages::PageRequest;
use super::query::Query;
use super::records::{CaptureRecords, DroppedCounts, SharedRecords};
use super::server::Server;
use super::timeline::{self, FlowClient};
use crate::cli::outlet::tree::{CaptureDirectory, DaemonTree};
use crate::cli::outlet::trouble::Trouble;

/// Maximum number of bytes of `meta.json` and `readers.jsonl` to read: tens of thousands of gaps, or
/// of readers.
const MAX_TEXT: u64 = 16 << 20;

/// Maximum number of files of a flow that are listed.
const MAX_FILES: usize = 20_000;

/// A file that is made when its size is asked for.
const MADE: &str = "http.har";

/// A capture whose logs are read.
#[derive(Debug)]
pub(super) struct OpenCapture {
    pub(super) tree: DaemonTree,
    pub(super) directory: CaptureDirectory,
    pub(super) records: SharedRecords,
    dropped: DroppedCounts,
}

/// The directory of a flow.
#[derive(Clone, Debug)]
pub(super) struct FlowDirectory(pub(super) PathBuf);

impl OpenCapture {
    /// The capture of this name, if the user of this process may read it now.
    ///
    /// # Errors
    /// The daemon's refusal, or its tree cannot be read.
    pub(super) async fn open(server: &Arc<Server>, name: &str) -> Result<Self, Problem> {
        let view = server.daemon.capture(name).await?;
        let tree = server.tree.tree(&server.daemon).await?;
        let (directory, dropped) = (tree.capture(&view.name), DroppedCounts::of(&view));
        let (records, of) = (Arc::clone(&server.records), tree.clone());
        let records = server.tree.read(move || records.of(&of, &view)).await;
        // The daemon may be another one already.
        let records = records.inspect_err(|_| server.tree.forget())?;
        Ok(Self { tree, directory, records, dropped })
    }

    /// Reads the logs, with all lines that there are now.
    async fn read<T: Send + 'static>(
        &self,
        server: &Server,
        read: impl FnOnce(&mut CaptureRecords) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (records, dropped) = (Arc::clone(&self.records), self.dropped);
        let read = server.tree.read(move || {
            let mut records = records.lock();
            let caught_up = records.catch_up(Some(dropped));
            caught_up.map_err(|error| Trouble::of_tree("the logs", &error))?;
            read(&mut records)
        });
        read.await.inspect_err(|_| server.tree.forget())
    }

    /// The directory of a flow.
    ///
    /// # Errors
    /// The flow does not exist, or the tree cannot be read.
    pub(super) async fn flow(&self, server: &Server, flow: &str) -> Result<FlowDirectory, Problem> {
        let missing = || Problem::missing(format!("{flow}: no such flow (any more)"));
        let number: u64 = flow.parse().map_err(|_| {
            Problem::missing(format!("{flow}: no flow (write its number, as in flows/42)"))
        })?;
        let directory = self.directory.clone();
        let name = self.read(server, move |records| {
            // A line that has left is no reason to give up.
            let logged = logged_name(records, number);
            match logged {
                Some(name) => Ok(Some(name)),
                None => Ok(directory
                    .flow_name(number)
                    .map_err(|error| Trouble::of_tree("flows", &error))?),
            }
        });
        let name = name.await?.ok_or_else(missing)?;
        Ok(FlowDirectory(self.directory.flow(&name)))
    }
}

/// The name of a flow's directory in its newest line.
fn logged_name(records: &mut CaptureRecords, flow: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let line = records.index.flow(flow)?.line;
    let Ok(LinesAt::Lines(block)) = records.flows.at(line) else { return None };
    let named: Named = serde_json::from_slice(block.line(line)?).ok()?;
    let is_plain = !named.name.contains('/') && named.name.starts_with(&format!("{flow:06}-"));
    is_plain.then_some(named.name)
}

/// `GET .../flows`.
///
/// # Errors
/// Those of the query, the daemon and the tree.
pub(super) async fn list_flows(server: &Arc<Server>, capture: &str, query: Query) -> Handled {
    let open = OpenCapture::open(server, capture).await?;
    let request = PageRequest::flows(query, &open.tree.generation)?;
    open.read(server, move |records| request.answer(records)).await
}

/// `GET .../http`.
///
/// # Errors
/// Those of the query, the daemon and the tree.
pub(super) async fn list_transactions(
    server: &Arc<Server>,
    capture: &str,
    query: Query,
) -> Handled {
    let open = OpenCapture::open(server, capture).await?;
    let request = PageRequest::transactions(query, &open.tree.generation)?;
    open.read(server, move |records| request.answer(records)).await
}

/// `GET .../readers`.
///
/// # Errors
/// Those of the daemon and the tree.
pub(super) async fn list_readers(server: &Arc<Server>, capture: &str) -> Handled {
    let view = server.daemon.capture(capture).await?;
    let tree = server.tree.tree(&server.daemon).await?;
    let path = tree.capture(&view.name).path("readers.jsonl");
    let lines = server.tree.read(move || text(&path, "readers.jsonl")).await?;
    let lines: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    Ok(whole(JSON, format!("{{\"readers\":[{}]}}", lines.join(","))))
}

/// A file of a flow, as it is listed.
#[derive(Serialize)]
struct ListedFile {
    name: String,
    size: Option<u64>,
}

/// `GET .../flows/N`.
///
/// # Errors
/// Those of the daemon and the tree.
pub(super) async fn show_flow(server: &Arc<Server>, capture: &str, flow: &str) -> Handled {
    let open = OpenCapture::open(server, capture).await?;
    let FlowDirectory(directory) = open.flow(server, flow).await?;
    let read = server.tree.read(move || {
        let meta = text(&directory.join("meta.json"), "meta.json")?;
        let Ok(Value::Object(mut meta)) = serde_json::from_str(&meta) else {
            return Err(Problem::unavailable("meta.json: no object"));
        };
        let mut files = Vec::new();
        list(&directory, "", &mut files)?;
        if directory.join("bodies").is_dir() {
            list(&directory.join("bodies"), "bodies/", &mut files)?;
        }
        files.sort_by(|one: &ListedFile, other| one.name.cmp(&other.name));
        let files = serde_json::to_value(files).unwrap_or_default();
        meta.insert("files".to_owned(), files);
        Ok(json(&meta))
    });
    read.await
}

/// Adds the files of a directory.
fn list(directory: &Path, prefix: &str, files: &mut Vec<ListedFile>) -> Result<(), Problem> {
    let problem = |error: std::io::Error| Trouble::of_tree("the directory of the flow", &error);
    for entry in fs::read_dir(directory).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some(name) = entry.file_name().to_str().filter(|_| is_file).map(str::to_owned) else {
            continue;
        };
        if files.len() == MAX_FILES {
            return Ok(());
        }
        let size = (name != MADE).then(|| entry.metadata().ok().map(|metadata| metadata.len()));
        files.push(ListedFile { name: format!("{prefix}{name}"), size: size.flatten() });
    }
    Ok(())
}

/// `GET .../flows/N/packets`.
///
/// # Errors
/// Those of the query, the daemon and the tree.
pub(super) async fn list_packets(
    server: &Arc<Server>,
    capture: &str,
    flow: &str,
    mut query: Query,
) -> Handled {
    #[derive(Deserialize)]
    struct End {
        address: IpAddr,
        port: u16,
    }
    #[derive(Deserialize)]
    struct Meta {
        client: End,
    }
    let open = OpenCapture::open(server, capture).await?;
    let after = cursor::after(&mut query, &open.tree.generation)?;
    let limit = query.limit(timeline::LIMIT, timeline::MOST)?;
    query.end("after, limit")?;
    let FlowDirectory(directory) = open.flow(server, flow).await?;
    let read = server.tree.read(move || {
        let meta = text(&directory.join("meta.json"), "meta.json")?;
        let meta: Meta = serde_json::from_str(&meta)
            .map_err(|error| Problem::unavailable(format!("meta.json: {error}")))?;
        let client = FlowClient { address: meta.client.address, port: meta.client.port };
        let timeline = timeline::read(&directory.join("packets.pcap"), client, after, limit)?;
        Ok(json(&timeline))
    });
    read.await
}

/// A text file of the tree.
fn text(path: &Path, name: &str) -> Result<String, Problem> {
    let problem = |error: std::io::Error| Trouble::of_tree(name, &error);
    let mut text = String::new();
    let file = File::open(path).map_err(problem)?;
    file.take(MAX_TEXT).read_to_string(&mut text).map_err(problem)?;
    if text.len() as u64 == MAX_TEXT {
        return Err(Problem::unavailable(format!("{name}: longer than {MAX_TEXT} bytes")));
    }
    Ok(text)
}
