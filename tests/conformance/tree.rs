//! Mounted savefiles, and their flows as any reader sees them.

use std::fs;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pcapfs_tests::{Daemon, Mount};
use serde_json::Value;

/// Maximum time until all captures of one mount are `ended`.
const PATIENCE: Duration = Duration::from_secs(240);

/// A daemon with a number of savefiles.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The daemon.
    pub(crate) daemon: Daemon,
    captures: Vec<Capture>,
}

/// One savefile in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// The savefile.
    pub(crate) file: PathBuf,
    /// Its directory in the tree.
    pub(crate) folder: PathBuf,
    /// `state` of its status once that no longer changes, or the daemon's message if it is not a
    /// savefile.
    pub(crate) state: String,
    alias: String,
}

impl Tree {
    /// Mounts savefiles and waits until the engine is done with all of them.
    pub(crate) fn mount<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        Self::mount_with(files, &[])
    }

    /// Like [`Tree::mount`], with more arguments on the command line.
    pub(crate) fn mount_with<P: AsRef<Path>>(
        files: impl IntoIterator<Item = P>,
        arguments: &[&str],
    ) -> Self {
        let files = files.into_iter().map(|file| file.as_ref().to_owned());
        let mut captures: Vec<Capture> = files
            .enumerate()
            .map(|(number, file)| Capture { alias: alias(number), ..Capture::of(file) })
            .collect();
        let daemon = loop {
            let mut mount = Mount::new().lifetime(Duration::from_secs(900)).args(arguments);
            for capture in captures.iter().filter(|capture| capture.state.is_empty()) {
                mount = mount.capture(&capture.alias, &format!("file:{}", capture.file.display()));
            }
            // A file that is not a savefile makes the daemon refuse the whole command line.
            let refused = match mount.try_start() {
                Ok(daemon) => break daemon,
                Err(refused) => refused,
            };
            let named = captures
                .iter_mut()
                .filter(|capture| capture.state.is_empty())
                .find(|capture| refused.stderr.contains(&capture.file.display().to_string()));
            let capture = named.unwrap_or_else(|| panic!("pcapfs did not start: {refused:#?}"));
            assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
            capture.state = format!("refused: {}", refused.stderr.trim());
        };
        let limit = Instant::now() + PATIENCE;
        for capture in &mut captures {
            capture.folder = daemon.path(&capture.alias);
            if capture.state.is_empty() {
                capture.state = settle(&capture.folder, limit);
            }
        }
        Self { daemon, captures }
    }

    /// The captures, in the order of their savefiles.
    pub(crate) fn captures(&self) -> &[Capture] {
        &self.captures
    }

    /// Ends the daemon.
    ///
    /// # Errors
    /// The message of the failed end, such as of an earlier panic in one of its threads.
    pub(crate) fn close(self) -> Result<(), String> {
        let end = panic::catch_unwind(AssertUnwindSafe(|| drop(self.daemon)));
        end.map_err(|cause| {
            let text = cause.downcast_ref::<String>();
            text.map_or_else(|| "its end was wrong".to_owned(), Clone::clone)
        })
    }
}

fn alias(number: usize) -> String {
    format!("c{number:04}")
}

/// Waits until a capture is `ended` or has failed. Returns its state.
fn settle(folder: &Path, limit: Instant) -> String {
    loop {
        let status = json(&folder.join("status.json"));
        let state = status
            .as_ref()
            .map_or("unreadable", |status| status["state"].as_str().unwrap_or("no state"));
        if !matches!(state, "pending" | "running" | "retrying") || Instant::now() > limit {
            return state.to_owned();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a file that is one JSON text.
pub(crate) fn json(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads a file with a JSON text on each line.
pub(crate) fn json_lines(path: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| format!("{}: {error}", path.display()))
        })
        .collect()
}

impl Capture {
    fn of(file: PathBuf) -> Self {
        Self { file, folder: PathBuf::new(), state: String::new(), alias: String::new() }
    }

    /// True if the daemon refused it because it is not a savefile.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.starts_with("refused: ")
    }

    /// The savefile's path below the folder of all test data, for people.
    pub(crate) fn name(&self) -> String {
        short(&self.file)
    }

    /// The number at a pointer in its status.
    pub(crate) fn count(&self, pointer: &str) -> Result<u64, String> {
        let status = json(&self.folder.join("status.json"))?;
        status.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| format!("no {pointer}"))
    }

    /// Its flows, in order of their numbers.
    pub(crate) fn flows(&self) -> Result<Vec<Flow>, String> {
        if self.state != "ended" {
            return Err(format!("the capture is {}", self.state));
        }
        let flows = self.folder.join("flows");
        let entries = fs::read_dir(&flows).map_err(|error| format!("flows: {error}"))?;
        let mut folders = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("flows: {error}"))?;
        folders.sort();
        folders.into_iter().map(Flow::open).collect()
    }

    /// Its TCP flows, in order of their numbers.
    pub(crate) fn connections(&self) -> Result<Vec<Flow>, String> {
        let mut flows = self.flows()?;
        flows.retain(|flow| flow.meta["protocol"] == "tcp");
        Ok(flows)
    }
}

