//! Restarts of the daemon, and the end of daemon and supervisor.

use std::fs;
use std::io::Read;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{Host, Net, Running, Traffic, run, skip_unless, tool, wait_until};

use crate::support::{answers_again, mount_savefile, with_savefile};

#[test]
fn a_killed_daemon_is_back_within_a_second_with_all_packets() {
    const READERS: usize = 50;
    skip_unless!(root, "nsenter");
    let (host, net) = (Host::new(), Net::new());
    let _ = net.a.run(|| host.mount(Net::DEVICE, "alias=web,ring=16M")).success();
    let traffic = Traffic::start(net.sender(300), 5_000, 200_000);
    let mut slowest = Duration::ZERO;
    for round in 1..=3 {
        let stored = host.count("web", "/packets/stored");
        wait_until("more is stored", 10, || host.count("web", "/packets/stored") > stored + 500);
        let cat = |_| Running::spawn(tool("cat").arg(host.file("web/live.pcap")));
        let readers: Vec<_> = (0..READERS).map(cat).collect();
        wait_until("readers read", 10, || readers.iter().all(|cat| cat.stdout().len() > 24));
        let before = fs::read(host.file("web/replay.pcap")).unwrap();
        let before = check_prefix(&before).unwrap().seen;
        let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor());
        kill(daemon, Signal::SIGKILL).unwrap();
        let (_, took) = answers_again(&host, daemon);
        let ms = took.as_millis();
        eprintln!("round {round}, {READERS} readers: the tree answered {ms} ms after SIGKILL");
        slowest = slowest.max(took);
        for mut cat in readers {
            // cat must fail, since its stream broke off, and must not hang.
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
    // umount still ends the daemon.
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
fn a_daemon_that_keeps_dying_is_restarted_less_and_less_often() {
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
    // The first restart comes at once, and later ones after a wait that doubles from 250 ms.
    for (took, least) in times.iter().zip([0, 250, 500, 1000, 2000]) {
        let least = Duration::from_millis(least);
        // The supervisor may have noticed the death before the clock was read here.
        let early = least.saturating_sub(Duration::from_millis(100));
        assert!((early..least + Duration::from_secs(1)).contains(took), "{times:?}");
    }
    // During the wait the dead tree stays mounted, so that the directory below is not mistaken for
    // it. umount still ends the supervisor.
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
    // A daemon that dies now is not started again, since its tree is no longer mounted.
    let mut bytes = Vec::new();
    let _ = (&open).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, numbered(Format::default(), 10, 100));
    kill(host.daemon().unwrap(), Signal::SIGKILL).unwrap();
    host.wait_gone();
}

#[test]
fn signals_without_a_meaning_end_neither() {
    skip_unless!(root, "nsenter");
    let host = with_savefile();
    let (daemon, supervisor) = (host.daemon(), host.supervisor());
    // Signals that end a process by default; 34 and 64 are real-time signals.
    for pid in [daemon, supervisor].into_iter().flatten() {
        for signal in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "34", "64"]
        {
            let _ = run(tool("kill").args([&format!("-{signal}"), &pid.to_string()]), 5).success();
            assert!(host.try_status("trace").is_some(), "{signal}");
        }
    }
    assert_eq!((host.daemon(), host.supervisor()), (daemon, supervisor));
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn the_order_to_end_is_followed_by_both() {
    skip_unless!(root, "nsenter");
    // Without a configuration, SIGHUP also means to end.
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
