//! Real tools as children: their output as it comes, time limits, no survivors.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// A command in the C locale and UTC, without standard input.
#[must_use]
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// A command that runs a Python program; added arguments are its `sys.argv[1:]`.
#[must_use]
pub fn python(program: &str) -> Command {
    let mut command = tool("python3");
    command.arg("-c").arg(program);
    command
}

/// The results of a command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("output of the tool is text")
    }

    /// Itself, when the command succeeded.
    ///
    /// # Panics
    /// If it failed; the message has its output.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it has not ended after `seconds`; then it is killed.
#[track_caller]
pub fn run(command: &mut Command, seconds: u64) -> Finished {
    let mut running = Running::spawn(command);
    let status = running.wait(seconds);
    let stdout = running.stdout.finish();
    let stderr = String::from_utf8_lossy(&running.stderr.finish()).into_owned();
    Finished { status, stdout, stderr }
}

/// A pipe that a thread empties.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collected {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                collected.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    /// Waits for the end of the pipe.
    fn settle(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("collecting does not panic");
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        self.settle();
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

/// A child whose output is collected; killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    stdout: Collected,
    stderr: Collected,
    exit: Option<ExitStatus>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Collected::new(child.stdout.take().expect("piped"));
        let stderr = Collected::new(child.stderr.take().expect("piped"));
        Self { child, name, stdout, stderr, exit: None }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes.lock().unwrap().clone()
    }

    /// Its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes.lock().unwrap()).into_owned()
    }

    /// Waits until its standard output so far is as wanted.
    #[track_caller]
    pub fn wait_stdout(&self, what: &str, seconds: u64, mut wanted: impl FnMut(&[u8]) -> bool) {
        wait_until(&format!("{}: {what}", self.name), seconds, || {
            wanted(&self.stdout.bytes.lock().unwrap())
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the child is running");
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("our own child");
        }
        self.exit
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it has not ended after `seconds`.
    #[track_caller]
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        let limit = Instant::now() + Duration::from_secs(seconds);
        loop {
            let late = Instant::now() > limit;
            if let Some(status) = self.try_wait() {
                // Its last output may still be on its way here.
                self.stdout.settle();
                self.stderr.settle();
                return status;
            }
            assert!(
                !late,
                "{} has not ended after {seconds} s; {} bytes of output; it said: {}",
                self.name,
                self.stdout.bytes.lock().unwrap().len(),
                self.stderr()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal that must end it, and returns the time until its end. The time for which its
    /// main thread or this one waited for a processor is not counted.
    ///
    /// # Panics
    /// If it has not ended after 5 s.
    pub fn end_with(&mut self, signal: Signal) -> Duration {
        let its = format!("/proc/{}/schedstat", self.pid());
        let waited =
            || waited_for_processor(&its) + waited_for_processor("/proc/thread-self/schedstat");
        let (before, begin) = (waited(), Instant::now());
        self.signal(signal);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // It stays there as a zombie, so its times can still be read.
        while waitid(Id::Pid(self.pid()), flags) == Ok(WaitStatus::StillAlive) {
            assert!(begin.elapsed() < Duration::from_secs(5), "{} outlives {signal}", self.name);
            thread::sleep(Duration::from_micros(500));
        }
        let time = begin.elapsed().saturating_sub(waited().saturating_sub(before));
        self.try_wait();
        time
    }
}

/// How long a thread has waited for a processor: the second number of its `schedstat`, in
/// nanoseconds. Zero if the kernel does not count it.
fn waited_for_processor(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let _ = self.child.kill();
            let limit = Instant::now() + Duration::from_secs(5);
            // Not a plain wait: a child stuck in the file system ends only with the daemon.
            while self.try_wait().is_none() && Instant::now() < limit {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
