//! The rights of each process, and the state that it inherits from the caller.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getsid};
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{Host, Net, Traffic, binary, run, skip_unless, wait_until};

use crate::support::{status_line, with_savefile};

/// The targets of a process's descriptors.
fn descriptors(pid: Pid) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    folder
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()))
        .collect()
}

#[test]
fn the_daemon_has_one_capability_and_no_more() {
    skip_unless!(root, "nsenter", "ps");
    let (host, net) = (Host::new(), Net::new());
    let mounted = net.a.run(|| host.mount(Net::DEVICE, "alias=web,ring=1M")).success();
    assert_eq!((mounted.text(), mounted.stderr.as_str()), ("", ""), "silent, as mount(8) is");
    let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor().unwrap());

    let (user, group) = (Host::USER, Host::GROUP);
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(status_line(daemon, "Uid"), four(user));
    assert_eq!(status_line(daemon, "Gid"), four(group));
    let mut groups: Vec<_> =
        status_line(daemon, "Groups").split(' ').map(|id| id.parse::<u32>().unwrap()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [Host::GROUP, Host::FURTHER_GROUP]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        // Bit 13: CAP_NET_RAW.
        assert_eq!(status_line(daemon, set), "0000000000002000", "{set}");
    }
    assert_eq!(status_line(daemon, "SigBlk"), "0000000000000000");
    assert_eq!(status_line(daemon, "NoNewPrivs"), "1");
    assert_eq!(status_line(daemon, "Seccomp"), "2");
    assert_eq!(status_line(daemon, "Seccomp_filters"), "2");
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap().flatten();
    for thread in threads {
        let text = fs::read_to_string(thread.path().join("status")).unwrap();
        for line in ["CapEff:\t0000000000002000", "Seccomp_filters:\t2", "NoNewPrivs:\t1"] {
            assert!(text.contains(line), "{}: no {line}", thread.path().display());
        }
    }
    let limits = fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    let own = |resource| getrlimit(resource).unwrap().1;
    for (name, most, own) in [
        ("Max core file size", 0, own(Resource::RLIMIT_CORE)),
        ("Max open files", 65_536, own(Resource::RLIMIT_NOFILE)),
        ("Max processes", 4096, own(Resource::RLIMIT_NPROC)),
    ] {
        let value = most.min(own).to_string();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(words, [&value, &value], "{name}");
    }
    // Files in /proc of a process that is not dumpable belong to root.
    assert_eq!(fs::metadata(format!("/proc/{daemon}/environ")).unwrap().uid(), 0);
    let environment = fs::read(format!("/proc/{daemon}/environ")).unwrap();
    assert_eq!(environment, b"PATH=/usr/sbin:/usr/bin:/sbin:/bin\0");
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));

    let listed = run(host.command("ps").args(["-o", "user=,comm=", "-p", &daemon.to_string()]), 5);
    assert_eq!(listed.success().text().split_whitespace().collect::<Vec<_>>(), ["pcapfs"; 2]);
    assert_eq!(status_line(supervisor, "Uid"), four(0));
    assert_eq!(status_line(supervisor, "Threads"), "1");
    assert!(!descriptors(supervisor).iter().any(|to| to.contains("fuse")), "a copy of the device");
    assert!(descriptors(daemon).iter().any(|to| to.contains("fuse")));

    let entry = host.mount_entry().expect("it is mounted");
    let fields: Vec<&str> = entry.split(' ').collect();
    assert_eq!((fields[0], fields[2]), (Net::DEVICE, "fuse.pcapfs"), "{entry}");
    let options = "rw nosuid nodev noexec default_permissions allow_other";
    for option in options.split(' ') {
        assert!(fields[3].split(',').any(|word| word == option), "no {option}: {entry}");
    }

    // It can capture all the same, and its files belong to its user.
    net.sender(200).send(50);
    wait_until("50 packets are stored", 10, || host.count("web", "/packets/stored") == 50);
    let replay = fs::read(host.file("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&replay).unwrap().whole(), Vec::from_iter(1..=50));
    for (path, mode) in [
        (host.file("web"), 0o750),
        (host.file("web/live.pcap"), 0o640),
        (host.rings(), 0o700),
        (host.rings().join("web.ring"), 0o600),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        assert_eq!(found, (user, group, mode), "{}", path.display());
    }

    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_daemon_with_one_capability_captures_with_either_backend() {
    skip_unless!(root, "nsenter");
    for (chosen, backend, workers) in [
        ("backend=af_packet", "af_packet", 1),
        ("backend=libpcap", "libpcap", 1),
        ("workers=2", "af_packet", 2),
    ] {
        let (host, net) = (Host::new(), Net::new());
        let options = format!("alias=web,ring=1M,kernel_buffer=32M,{chosen}");
        let _ = net.a.run(|| host.mount(Net::DEVICE, &options)).success();
        let status = host.try_status("web").unwrap();
        assert_eq!((&status["backend"], &status["workers"]), (&backend.into(), &workers.into()));
        let traffic = Traffic::start(net.sender(300), 1_000, 500);
        wait_until("all are stored", 10, || host.count("web", "/packets/stored") == 500);
        drop(traffic);
        let _ = host.umount().success();
        host.wait_gone();
    }
    let host = Host::new();
    let refused = host.mount("lo", "backend=xdp");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("'xdp'"), "{}", refused.stderr);
    host.wait_gone();
}

#[test]
fn the_supervisor_keeps_no_descriptor_of_its_caller() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    // The pipe to cat is standard output, standard error and descriptor 9 of mount.
    let script = r#"cd "$1" && mount -t pcapfs file:trace.pcap captures 9>&1 2>&1 | cat"#;
    let mut shell = host.command("sh");
    let finished = run(shell.args(["-c", script, "sh"]).arg(host.path("")), 10).success();
    assert_eq!(finished.text(), "");
    let supervisor = host.supervisor().unwrap();
    assert_eq!(getsid(Some(supervisor)).unwrap(), supervisor, "a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{supervisor}/cwd")).unwrap(), Path::new("/"));
    for pid in [supervisor, host.daemon().unwrap()] {
        for number in 0..=1 {
            let to = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(to, Path::new("/dev/null"), "descriptor {number} of {pid}");
        }
    }
    let _ = run(host.command("pcapfs").arg("umount").arg(host.captures()), 5).success();
    host.wait_gone();
}

