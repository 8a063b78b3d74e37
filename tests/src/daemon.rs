//! A `pcapfs mount` in the foreground, for the length of one test.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::net::Namespace;
use crate::process::{run, tool};
use crate::schema;
use crate::wait::{wait_for, wait_until};

/// Time limit for a daemon to report that it is ready, or that it cannot be. It reads a savefile
/// first, and the program under test is not optimised.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The environment variable with the path of the socket.
pub const SOCKET: &str = "PCAPFS_SOCKET";

/// The environment variable with the backend of captures that do not name their own. The tests of
/// interfaces run once for each.
const BACKEND: &str = "PCAPFS_TEST_BACKEND";

/// Time limit for a daemon to end after SIGTERM. After 5 s it ends itself in any case, with an error
/// unless only memory was left to free, so a limit of 5 s would race with that.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Path of a built binary: `$PCAPFS_BIN`, or beside that, or in the test's target folder.
///
/// # Panics
/// If there is none; the message has the command that builds it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let found = env::var_os("PCAPFS_BIN").map_or_else(
        || {
            let test = env::current_exe().expect("a test knows where it is");
            // target/debug/deps/test-0123 -> target/debug/NAME
            test.parent().and_then(Path::parent).expect("tests lie in target/*/deps").join(name)
        },
        |pcapfs| {
            if name == "pcapfs" { pcapfs.into() } else { Path::new(&pcapfs).with_file_name(name) }
        },
    );
    assert!(
        found.is_file(),
        "no {}: run `cargo build{}` first, or set PCAPFS_BIN",
        found.display(),
        if cfg!(debug_assertions) { "" } else { " --release" },
    );
    found
}

/// True if a file system is mounted at `path`, dead or alive.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    mount_entry(path).is_some()
}

/// The line of `/proc/self/mountinfo` for `path`, see proc(5).
#[must_use]
pub fn mount_entry(path: &Path) -> Option<String> {
    // Other tests may have mount points that are not UTF-8.
    let table = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    let table = String::from_utf8_lossy(&table);
    let path = path.to_str().expect("test paths are text");
    table.lines().find(|line| line.split(' ').nth(4) == Some(path)).map(str::to_owned)
}

/// The daemon to start: the arguments of `pcapfs mount`, and its surroundings.
#[derive(Debug, Default)]
pub struct Mount {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<String>,
    mountpoint: Option<PathBuf>,
    ring_dir: Option<PathBuf>,
    stdin: Option<Stdio>,
    lifetime: Option<Duration>,
    socket: Option<PathBuf>,
}

impl Mount {
    /// A mount without arguments.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one argument after the mount point.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments after the mount point.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the environment of the daemon.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds `-c ALIAS=SOURCE`; the source may be followed by a filter.
    #[must_use]
    pub fn capture(self, alias: &str, source: &str) -> Self {
        self.arg("-c").arg(format!("{alias}={source}"))
    }

    /// Adds `--ring SIZE`.
    #[must_use]
    pub fn ring(self, size: &str) -> Self {
        self.arg("--ring").arg(size)
    }

    /// Runs the daemon in this network namespace; its mount is visible outside all the same.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    /// Mounts at `folder`, and leaves it in place afterwards; by default at a folder of its own.
    #[must_use]
    pub fn mountpoint(mut self, folder: &Path) -> Self {
        self.mountpoint = Some(folder.to_owned());
        self
    }

    /// Keeps the rings in `folder`, and leaves them in place afterwards, for a later daemon; by
    /// default in a folder of its own below /dev/shm.
    #[must_use]
    pub fn ring_dir(mut self, folder: &Path) -> Self {
        self.ring_dir = Some(folder.to_owned());
        self
    }

