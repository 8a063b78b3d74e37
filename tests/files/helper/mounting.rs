//! mount(8), fstab, and mounts that must fail.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Host, Running, run, skip_unless, wait_until};

use crate::support::mount_savefile;

#[test]
fn fstab_and_mount_work_together() {
    skip_unless!(root, "nsenter", "findmnt");
    let host = Host::new();
    fs::write(host.path("a trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    fs::rename(host.path("a trace.pcap"), host.path("trace.pcap")).unwrap();
    let (place, file) = (host.captures(), host.path("trace.pcap"));
    let (place, file) = (place.display(), file.display());
    let options = "alias=web,filter=udp\\040and\\040greater\\04010,_netdev,nofail,user,\
                   x-systemd.automount,comment=mine,mode=0755";
    let line = format!("file:{file} {place} pcapfs {options} 0 0\n");
    // The file is bound over /etc/fstab, so it is written in place.
    fs::write(host.path("fstab"), line).unwrap();
    for _ in 0..2 {
        // The second time the tree is mounted already, and mount(8) must see that.
        let all = run(host.command("mount").args(["-a", "-t", "pcapfs"]), 15).success();
        assert_eq!(all.stderr, "");
        assert_eq!((host.processes("pcapfs").len(), host.processes("mount.pcapfs").len()), (1, 1));
    }
    wait_until("the savefile is read", 5, || host.count("web", "/packets/retained") == 10);
    assert_eq!(fs::metadata(host.file("web")).unwrap().mode() & 0o777, 0o755);
    let found = run(host.command("findmnt").args(["-no", "FSTYPE,SOURCE"]).arg(host.captures()), 5);
    let text = found.success().text().to_owned();
    assert_eq!(text.split_whitespace().next(), Some("fuse.pcapfs"), "{text}");
    let _ = host.umount().success();
    host.wait_gone();

    for kind in ["pcapfs", "fuse.pcapfs"] {
        let mut mount = host.command("mount");
        mount.args(["-t", kind, "-o", "ro", &format!("file:{file}")]).arg(host.captures());
        let _ = run(&mut mount, 15).success();
        let entry = host.mount_entry().unwrap();
        assert!(entry.contains(" fuse.pcapfs ro,"), "{entry}");
        let _ = host.umount().success();
        host.wait_gone();
    }
}

#[test]
fn a_failed_mount_is_reported_and_leaves_nothing() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let good = format!("file:{}", host.path("trace.pcap").display());
    let missing = format!("file:{}", host.path("missing.pcap").display());
    let place = host.captures().display().to_string();
    fs::copy(host.path("trace.pcap"), host.path("roots.pcap")).unwrap();
    fs::set_permissions(host.path("roots.pcap"), fs::Permissions::from_mode(0o600)).unwrap();
    let roots = format!("file:{}", host.path("roots.pcap").display());
    let unwritten = host.path("trace.pcap").display().to_string();
    for (spec, place, options, code, part) in [
        (&*good, &*place, "colour=red", 1, "-o colour: unknown option"),
        (&good, &place, "alias=.x", 1, "-o alias=.x: an alias is"),
        (&good, &place, "mode=9", 1, "-o mode=9: write permission bits"),
        (&good, &place, "user=root", 1, "must not run as root"),
        (&good, &place, "user=no-such-user", 1, "no-such-user: no such user (make it with: "),
        (&good, &place, "remount", 1, "-o remount"),
        ("none", &place, "ro", 1, "config=FILE"),
        (&good, "/no/such/place", "ro", 1, "/no/such/place: no such directory"),
        (&good, "/etc/passwd", "ro", 1, "/etc/passwd: not a directory"),
        (&good, &place, "group=no-such-group", 1, "no-such-group: no such group"),
        (&missing, &place, "ro", 32, "missing.pcap: no such file"),
        ("eth9", &place, "ro", 32, "eth9: no such interface"),
        (&roots, &place, "ro", 32, "roots.pcap: permission denied for user pcapfs"),
        (&unwritten, &place, "ro", 32, "a savefile is written file:"),
        (&good, &place, "alais=web", 1, "-o alais: unknown option (did you mean alias?"),
        ("eth9", &place, "ring_dir=/no/such/rings", 32, "/no/such/rings: cannot be made"),
        (&good, &place, "filter=tcp prot 80", 32, "tcp prot 80"),
    ] {
        let mut helper = host.command("mount.pcapfs");
        let finished = run(helper.args([spec, place, "-o", options]), 15);
        assert_eq!(finished.status.code(), Some(code), "{options}: {finished:?}");
        assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        host.wait_gone();
    }
    let mut helper = host.command("mount.pcapfs");
    let faked = run(helper.args(["-f", &good, &place, "-o", "ro"]), 15).success();
    assert_eq!(faked.stderr, "");
    host.wait_gone();

    mount_savefile(&host);
    let again = run(host.command("mount.pcapfs").args([&*good, &*place]), 15);
    assert_eq!(again.status.code(), Some(32));
    assert!(again.stderr.contains("busy, a pcapfs is mounted there"), "{}", again.stderr);
    assert!(host.try_status("trace").is_some(), "it goes on");
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn without_its_user_nothing_is_started() {
    skip_unless!(root, "nsenter");
    let host = Host::with_user(false);
    let refused = host.mount("lo", "ro");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = "pcapfs: no such user (make it with: useradd --system --user-group pcapfs;";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    host.wait_gone();
}

#[test]
fn a_mount_that_is_interrupted_leaves_nothing() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let spec = format!("file:{}", host.path("trace.pcap").display());
    // libpcap takes many seconds to compile this filter.
    let ports: Vec<String> = (1..=600).map(|port| format!("port {port}")).collect();
    let options = format!("filter={}", ports.join(" or "));
    let mut helper = host.command("mount.pcapfs");
    helper.arg(&spec).arg(host.captures()).args(["-o", &options]);
    let mut mount = Running::spawn(&mut helper);
    wait_until("the daemon starts", 10, || host.daemon().is_some());
    mount.signal(Signal::SIGINT);
    assert!(!mount.wait(5).success());
    host.wait_gone();
}
