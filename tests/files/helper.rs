//! mount.pcapfs: what runs with which rights, what survives, and how it ends.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{
    Host, Net, Running, Traffic, binary, run, skip_unless, tool, wait_for, wait_until,
};
use serde_json::Value;

/// A line of `/proc/PID/status`, without its name.
#[track_caller]
fn status_line(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} of {pid}")).trim().replace('\t', " ")
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok() && !status_line(pid, "State").starts_with(['Z', 'X'])
}

/// Where the descriptors of a process lead.
fn descriptors(pid: Pid) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    folder
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()))
        .collect()
}

/// A machine with a savefile mounted as `trace`.
fn with_savefile() -> Host {
    let host = Host::new();
    mount_savefile(&host);
    host
}

#[track_caller]
fn mount_savefile(host: &Host) {
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let spec = format!("file:{}", host.path("trace.pcap").display());
    let mounted = host.mount(&spec, "_netdev,nofail").success();
    assert_eq!((mounted.text(), mounted.stderr.as_str()), ("", ""));
}

/// Waits for a daemon that answers and is not `before`, and says how long that took.
#[track_caller]
fn answers_again(host: &Host, before: Pid) -> (Pid, Duration) {
    let begun = Instant::now();
    let pid = wait_for("the tree answers again", 20, || {
        let pid = host.try_status("")?["pid"].as_i64()?;
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        (pid != before).then_some(pid)
    });
    (pid, begun.elapsed())
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

    // It captures all the same, and what it makes is its own.
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
fn who_mounts_is_held_up_by_nothing_that_stays() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    // The pipe of cat is standard output, standard error and descriptor 9 of mount.
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
fn a_daemon_that_is_killed_is_back_within_a_second_with_all_it_had() {
    skip_unless!(root, "nsenter");
    let (host, net) = (Host::new(), Net::new());
    let _ = net.a.run(|| host.mount(Net::DEVICE, "alias=web,ring=16M")).success();
    let traffic = Traffic::start(net.sender(300), 5_000, 200_000);
    let mut slowest = Duration::ZERO;
    for round in 1..=3 {
        let stored = host.count("web", "/packets/stored");
        wait_until("more is stored", 10, || host.count("web", "/packets/stored") > stored + 500);
        let readers: Vec<_> =
            (0..5).map(|_| Running::spawn(tool("cat").arg(host.file("web/live.pcap")))).collect();
        wait_until("readers read", 5, || readers.iter().all(|cat| cat.stdout().len() > 24));
        let before = fs::read(host.file("web/replay.pcap")).unwrap();
        let before = check_prefix(&before).unwrap().seen;
        let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor());
        kill(daemon, Signal::SIGKILL).unwrap();
        let (_, took) = answers_again(&host, daemon);
        eprintln!("round {round}: the tree answered {} ms after SIGKILL", took.as_millis());
        slowest = slowest.max(took);
        for mut cat in readers {
            // An error, since it did not get what it was promised; and no waiting.
            assert!(!cat.wait(5).success());
            assert!(check_prefix(&cat.stdout()).is_ok());
        }
        let after = fs::read(host.file("web/replay.pcap")).unwrap();
        let after = check_prefix(&after).unwrap();
        assert_eq!(after.rest, 0);
        assert_eq!(after.seen.first, before.first, "round {round}");
        assert!(after.seen.last >= before.last, "round {round}: {before:?}, {:?}", after.seen);
        assert!(after.seen.count >= before.count, "round {round}: {before:?}, {:?}", after.seen);
        assert_eq!(host.supervisor(), supervisor);
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(traffic);
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_daemon_without_its_supervisor_goes_on() {
    skip_unless!(root, "nsenter");
    let (host, net) = (Host::new(), Net::new());
    let _ = net.a.run(|| host.mount(Net::DEVICE, "alias=web,ring=1M")).success();
    let daemon = host.daemon().unwrap();
    let mut sender = net.sender(200);
    sender.send(10);
    let supervisor = host.supervisor().unwrap();
    kill(supervisor, Signal::SIGKILL).unwrap();
    wait_until("the supervisor is gone", 5, || host.supervisor().is_none());
    sender.send(10);
    wait_until("packets are stored", 10, || host.count("web", "/packets/stored") == 20);
    assert_eq!(host.daemon(), Some(daemon));
    // As ever, umount is the end of it.
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_tree_that_both_have_left_is_cleared_away_by_the_next() {
    skip_unless!(root, "nsenter");
    let host = with_savefile();
    let daemon = host.daemon().unwrap();
    kill(host.supervisor().unwrap(), Signal::SIGKILL).unwrap();
    kill(daemon, Signal::SIGKILL).unwrap();
    wait_until("both are gone", 5, || host.daemon().is_none() && host.supervisor().is_none());
    assert!(host.mount_entry().is_some(), "what this test is about");
    mount_savefile(&host);
    assert!(host.try_status("trace").is_some());
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_daemon_that_dies_again_and_again_is_given_more_and_more_time() {
    skip_unless!(root, "nsenter");
    let host = with_savefile();
    let mut daemon = host.daemon().unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        kill(daemon, Signal::SIGKILL).unwrap();
        let (next, took) = answers_again(&host, daemon);
        times.push(took);
        daemon = next;
    }
    eprintln!("back after {:?} ms", times.iter().map(Duration::as_millis).collect::<Vec<_>>());
    // At once, then a wait that doubles from 250 ms.
    for (took, least) in times.iter().zip([0, 250, 500, 1000, 2000]) {
        let least = Duration::from_millis(least);
        assert!((least..least + Duration::from_secs(1)).contains(took), "{times:?}");
    }
    // In the wait the dead tree is there, so that nobody takes the directory below for it, and
    // umount is the end of it as ever.
    kill(daemon, Signal::SIGKILL).unwrap();
    wait_until("the daemon is gone", 5, || host.daemon().is_none());
    assert!(host.mount_entry().is_some());
    wait_until("it is known to be dead", 1, || {
        let error = fs::read_dir(host.file("")).unwrap_err();
        error.raw_os_error() == Some(libc::ENOTCONN)
    });
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn umount_with_open_files_waits_for_them() {
    skip_unless!(root, "nsenter");
    let host = with_savefile();
    let open = fs::File::open(host.file("trace/replay.pcap")).unwrap();
    let busy = host.umount();
    assert!(!busy.status.success() && busy.stderr.contains("busy"), "{busy:?}");
    let _ = run(host.command("umount").arg("-l").arg(host.captures()), 5).success();
    assert_eq!(host.mount_entry(), None);
    // A daemon that dies now has no tree to be started for.
    let mut bytes = Vec::new();
    let _ = (&open).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, numbered(Format::default(), 10, 100));
    kill(host.daemon().unwrap(), Signal::SIGKILL).unwrap();
    host.wait_gone();
}

#[test]
fn the_order_to_end_is_followed_by_both() {
    skip_unless!(root, "nsenter");
    // Without a configuration SIGHUP is one, too.
    let orders = [
        ("supervisor", Signal::SIGTERM),
        ("daemon", Signal::SIGTERM),
        ("supervisor", Signal::SIGHUP),
    ];
    for (whom, signal) in orders {
        let (host, net) = (Host::new(), Net::new());
        let _ = net.a.run(|| host.mount(Net::DEVICE, "alias=web,ring=1M")).success();
        let mut cat = Running::spawn(tool("cat").arg(host.file("web/follow.pcap")));
        cat.wait_stdout("the header", 5, |bytes| bytes.len() == 24);
        net.sender(200).send(5);
        cat.wait_stdout("packets", 5, |bytes| bytes.len() > 24);
        let pid = if whom == "daemon" { host.daemon() } else { host.supervisor() };
        kill(pid.unwrap(), signal).unwrap();
        assert!(
            cat.wait(5).success(),
            "{whom} {signal}: a reader gets end of file: {}",
            cat.stderr()
        );
        assert_eq!(check_prefix(&cat.stdout()).unwrap().whole(), Vec::from_iter(1..=5));
        host.wait_gone();
    }
}

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
    // Bound over /etc/fstab, so written in place.
    fs::write(host.path("fstab"), line).unwrap();
    for _ in 0..2 {
        // The second time it is there already, which mount(8) must see.
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
fn what_cannot_be_mounted_is_said_and_leaves_nothing() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let good = format!("file:{}", host.path("trace.pcap").display());
    let missing = format!("file:{}", host.path("missing.pcap").display());
    let place = host.captures().display().to_string();
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
    // libpcap works on this for many seconds.
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

#[test]
fn a_configured_daemon_is_steered_through_its_socket() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    let config = host.path("pcapfs.toml");
    fs::write(&config, "[[capture]]\nalias = \"web\"\nsource = \"lo\"\nfilter = \"tcp port 80\"\n")
        .unwrap();
    let run_dir = host.path("run");
    fs::create_dir(&run_dir).unwrap();
    chown(&run_dir, Some(Host::USER), None).unwrap();
    let socket = run_dir.join("control.sock");
    let options = format!("config={},socket={}", config.display(), socket.display());
    let _ = host.mount("none", &options).success();
    let pcapfs = |words: &[&str]| {
        let mut command = Command::new(binary("pcapfs"));
        command.arg("--socket").arg(&socket).args(words);
        run(&mut command, 20).success()
    };
    let aliases = || -> Vec<String> {
        let listed: Value = serde_json::from_str(pcapfs(&["list", "--json"]).text()).unwrap();
        let captures = listed.as_array().unwrap().iter();
        captures.map(|capture| capture["alias"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(aliases(), ["web"]);
    let _ = pcapfs(&["init", "lo", "udp port 53", "--alias", "dns"]);
    assert_eq!(aliases(), ["web", "dns"]);
    // What was made is there again with the next daemon.
    let before = host.daemon().unwrap();
    kill(before, Signal::SIGKILL).unwrap();
    let (_, took) = answers_again(&host, before);
    eprintln!("both are there again after {took:?}");
    assert_eq!(aliases(), ["web", "dns"]);
    let _ = host.umount().success();
    host.wait_gone();
}

/// Writes a configuration with these captures, each of another savefile, and returns its path.
fn configure(host: &Host, aliases: &[&str]) -> PathBuf {
    let capture = |alias: &&str| {
        let savefile = host.path(&format!("{alias}.pcap"));
        fs::write(&savefile, numbered(Format::default(), 10, 100)).unwrap();
        format!("[[capture]]\nalias = \"{alias}\"\nsource = \"file:{}\"\n", savefile.display())
    };
    let config = host.path("pcapfs.toml");
    fs::write(&config, aliases.iter().map(capture).collect::<String>()).unwrap();
    config
}

/// Waits until the tree has these captures and no others.
#[track_caller]
fn wait_captures(host: &Host, aliases: &[&str]) {
    wait_until(&format!("the captures are {aliases:?}"), 10, || {
        let Some(status) = host.try_status("") else { return false };
        let captures = status["captures"].as_array().unwrap().iter();
        captures.map(|one| one["alias"].as_str().unwrap()).eq(aliases.iter().copied())
    });
}

#[test]
fn the_order_to_read_the_configuration_again_may_go_to_either() {
    skip_unless!(root, "nsenter");
    // Also if it is ignored where mount(8) is called, as under nohup(1).
    for ignored in ["", "trap '' HUP; "] {
        let host = Host::new();
        let config = configure(&host, &["web"]);
        let options = format!("config={},{}", config.display(), host.ring_option());
        let script = format!("{ignored}exec mount -t pcapfs none \"$1\" -o \"$2\"");
        let mut mount = host.command("sh");
        mount.args(["-c", &script, "sh"]).arg(host.captures()).arg(options);
        let _ = run(&mut mount, 15).success();
        wait_captures(&host, &["web"]);
        let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor().unwrap());
        let started = host.try_status("web").unwrap()["started"].clone();

        configure(&host, &["web", "dns"]);
        kill(supervisor, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web", "dns"]);
        configure(&host, &["web"]);
        kill(daemon, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web"]);
        assert_eq!((host.daemon(), host.supervisor()), (Some(daemon), Some(supervisor)));
        assert_eq!(host.try_status("web").unwrap()["started"], started, "it was left alone");

        // The one that takes its place hears it as well.
        kill(daemon, Signal::SIGKILL).unwrap();
        let _ = answers_again(&host, daemon);
        configure(&host, &["web", "dns"]);
        kill(supervisor, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web", "dns"]);
        let _ = host.umount().success();
        host.wait_gone();
    }
}

#[test]
fn a_service_that_is_reloaded_goes_on() {
    skip_unless!(root, "nsenter", "setpriv");
    let host = Host::new();
    let config = configure(&host, &["web"]);
    let mut helper = confined(&host);
    helper.args(["mount.pcapfs", "--foreground", "none"]).arg(host.captures());
    helper.args(["-o", &format!("config={},{}", config.display(), host.ring_option())]);
    let mut supervisor = Running::spawn(&mut helper);
    // From the very first moment at which there is a daemon.
    let reload = setting("ExecReload").unwrap();
    assert_eq!(reload, "/bin/kill -HUP $MAINPID");
    wait_until("there is a daemon", 10, || host.daemon().is_some());
    for _ in 0..200 {
        supervisor.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_captures(&host, &["web"]);
    let daemon = host.daemon().unwrap();
    configure(&host, &["web", "dns"]);
    let main = supervisor.pid().to_string();
    let _ = run(tool("sh").args(["-c", &reload]).env("MAINPID", main), 5).success();
    wait_captures(&host, &["web", "dns"]);
    assert_eq!(host.daemon(), Some(daemon));
    let said = supervisor.stderr();
    assert!(said.contains("read again") && !said.contains("starting it again"), "{said}");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
}

/// Something that hears what systemd would hear.
struct Notified {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Notified {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new() }
    }

    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut bytes) {
            self.heard.push(String::from_utf8(bytes[..len].to_vec()).unwrap());
        }
    }

    fn count(&mut self, line: &str) -> usize {
        self.hear();
        self.heard.iter().flat_map(|state| state.lines()).filter(|heard| *heard == line).count()
    }
}

#[test]
fn systemd_is_told_and_a_daemon_that_hangs_is_replaced() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let mut notified = Notified::new(&host.path("notify"));
    let mut helper = host.command("mount.pcapfs");
    helper
        .args(["--foreground", &format!("file:{}", host.path("trace.pcap").display())])
        .arg(host.captures())
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", "2000000");
    let mut supervisor = Running::spawn(&mut helper);
    wait_until("READY=1", 10, || notified.count("READY=1") == 1);
    assert!(host.try_status("trace").is_some(), "it was said when the tree answered");
    let lives = notified.count("WATCHDOG=1");
    wait_until("WATCHDOG=1", 5, || notified.count("WATCHDOG=1") > lives + 1);

    let daemon = host.daemon().unwrap();
    kill(daemon, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    wait_until("it is killed", 10, || !is_alive(daemon));
    let (_, _) = answers_again(&host, daemon);
    eprintln!("a daemon that hung was replaced after {} ms", begun.elapsed().as_millis());
    assert!(supervisor.stderr().contains("does not answer"), "{}", supervisor.stderr());
    let lives = notified.count("WATCHDOG=1");
    wait_until("WATCHDOG=1 again", 5, || notified.count("WATCHDOG=1") > lives);

    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    assert_eq!((notified.count("STOPPING=1"), notified.count("READY=1")), (1, 1));
    host.wait_gone();
}

/// `setpriv` with the rights the unit leaves, and the program to follow.
fn confined(host: &Host) -> Command {
    let capabilities = setting("CapabilityBoundingSet").unwrap();
    let capabilities: Vec<_> = capabilities
        .split_whitespace()
        .map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    let mut command = host.command("setpriv");
    command
        .arg(format!("--bounding-set=-all,{}", capabilities.join(",")))
        .args(["--inh-caps=-all", "--no-new-privs"]);
    command
}

/// A setting of the unit, by name.
fn setting(name: &str) -> Option<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/pcapfs.service");
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.map(str::to_owned)
}

#[test]
fn the_rights_the_service_leaves_are_enough() {
    skip_unless!(root, "nsenter", "setpriv");
    // Each of these would give the service a mount namespace, and what it mounts to nobody.
    for name in [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateUsers",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "BindPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "DynamicUser",
    ] {
        assert_eq!(setting(name), None, "{name}");
    }
    let (host, net) = (Host::new(), Net::new());
    let mut helper = confined(&host);
    helper
        .args(["mount.pcapfs", "--foreground", Net::DEVICE])
        .arg(host.captures())
        .args(["-o", &format!("alias=web,ring=1M,{}", host.ring_option())]);
    let mut supervisor = net.a.run(|| Running::spawn(&mut helper));
    wait_until("the tree answers", 10, || {
        assert!(supervisor.try_wait().is_none(), "{}", supervisor.stderr());
        supervisor.stderr().contains("ready at")
    });
    assert_eq!(status_line(supervisor.pid(), "NoNewPrivs"), "1");
    net.sender(200).send(5);
    wait_until("packets are stored", 10, || host.count("web", "/packets/stored") == 5);
    let daemon = host.daemon().unwrap();
    assert_eq!(status_line(daemon, "CapPrm"), "0000000000002000");
    kill(daemon, Signal::SIGKILL).unwrap();
    let _ = answers_again(&host, daemon);
    assert_eq!(host.count("web", "/packets/stored"), 5);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
}
