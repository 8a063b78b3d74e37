//! Queries of a mounted tree and its processes, shared by the tests of the helper.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Host, wait_for, wait_until};

/// A field of `/proc/PID/status`, by name.
#[track_caller]
pub(crate) fn status_line(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} of {pid}")).trim().replace('\t', " ")
}

/// A machine with a savefile mounted as `trace`.
pub(crate) fn with_savefile() -> Host {
    let host = Host::new();
    mount_savefile(&host);
    host
}

#[track_caller]
pub(crate) fn mount_savefile(host: &Host) {
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let spec = format!("file:{}", host.path("trace.pcap").display());
    let mounted = host.mount(&spec, "_netdev,nofail").success();
    assert_eq!((mounted.text(), mounted.stderr.as_str()), ("", ""));
}

/// Waits until the tree is answered by a daemon other than `before`. Returns its process id and the
/// time that took.
#[track_caller]
pub(crate) fn answers_again(host: &Host, before: Pid) -> (Pid, Duration) {
    let begun = Instant::now();
    let pid = wait_for("the tree answers again", 20, || {
        let pid = host.try_status("")?["pid"].as_i64()?;
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        (pid != before).then_some(pid)
    });
    (pid, begun.elapsed())
}

/// Writes a configuration with these captures, each of its own savefile, and returns its path.
pub(crate) fn configure(host: &Host, aliases: &[&str]) -> PathBuf {
    let capture = |alias: &&str| {
        let savefile = host.path(&format!("{alias}.pcap"));
        fs::write(&savefile, numbered(Format::default(), 10, 100)).unwrap();
        format!("[[capture]]\nalias = \"{alias}\"\nsource = \"file:{}\"\n", savefile.display())
    };
    let config = host.path("pcapfs.toml");
    fs::write(&config, aliases.iter().map(capture).collect::<String>()).unwrap();
    config
}

/// Waits until the tree has exactly these captures.
#[track_caller]
pub(crate) fn wait_captures(host: &Host, aliases: &[&str]) {
    wait_until(&format!("the captures are {aliases:?}"), 10, || {
        let Some(status) = host.try_status("") else { return false };
        let captures = status["captures"].as_array().unwrap().iter();
        captures.map(|one| one["alias"].as_str().unwrap()).eq(aliases.iter().copied())
    });
}