    /// Sets the path of the socket; by default it has a path of its own.
    #[must_use]
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_owned());
        self
    }

    /// Gives the daemon this standard input instead of none.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Kills the daemon after this time in any case, so that no test hangs in a read of its files;
    /// by default after 100 s.
    #[must_use]
    pub fn lifetime(mut self, limit: Duration) -> Self {
        self.lifetime = Some(limit);
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    /// If it is not ready in time.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|refused| panic!("pcapfs did not start: {refused:#?}"))
    }

    /// Starts the daemon, which may refuse.
    ///
    /// # Errors
    /// Its exit code and messages, if it ended instead of becoming ready.
    pub fn try_start(self) -> Result<Daemon, Refused> {
        let own_mountpoint = self.mountpoint.is_none().then(|| temporary(&env::temp_dir()));
        let mountpoint = self
            .mountpoint
            .unwrap_or_else(|| own_mountpoint.as_ref().expect("made above").path().to_owned());
        let own_ring_dir = self.ring_dir.is_none().then(|| temporary(Path::new("/dev/shm")));
        let ring_dir = self
            .ring_dir
            .unwrap_or_else(|| own_ring_dir.as_ref().expect("made above").path().to_owned());

        let own_socket_dir = self.socket.is_none().then(|| temporary(&env::temp_dir()));
        let socket = self.socket.unwrap_or_else(|| {
            own_socket_dir.as_ref().expect("made above").path().join("control.sock")
        });

        let mut command = Command::new(binary("pcapfs"));
        command.arg("mount").arg(&mountpoint).arg("--ring-dir").arg(&ring_dir);
        command.args(&self.arguments).env(SOCKET, &socket).envs(self.environment);
        if let Some(backend) = env::var_os(BACKEND)
            && !self.arguments.iter().any(|argument| argument == "--backend")
        {
            command.arg("--backend").arg(backend);
        }
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match &self.namespace {
            Some(name) => Namespace::enter(name, || command.spawn()),
            None => command.spawn(),
        }
        .expect("the binary starts");

        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let ready = format!("pcapfs: ready at {}", mountpoint.display());
        {
            let log = Arc::clone(&log);
            thread::spawn(move || log.collect(stderr, &ready));
        }
        let daemon = Daemon {
            child,
            mountpoint,
            ring_dir,
            socket,
            _own_socket_dir: own_socket_dir,
            log,
            exit: None,
            own_mountpoint: own_mountpoint.map(TempDir::keep),
            _own_ring_dir: own_ring_dir,
            alive: Arc::default(),
            leave_mount: false,
        };
        daemon.guard(self.lifetime.unwrap_or(Duration::from_secs(100)));
        daemon.wait_ready()
    }
}

fn temporary(parent: &Path) -> TempDir {
    tempfile::Builder::new()
        .prefix("pcapfs-test-")
        .tempdir_in(parent)
        .expect("a folder for the test can be made")
}

/// A daemon that ended instead of becoming ready.
#[derive(Debug)]
pub struct Refused {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its messages.
    pub stderr: String,
    /// True if a file system was still mounted at the mount point after its end.
    pub left_mounted: bool,
}

/// The daemon's output on standard error.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    text: String,
    ready: bool,
    closed: bool,
}

impl Log {
    fn collect(&self, mut stderr: impl BufRead, ready: &str) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let end = stderr.read_until(b'\n', &mut line).unwrap_or(0) == 0;
            let mut state = self.state.lock().unwrap();
            let text = String::from_utf8_lossy(&line);
            state.ready |= text.trim_end() == ready;
            state.text.push_str(&text);
            state.closed |= end;
            self.changed.notify_all();
            if end {
                return;
            }
        }
    }
}

/// A running daemon. Dropping it ends it, unmounts, and removes its folders.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    mountpoint: PathBuf,
    ring_dir: PathBuf,
    socket: PathBuf,
    _own_socket_dir: Option<TempDir>,
    log: Arc<Log>,
    exit: Option<ExitStatus>,
    /// A path, not a guard: it is removed only if empty, never through a file system still mounted
    /// on it.
    own_mountpoint: Option<PathBuf>,
    _own_ring_dir: Option<TempDir>,
    alive: Arc<(Mutex<bool>, Condvar)>,
    leave_mount: bool,
}