#[test]
fn a_step_that_fails_is_named_and_nothing_runs() {
    skip_unless!(root, "nsenter", "setpriv");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    for (lacking, part) in [
        ("setpcap", "cannot limit capabilities for the daemon: Operation not permitted"),
        ("setgid", "cannot change groups for the daemon: Operation not permitted"),
        ("setuid", "cannot change the user for the daemon: Operation not permitted"),
        ("net_raw", "cannot drop capabilities for the daemon: Operation not permitted"),
    ] {
        let mut helper = host.command("setpriv");
        helper
            .args([&format!("--bounding-set=-{lacking}"), "--inh-caps=-all", "mount.pcapfs"])
            .arg(format!("file:{}", host.path("trace.pcap").display()))
            .arg(host.captures());
        let finished = run(&mut helper, 10);
        assert_eq!(finished.status.code(), Some(2), "{lacking}: {finished:?}");
        assert!(finished.stderr.contains(part), "{lacking}: {}", finished.stderr);
        host.wait_gone();
    }
}

#[test]
fn a_helper_that_is_setuid_mounts_nothing() {
    skip_unless!(root, "nsenter", "setpriv");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    for bit in [0o4755, 0o2755] {
        let copy = host.path("setuid-helper");
        fs::copy(binary("mount-pcapfs"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(bit)).unwrap();
        let mut helper = host.command("setpriv");
        helper
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .arg(format!("file:{}", host.path("trace.pcap").display()))
            .arg(host.captures());
        let finished = run(&mut helper, 10);
        assert_eq!(finished.status.code(), Some(2), "{bit:o}: {finished:?}");
        assert!(finished.stderr.contains("chmod ug-s"), "{bit:o}: {}", finished.stderr);
        host.wait_gone();
    }
}

#[test]
fn another_user_does_as_well() {
    skip_unless!(root, "nsenter");
    let host = with_savefile();
    let _ = host.umount().success();
    host.wait_gone();
    let spec = format!("file:{}", host.path("trace.pcap").display());
    let _ = host.mount(&spec, "user=nobody,group=pcapfs,mode=0700").success();
    assert_eq!(status_line(host.daemon().unwrap(), "Uid"), ["65534"; 4].join(" "));
    let metadata = fs::metadata(host.file("trace")).unwrap();
    let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    assert_eq!(found, (65_534, Host::GROUP, 0o700));
    let _ = host.umount().success();
    host.wait_gone();
}