/// The path of a capture, without the folder of all test data.
pub(crate) fn short(path: &Path) -> String {
    let text = path.to_string_lossy();
    let begin = text.find("testdata/").map_or(0, |at| at + "testdata/".len());
    text[begin..].to_owned()
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The side that opened the connection.
    Client,
    /// The side to which the connection was opened.
    Server,
}

impl Side {
    /// Both sides.
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// Its name in `meta.json`, which is also the name of its stream without `.bin`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// An address and a port.
pub(crate) type Endpoint = (IpAddr, u16);

/// A flow's directory.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The directory.
    pub(crate) folder: PathBuf,
    /// Its `meta.json`.
    pub(crate) meta: Value,
}

impl Flow {
    fn open(folder: PathBuf) -> Result<Self, String> {
        let meta = json(&folder.join("meta.json"))?;
        Ok(Self { folder, meta })
    }

    /// Name of the directory.
    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Address and port of a side.
    pub(crate) fn endpoint(&self, side: Side) -> Result<Endpoint, String> {
        let end = &self.meta[side.name()];
        let address = end["address"].as_str().and_then(|text| text.parse().ok());
        let port = end["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        address.zip(port).ok_or_else(|| format!("{}: no address and port in {end}", self.name()))
    }

    /// Path of a side's stream.
    pub(crate) fn path(&self, side: Side) -> PathBuf {
        self.folder.join(side.name()).with_extension("bin")
    }

    /// The stream of a side, with zeros in its holes.
    pub(crate) fn stream(&self, side: Side) -> Result<Vec<u8>, String> {
        let path = self.path(side);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let size = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if bytes.len() as u64 != size {
            return Err(format!("{} bytes read of {size}", bytes.len()));
        }
        Ok(bytes)
    }

    /// The holes of a side's stream, as `meta.json` lists them.
    pub(crate) fn gaps(&self, side: Side) -> Result<Vec<(usize, usize)>, String> {
        let gaps = &self.meta[side.name()]["gaps"];
        let wrong = || format!("{}: gaps are {gaps}", self.name());
        let list = gaps.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|gap| {
                let at = |index: usize| gap[index].as_u64().and_then(|at| usize::try_from(at).ok());
                at(0).zip(at(1)).filter(|_| gap[2] == "missing").ok_or_else(wrong)
            })
            .collect()
    }

    /// Returns whether both streams are free of holes.
    pub(crate) fn is_whole(&self) -> Result<bool, String> {
        Ok(self.gaps(Side::Client)?.is_empty() && self.gaps(Side::Server)?.is_empty())
    }

    /// Its transactions; none if the flow is not HTTP.
    pub(crate) fn transactions(&self) -> Result<Vec<Value>, String> {
        let path = self.folder.join("http.jsonl");
        if path.exists() { json_lines(&path) } else { Ok(Vec::new()) }
    }

    /// Files of decoded bodies, by name.
    pub(crate) fn bodies(&self) -> Result<Vec<PathBuf>, String> {
        let folder = self.folder.join("bodies");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).map_err(|error| format!("bodies: {error}"))?;
        let mut files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("bodies: {error}"))?;
        files.sort();
        Ok(files)
    }
}