impl Daemon {
    /// Mounts with these arguments, see [`Mount`] for more choice.
    #[must_use]
    pub fn mount<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Mount::new().args(arguments).start()
    }

    /// Kills the daemon when it has lived too long, so that no test waits for it forever.
    fn guard(&self, lifetime: Duration) {
        let ended = Arc::clone(&self.alive);
        let pid = self.pid();
        thread::spawn(move || {
            let (flag, changed) = &*ended;
            let (flag, timeout) = changed
                .wait_timeout_while(flag.lock().unwrap(), lifetime, |ended| !*ended)
                .unwrap();
            if timeout.timed_out() && !*flag {
                eprintln!("harness: the daemon is older than {lifetime:?}, killing it");
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
    }

    fn wait_ready(mut self) -> Result<Self, Refused> {
        let limit = Instant::now() + START_LIMIT;
        let log = Arc::clone(&self.log);
        let mut state = log.state.lock().unwrap();
        while !state.ready && !state.closed {
            let left = limit.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not ready within {START_LIMIT:?}; it said:\n{}", state.text);
            state = log.changed.wait_timeout(state, left).unwrap().0;
        }
        if state.ready {
            drop(state);
            return Ok(self);
        }
        let stderr = state.text.clone();
        drop(state);
        let status = self.wait_exit(STOP_LIMIT).expect("it closed standard error but did not end");
        Err(Refused { status, stderr, left_mounted: is_mounted(&self.mountpoint) })
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Its mount point.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The directory of its rings.
    #[must_use]
    pub fn ring_dir(&self) -> &Path {
        &self.ring_dir
    }

    /// The path of its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A `pcapfs` command for this daemon.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
        command.args(words).env(SOCKET, &self.socket);
        command
    }

    /// The output of a `pcapfs` command for this daemon, which must succeed within 10 s.
    #[track_caller]
    pub fn verb<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> String {
        run(&mut self.command(words), 10).success().text().to_owned()
    }

    /// The JSON output of a `pcapfs` command for this daemon.
    #[must_use]
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Value {
        let text = self.verb(words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON: {error}\n{text}"))
    }

    /// Path of a file in the tree, such as `web/live.pcap`.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.mountpoint.join(file)
    }

    /// Its output on standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.log.state.lock().unwrap().text.clone()
    }

    /// The `status.json` of a capture; of the daemon with an empty alias.
    #[must_use]
    #[track_caller]
    pub fn status(&self, alias: &str) -> Value {
        let path = self.path(alias).join("status.json");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        let status = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is no JSON: {error}\n{text}", path.display()));
        schema::check(if alias.is_empty() { "root-status" } else { "status" }, &status);
        status
    }

    /// A whole number from a capture's status, by JSON pointer such as `/packets/stored`.
    #[must_use]
    #[track_caller]
    pub fn count(&self, alias: &str, pointer: &str) -> u64 {
        let status = self.status(alias);
        status
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{pointer} is no whole number in {status:#}"))
    }

    /// The lines of a capture's `readers.jsonl`, in the order of the opens.
    #[must_use]
    pub fn readers(&self, alias: &str) -> Vec<Value> {
        let path = self.path(alias).join("readers.jsonl");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        let mut readers: Vec<Value> = text
            .lines()
            .map(|line| {
                let reader = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("no JSON: {error}\n{line}"));
                schema::check("readers", &reader);
                reader
            })
            .collect();
        readers.sort_by_key(|reader| reader["opened"].as_str().unwrap_or_default().to_owned());
        readers
    }

    /// The line of `readers.jsonl` for the `nth` (from 0) opener of `file`, such as `live.pcap`.
    #[must_use]
    #[track_caller]
    pub fn reader(&self, alias: &str, file: &str, nth: usize) -> Value {
        let readers = self.readers(alias);
        readers
            .iter()
            .filter(|reader| reader["file"] == file)
            .nth(nth)
            .unwrap_or_else(|| panic!("no reader {nth} of {file} in {readers:#?}"))
            .clone()
    }

    /// Writes a verb to a capture's `ctl`.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn control(&self, alias: &str, verb: &str) -> std::io::Result<()> {
        use std::io::Write as _;
        fs::OpenOptions::new()
            .write(true)
            .open(self.path(alias).join("ctl"))?
            .write_all(verb.as_bytes())
    }

    /// Waits until the capture is in this state.
    #[track_caller]
    pub fn wait_state(&self, alias: &str, state: &str) {
        wait_until(&format!("{alias} is {state}"), 10, || self.status(alias)["state"] == state);
    }

    /// Waits until the capture has stored this many packets, and no more.
    #[track_caller]
    pub fn wait_stored(&self, alias: &str, packets: u64) {
        wait_until(&format!("{alias} has stored {packets} packets"), 20, || {
            self.count(alias, "/packets/stored") >= packets
        });
        assert_eq!(self.count(alias, "/packets/stored"), packets, "packets stored by {alias}");
    }

    /// Waits until `readers.jsonl` shows that the process `pid` is blocked in a read of `file`.
    #[track_caller]
    pub fn wait_blocked(&self, alias: &str, file: &str, pid: Pid) {
        wait_for(&format!("process {pid} is blocked in {alias}/{file}"), 10, || {
            self.readers(alias).into_iter().find(|reader| {
                reader["file"] == file && reader["pid"] == pid.as_raw() && reader["blocked"] == true
            })
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon is running");
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("our own child");
            if self.exit.is_some() {
                *self.alive.0.lock().unwrap() = true;
                self.alive.1.notify_all();
            }
        }
        self.exit
    }

    /// Waits for its end; `None` if it has not ended within `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let limit = Instant::now() + limit;
        loop {
            let late = Instant::now() > limit;
            if let Some(status) = self.try_wait() {
                return Some(status);
            }
            if late {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it with SIGTERM, and returns its exit status.
    ///
    /// # Panics
    /// If it has not ended after 8 s.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit(STOP_LIMIT).unwrap_or_else(|| {
            panic!("still there {STOP_LIMIT:?} after SIGTERM:\n{}", self.stderr())
        })
    }

    /// Ends it with SIGKILL, as a crash would, and leaves the dead mount for the next daemon, which
    /// must get the same mount point and unmounts it.
    pub fn crash(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(STOP_LIMIT).expect("SIGKILL ends everything");
        self.leave_mount = true;
    }

    /// Ends it with SIGKILL, as a crash would, and unmounts the dead mount.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(STOP_LIMIT).expect("SIGKILL ends everything");
        detach(&self.mountpoint);
    }
}

