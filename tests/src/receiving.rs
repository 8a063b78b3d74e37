//! A `pcapfs receive` for the length of one test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::daemon::binary;
use crate::process::{Running, tool};
use crate::wait::wait_until;

/// An address of the loopback interface at which no other test listens, so that all of its ports
/// are free. Each process has 4,096 of them, which begin at a place that its number gives.
#[must_use]
pub fn loopback_address() -> Ipv4Addr {
    const ADDRESSES: u32 = 4096;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
    let number = std::process::id().wrapping_mul(ADDRESSES).wrapping_add(call) % (254 << 16);
    // 127.0.0.0/16 is left to programs that use 127.0.0.1.
    Ipv4Addr::from_bits((127 << 24) + (1 << 16) + number)
}

/// A port for an address that all tests share. It has the number of this process and that of the
/// call, and no system gives it to a client (`ip_local_port_range`).
#[must_use]
pub fn own_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    20_000 + (u16::from_be_bytes([high, low]).wrapping_mul(10).wrapping_add(call)) % 12_000
}

/// A running receiver with a folder of its own. Dropping it ends it and removes the folder.
#[derive(Debug)]
pub struct Receiving {
    /// The process.
    pub process: Running,
    /// Its first port.
    pub first: SocketAddr,
    folder: TempDir,
}

impl Receiving {
    /// The first port of each receiver.
    pub const PORT: u16 = 5000;

    /// Listens at `count` ports of an address of its own.
    #[must_use]
    #[track_caller]
    pub fn start(count: u16, options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder for the test can be made");
        let path = folder.path().to_owned();
        let first = SocketAddr::new(loopback_address().into(), Self::PORT);
        let mut command = Self::command(first.ip(), count, &path);
        command.args(options);
        Self::spawn(&mut command, first, folder)
    }

    /// Waits until the command listens that begins with the port `first`, and writes into `folder`.
    #[must_use]
    #[track_caller]
    pub fn spawn(command: &mut Command, first: SocketAddr, folder: TempDir) -> Self {
        let process = Running::spawn(command);
        wait_until("it receives", 10, || {
            let said = process.stderr();
            let is_ready = said.contains("receiving at");
            assert!(is_ready || !said.ends_with('\n'), "{said}");
            is_ready || process.stdout().starts_with(b"{")
        });
        Self { process, first, folder }
    }

    /// `pcapfs receive ADDRESS 5000 COUNT -o FOLDER`.
    #[must_use]
    pub fn command(address: IpAddr, count: u16, folder: &Path) -> Command {
        let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
        command.arg("receive").arg(address.to_string());
        command.args([Self::PORT.to_string(), count.to_string()]);
        command.arg("-o").arg(folder);
        command
    }

    /// The port with this index.
    #[must_use]
    pub fn address(&self, index: u16) -> SocketAddr {
        SocketAddr::new(self.first.ip(), self.first.port() + index)
    }

    /// A connection to the port with this index.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, index: u16) -> TcpStream {
        TcpStream::connect(self.address(index)).expect("it listens")
    }

    /// The folder with its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        files(self.folder())
    }

    /// The contents of the files of each port, one after the other.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<u16, Vec<u8>> {
        let mut contents: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for path in self.files() {
            contents.entry(port_of(&path)).or_default().extend(fs::read(path).expect("our own"));
        }
        contents
    }

    /// Waits until the files of a port have this many bytes together.
    #[track_caller]
    pub fn wait_bytes(&self, port: u16, count: usize) {
        wait_until(&format!("port {port} has {count} bytes"), 20, || {
            let own = self.files().into_iter().filter(|path| port_of(path) == port);
            let sizes = own.filter_map(|path| fs::metadata(path).ok()).map(|found| found.len());
            sizes.sum::<u64>() == count as u64
        });
    }

    /// Waits until it has said this.
    #[track_caller]
    pub fn wait_said(&self, part: &str) {
        wait_until(&format!("it says {part:?}"), 20, || self.process.stderr().contains(part));
    }

    /// Ends it with SIGINT, and returns what it said.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn end(&mut self) -> String {
        self.process.signal(Signal::SIGINT);
        self.ended()
    }

    /// Waits for its end, and returns what it said.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ended(&mut self) -> String {
        let status = self.process.wait(20);
        assert!(status.success(), "{status}: {}", self.process.stderr());
        self.process.stderr()
    }
}

/// The files in a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("our own folder").flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The port in the name of a file: `stream_5000_20240315_123456.bin`.
fn port_of(path: &Path) -> u16 {
    let name = path.file_name().and_then(OsStr::to_str).expect("test paths are text");
    let port = name.split('_').nth(1).and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{name} has no port"))
}
