//! Mounting in another process's mount namespace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Host, Running, run, skip_unless, tool, wait_until};

use crate::support::status_line;

/// Traps that a container may set in places a helper might use: programs that leave a mark, no
/// devices, its own users, and a false `/proc`.
const CONTAINER: &str = r#"
set -e
place=$1
mount -t tmpfs none /usr/local
mkdir -p /usr/local/bin
printf '#!/bin/sh\nid >> "%s/mark"\n' "$place" > /usr/local/bin/evil
chmod 755 /usr/local/bin/evil
for program in /usr/sbin/mount.pcapfs /usr/sbin/pcapfs "$2" "$3"; do
    mount --bind /usr/local/bin/evil "$program"
done
echo "pcapfs:x:0:0::/:/bin/sh" > "$place/users"
mount --bind "$place/users" /etc/passwd
mount -t tmpfs none /dev
mkdir -p "$place/proc/self"
mount --bind "$place/proc" /proc
echo made
exec sleep 60
"#;

#[test]
fn nothing_of_the_other_namespace_is_run() {
    skip_unless!(root, "nsenter", "unshare");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let container = Running::spawn(
        host.command("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", CONTAINER, "sh"])
            .arg(host.path(""))
            .args([pcapfs_tests::binary("mount-pcapfs"), pcapfs_tests::binary("pcapfs")]),
    );
    container.wait_stdout("the container", 10, |bytes| bytes == b"made\n");
    // A link that leads somewhere else outside of the namespace.
    symlink(host.captures(), host.path("link")).unwrap();
    let namespace = container.pid().to_string();
    let mut helper = host.command("mount.pcapfs");
    helper.arg(format!("file:{}", host.path("trace.pcap").display())).arg(host.path("link"));
    let _ = run(helper.args(["-N", &namespace, "-o", &host.ring_option()]), 15).success();
    assert_eq!(host.mount_entry(), None, "it is mounted there, and not here");
    let inside = Path::new(&format!("/proc/{namespace}/root"))
        .join(host.captures().strip_prefix("/").unwrap());
    let status = || -> Option<serde_json::Value> {
        serde_json::from_slice(&fs::read(inside.join("status.json")).ok()?).ok()
    };
    let pid = || status().and_then(|status| status["pid"].as_i64());
    let daemon = host.daemon().expect("it runs outside");
    assert_eq!(pid(), Some(i64::from(daemon.as_raw())));
    assert_eq!(status_line(daemon, "CapPrm"), "0000000000002000");
    assert_eq!(status_line(daemon, "Uid").split(' ').next(), Some("54401"));
    // The next daemon also comes from outside of the namespace.
    kill(daemon, Signal::SIGKILL).unwrap();
    wait_until("there is another", 10, || {
        host.daemon().is_some_and(|other| other != daemon) && pid().is_some()
    });
    assert_ne!(pid(), Some(i64::from(daemon.as_raw())));
    assert!(!host.path("mark").exists(), "a program of the container ran");
    let target = format!("--mount=/proc/{namespace}/ns/mnt");
    let _ = run(tool("nsenter").args([&target, "umount"]).arg(host.captures()), 5).success();
    wait_until("all have ended", 10, || host.daemon().is_none());
    assert!(!host.path("mark").exists(), "a program of the container ran");
}