/// Unmounts everything at `path`, dead or alive.
fn detach(path: &Path) {
    if !is_mounted(path) {
        return;
    }
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("umount");
        command.arg("-l");
        command
    } else {
        let mut command = Command::new("fusermount3");
        command.args(["-u", "-z"]);
        command
    };
    let _ = command.arg(path).stderr(Stdio::null()).status();
}

impl Drop for Daemon {
    /// Ends the daemon, which is itself a test: it must obey SIGTERM, exit with 0, unmount, and not
    /// have panicked in any thread.
    fn drop(&mut self) {
        let mut wrong = Vec::new();
        if self.try_wait().is_none() {
            let _ = kill(self.pid(), Signal::SIGTERM);
            match self.wait_exit(STOP_LIMIT) {
                Some(status) if status.success() => {
                    if is_mounted(&self.mountpoint) {
                        wrong.push("left its mount".to_owned());
                    }
                }
                Some(status) => wrong.push(format!("ended on SIGTERM with {status}")),
                None => {
                    wrong.push(format!("was still there {STOP_LIMIT:?} after SIGTERM"));
                    let _ = kill(self.pid(), Signal::SIGKILL);
                    let _ = self.wait_exit(STOP_LIMIT);
                }
            }
        }
        if !self.leave_mount {
            detach(&self.mountpoint);
        }
        if let Some(folder) = &self.own_mountpoint {
            let _ = fs::remove_dir(folder);
        }
        let stderr = self.stderr();
        if stderr.contains("panicked at") {
            wrong.push("panicked".to_owned());
        }
        if thread::panicking() {
            eprintln!("--- pcapfs ({}) {wrong:?} said:\n{stderr}---", self.pid());
        } else {
            assert!(wrong.is_empty(), "pcapfs {wrong:?}; it said:\n{stderr}");
        }
    }
}
