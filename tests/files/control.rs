//! The control service and the commands that use it.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pcapfs_tests::measure::{anonymous_memory, descriptors, threads};
use pcapfs_tests::savefile::{check_prefix, parser_for};
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Fifo, Finished, Mount, Net, Running, Wired, binary, python, run,
    skip_unless, tool, wait_for, wait_until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A child that is killed when the test ends.
struct Stalled(Child);

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The line printed by a command that must fail with this exit code.
#[track_caller]
fn refused<const N: usize>(daemon: &Daemon, words: [&str; N], code: i32) -> String {
    complaint(&run(&mut daemon.command(words), 10), code)
}

#[track_caller]
fn complaint(finished: &Finished, code: i32) -> String {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    let line = finished.stderr.strip_suffix('\n').expect("one line");
    assert!(!line.contains('\n'), "{line}");
    line.strip_prefix("pcapfs: ").unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn the_socket_is_there_as_long_as_the_daemon() {
    skip_unless!(mount);
    let fifo = Fifo::new();
    let mut daemon = Mount::new().capture(ALIAS, &fifo.source()).start();
    let metadata = fs::symlink_metadata(daemon.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o666, "the bits of the tree decide");
    let socket = daemon.socket().to_owned();

    // A second daemon does not take the socket away.
    let second = Mount::new().socket(&socket).capture(ALIAS, &fifo.source()).try_start();
    let second = second.expect_err("the socket is in use");
    assert_eq!(second.status.code(), Some(1));
    says(&second.stderr, &["control.sock", "another pcapfs listens there", "--socket"]);
    assert_eq!(daemon.json(["list", "--json"])[0]["alias"], ALIAS);
    // The option works before the command and after it.
    let path = socket.to_str().unwrap();
    for words in [["--socket", path, "list"], ["list", "--socket", path]] {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        assert!(run(command.args(words), 5).success().text().contains(ALIAS));
    }

    assert!(daemon.terminate().success());
    assert!(!socket.exists(), "it is gone with the daemon");
    let line = refused(&daemon, ["list"], 1);
    says(&line, &["control.sock", "no pcapfs listens there", "pcapfs mount", "--socket"]);
}

#[test]
fn trees_with_another_socket_are_named() {
    skip_unless!(mount);
    let fed = Fed::start();
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    let finished = run(command.args(["--socket", "/nonexistent/control.sock", "list"]), 5);
    assert_eq!(finished.status.code(), Some(1));
    let place = fed.daemon.mountpoint().to_str().unwrap();
    let socket = fed.daemon.socket().display();
    let tree = format!("{place} (--socket {socket})");
    says(&finished.stderr, &["no pcapfs listens there", "mounted: ", &tree]);
}

#[test]
fn a_stale_socket_is_replaced() {
    skip_unless!(mount);
    let fifo = Fifo::new();
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("control.sock");
    let mount = || Mount::new().socket(&socket).capture(ALIAS, &fifo.source()).start();
    let mut daemon = mount();
    daemon.kill9();
    assert!(socket.exists(), "a killed daemon leaves it");
    assert_eq!(mount().json(["list", "--json"])[0]["alias"], ALIAS);
    fs::write(&socket, b"something else").unwrap();
    let refused = Mount::new().socket(&socket).capture(ALIAS, &fifo.source()).try_start();
    says(&refused.expect_err("not ours to remove").stderr, &["no socket", "remove it"]);
    assert_eq!(fs::read(&socket).unwrap(), b"something else");
}

#[test]
fn a_capture_is_made_seen_stopped_started_and_removed() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).ring("4M").start();
    assert_eq!(daemon.json(["list", "--json"]), json!([]));

    let made = daemon.verb(["init", Net::DEVICE, "udp port 9", "--alias", "web"]);
    assert_eq!(made, "1 web\n");
    let mut other = net.sender_to(200, 7);
    let mut sender = net.sender_to(200, 9);
    other.send(5);
    sender.send(10);
    daemon.wait_stored("web", 10);
    let listed = daemon.json(["list", "--json"]);
    let listed = &listed[0];
    assert_eq!((&listed["id"], &listed["alias"]), (&json!(1), &json!("web")));
    assert_eq!((&listed["state"], &listed["filter"]), (&json!("running"), &json!("udp port 9")));
    assert_eq!(listed["packets"]["stored"], 10);
    let status = daemon.json(["status", "web", "--json"]);
    let file = daemon.status("web");
    let names =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(names(&status), names(&file), "the same document");

    let live = Running::spawn(tool("cat").arg(daemon.path("web/live.pcap")));
    daemon.wait_blocked("web", "live.pcap", live.pid());
    sender.send(5);
    daemon.wait_stored("web", 15);
    daemon.verb(["stop", "web"]);
    let mut live = live;
    assert!(live.wait(5).success(), "stop ends readers");
    assert_eq!(check_prefix(&live.stdout()).unwrap().whole(), Vec::from_iter(11..=15));
    assert_eq!(daemon.status("web")["state"], "stopped");
    daemon.verb(["stop", "web"]);
    daemon.verb(["start", "1"]);
    daemon.verb(["start", "web"]);
    daemon.wait_state("web", "running");
    sender.send(5);
    daemon.wait_stored("web", 20);
    let replay = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&replay).unwrap().whole(), Vec::from_iter(1..=20), "the same ring");

    let ring = daemon.ring_dir().join("web.ring");
    assert!(ring.exists());
    let follow = Running::spawn(tool("cat").arg(daemon.path("web/follow.pcap")));
    daemon.wait_blocked("web", "follow.pcap", follow.pid());
    let mut ctl = OpenOptions::new().write(true).open(daemon.path("web/ctl")).unwrap();
    daemon.verb(["remove", "web"]);
    assert!(ctl.write_all(b"start").is_err(), "a removed capture does not begin again");
    drop(ctl);
    let mut follow = follow;
    assert!(follow.wait(5).success(), "remove ends readers");
    assert_eq!(check_prefix(&follow.stdout()).unwrap().whole(), Vec::from_iter(1..=20));
    assert!(!ring.exists(), "its packets are gone");
    wait_until("web is out of the tree", 5, || !daemon.path("web").exists());
    says(&refused(&daemon, ["status", "web"], 1), &["web: no such capture"]);
    // Numbers are never reused.
    assert_eq!(daemon.verb(["init", Net::DEVICE, "--alias", "web"]), "2 web\n");
    assert_eq!(daemon.count("web", "/packets/stored"), 0, "begins afresh");
}

#[test]
fn the_same_interface_and_filter_are_another_name() {
    skip_unless!(root);
    let wired = Wired::with(Mount::new().ring("4M"));
    let daemon = &wired.daemon;
    let again = run(&mut daemon.command(["init", Net::DEVICE]), 10).success();
    assert_eq!(again.text(), format!("1 {}\n", Net::DEVICE), "called like its interface");
    says(&again.stderr, &["another name for web"]);
    let link = daemon.path(Net::DEVICE);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(ALIAS));
    assert_eq!(daemon.verb(["init", Net::DEVICE, " ", "--alias", "www"]), "1 www\n");
    let expected = json!([Net::DEVICE, "www"]);
    assert_eq!(daemon.json(["list", "--json"])[0]["aliases"], expected);
    // Commands accept either name.
    daemon.verb(["stop", "www"]);
    assert_eq!(daemon.status(ALIAS)["state"], "stopped");
    daemon.verb(["start", "www"]);
    // A different filter makes a different capture.
    assert_eq!(daemon.verb(["init", Net::DEVICE, "tcp", "port", "80"]), "2 wire-a-2\n");
    daemon.verb(["remove", "www"]);
    wait_until("www is gone", 5, || fs::symlink_metadata(daemon.path("www")).is_err());
    assert_eq!(daemon.status(ALIAS)["state"], "running", "the capture is not");
    let removed = run(&mut daemon.command(["remove", ALIAS]), 10).success();
    says(&removed.stderr, &[Net::DEVICE, "command line"]);
    wait_until("its other name is gone", 5, || fs::symlink_metadata(&link).is_err());
    assert_eq!(daemon.json(["list", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn an_empty_interface_name_means_all_interfaces() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).ring("4M").start();
    assert_eq!(daemon.verb(["init", ""]), "1 any\n");
    assert_eq!(daemon.verb(["init", "any", "--alias", "all"]), "1 all\n");
    assert_eq!(daemon.status("any")["source"], "any");
    net.sender(100).send(3);
    daemon.wait_stored("any", 3);
}

#[test]
fn all_are_stopped_and_started() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).ring("4M");
    let daemon = daemon.capture("one", Net::DEVICE).capture("two", "lo").start();
    daemon.verb(["stop", "--all"]);
    for alias in ["one", "two"] {
        assert_eq!(daemon.status(alias)["state"], "stopped");
    }
    daemon.verb(["start", "--all"]);
    for alias in ["one", "two"] {
        daemon.wait_state(alias, "running");
    }
    daemon.verb(["stop", "one", "two"]);
    // A name that fails does not stop the others.
    let line = refused(&daemon, ["start", "none", "two"], 1);
    says(&line, &["none: no such capture"]);
    daemon.wait_state("two", "running");
}

#[test]
fn mistakes_are_named() {
    skip_unless!(root);
    let wired = Wired::with(Mount::new().ring("4M"));
    let daemon = &wired.daemon;
    for (words, code, parts) in [
        (&["init", "eth9"][..], 1, &["eth9: no such interface", "have: lo", Net::DEVICE][..]),
        (&["init", Net::DEVICE, "tcp prot 1"], 1, &["tcp prot 1", "syntax error"]),
        (&["init", Net::DEVICE, "tcp", "--alias", ALIAS], 1, &["'web' is taken", Net::DEVICE]),
        (&["init", Net::DEVICE, "tcp", "--alias", "README"], 1, &["'README'", "file of this name"]),
        (&["init", Net::DEVICE, "--alias", ".x"], 2, &["'.x'", "alias"]),
        (&["init", "far:eth0"], 1, &["far: no such remote (have: ", "pcapfs remote add"]),
        (&["init", "file:/etc/passwd"], 2, &["not an interface", "pcapfs mount"]),
        (&["stop", "far:web"], 1, &["far: no such remote"]),
        (&["list", "far:"], 1, &["far: no such remote"]),
        (&["replay", "far:web"], 1, &["far: no such remote"]),
        (&["listen", "far:web"], 1, &["far: no such remote"]),
        (&["start", "none"], 1, &["none: no such capture", "pcapfs list"]),
        (&["remove", "7"], 1, &["7: no such capture"]),
        (&["stop"], 2, &["ALIAS"]),
        (&["stop", "web", "--all"], 2, &["--all"]),
        (&["replay", "none"], 1, &["none: no such capture"]),
        (&["replay", "web", "-w", "/no/such/folder/x.pcap"], 1, &["/no/such/folder/x.pcap"]),
        (&["replay", "web", "-w", "/tmp"], 1, &["/tmp: is a directory"]),
        (&["listen"], 2, &["ALIAS"]),
        (&["completions", "tcsh"], 2, &["tcsh", "bash"]),
    ] {
        let finished = run(&mut daemon.command(words), 10);
        assert_eq!(finished.text(), "", "{words:?}");
        says(&complaint(&finished, code), parts);
    }
    assert_eq!(daemon.json(["list", "--json"]).as_array().unwrap().len(), 1, "nothing was made");
    let rings = fs::read_dir(daemon.ring_dir()).unwrap();
    let rings: Vec<_> = rings.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(rings, ["web.ring"]);
}

#[test]
fn lists_and_states_are_for_people_and_programs() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let table = fed.daemon.verb(["list"]);
    let lines: Vec<&str> = table.lines().collect();
    let [heading, row] = lines[..] else { panic!("{table}") };
    assert!(heading.starts_with("ID  ALIAS"), "{heading}");
    says(row, &["1   web", "running", "10", &fed.fifo.source()]);
    says(&fed.daemon.verb(["status", "1"]), &["packets.stored", "alias"]);
    let daemon = fed.daemon.json(["status", "--json"]);
    assert_eq!(daemon["pid"], fed.daemon.pid().as_raw());
    assert_eq!(daemon["captures"][0]["alias"], ALIAS);

    for words in [["list", "--json"], ["status", "--json"]] {
        let mut command = fed.daemon.command(words);
        let mut watch = Running::spawn(command.arg("--watch"));
        watch.wait_stdout("two documents", 10, |bytes| {
            bytes.iter().filter(|byte| **byte == b'\n').count() >= 2
        });
        for line in String::from_utf8(watch.stdout()).unwrap().lines().take(2) {
            let _: Value = serde_json::from_str(line).unwrap();
        }
        watch.end_with(Signal::SIGINT);
    }
}

#[test]
fn replay_and_listen_are_the_files_of_the_tree() {
    skip_unless!(mount);
    let mut fed = Fed::holding(1000);
    for (format, words) in
        [("pcap", &["replay", ALIAS][..]), ("pcapng", &["replay", ALIAS, "--pcapng"])]
    {
        let bytes = run(&mut fed.daemon.command(words), 10).success().stdout;
        let file = fs::read(fed.daemon.path(&format!("web/replay.{format}"))).unwrap();
        assert!(bytes == file, "{format}: {} bytes for {}", bytes.len(), file.len());
    }
    let listen = Running::spawn(&mut fed.daemon.command(["listen", ALIAS]));
    let follow = Running::spawn(&mut fed.daemon.command(["replay", ALIAS, "--live"]));
    let listen_ng = Running::spawn(&mut fed.daemon.command(["listen", ALIAS, "--pcapng"]));
    for (file, running) in
        [("live.pcap", &listen), ("follow.pcap", &follow), ("live.pcapng", &listen_ng)]
    {
        fed.daemon.wait_blocked(ALIAS, file, running.pid());
        let reader = fed.daemon.reader(ALIAS, file, 0);
        assert_eq!((&reader["comm"], &reader["lost_packets"]), (&json!("pcapfs"), &json!(0)));
    }
    fed.send(500);
    for (running, first) in [(&listen, 1001), (&follow, 1)] {
        running.wait_stdout("packet 1500", 10, |bytes| {
            check_prefix(bytes).is_ok_and(|prefix| prefix.seen.last == 1500)
        });
        let seen = check_prefix(&running.stdout()).unwrap().whole();
        assert_eq!(seen, Vec::from_iter(first..=1500));
    }
    // `stop` ends all of them.
    fed.daemon.verb(["stop", ALIAS]);
    for mut running in [listen, follow, listen_ng] {
        assert!(running.wait(5).success(), "{}", running.stderr());
        let bytes = running.stdout();
        let mut parser =
            parser_for(if bytes.starts_with(b"\x0a\x0d\x0d\x0a") { "x.pcapng" } else { "x.pcap" });
        let mut packets = 0;
        parser
            .push(&bytes, &mut |_| {
                packets += 1;
                Ok(())
            })
            .unwrap();
        assert!(packets == 500 || packets == 1500, "{packets}");
    }
    assert_eq!(fed.daemon.readers(ALIAS).len(), 0, "no process reads any more");
}

#[test]
fn a_reader_that_leaves_early_is_not_an_error() {
    skip_unless!(mount);
    let fed = Fed::holding(20_000);
    let line = format!(
        "{pcapfs} replay web | head -c 100000 > /dev/null; echo ${{PIPESTATUS[0]}}",
        pcapfs = binary("pcapfs").display()
    );
    let mut shell = tool("bash");
    shell.arg("-c").arg(line).env("PCAPFS_SOCKET", fed.daemon.socket());
    let finished = run(&mut shell, 10).success();
    assert_eq!((finished.text(), finished.stderr.as_str()), ("0\n", ""));
    wait_until("the reader is gone", 5, || fed.daemon.readers(ALIAS).is_empty());
}

#[test]
fn a_file_is_there_when_it_is_complete() {
    skip_unless!(mount);
    let mut fed = Fed::holding(1000);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trace.pcap");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let fetch = |words: &[&str]| {
        let mut command = fed.daemon.command(["replay", ALIAS]);
        command.args(words).arg("-w").arg(&path);
        command
    };
    fs::write(&path, b"the packets from before").unwrap();
    let _ = run(&mut fetch(&[]), 10).success();
    assert_eq!(fs::read(&path).unwrap(), fs::read(fed.daemon.path("web/replay.pcap")).unwrap());
    assert_eq!(names(), ["trace.pcap"]);

    // A file that follows is put in place when the command is interrupted, and not earlier.
    let mut follow = Running::spawn(&mut fetch(&["--live"]));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", follow.pid());
    assert_eq!(names().len(), 2, "a file beside it: {:?}", names());
    fed.send(10);
    wait_until("all is delivered", 5, || {
        let reader = fed.daemon.reader(ALIAS, "follow.pcap", 0);
        reader["delivered_packets"] == 1010 && reader["blocked"] == true
    });
    wait_until("all is written", 5, || {
        let names = names();
        let beside = names.iter().find(|name| name.starts_with('.')).expect("a file beside it");
        fs::metadata(folder.path().join(beside)).unwrap().len() == 24 + 1010 * Fed::RECORD
    });
    follow.signal(Signal::SIGINT);
    assert!(follow.wait(5).success(), "{}", follow.stderr());
    assert_eq!(check_prefix(&fs::read(&path).unwrap()).unwrap().whole().len(), 1010);
    assert_eq!(names(), ["trace.pcap"]);

    // If the daemon dies, the earlier file stays.
    let before = fs::read(&path).unwrap();
    let mut follow =
        Running::spawn(fed.daemon.command(["replay", ALIAS, "--live"]).arg("-w").arg(&path));
    fed.daemon.wait_blocked(ALIAS, "follow.pcap", follow.pid());
    fed.daemon.kill9();
    assert_eq!(follow.wait(5).code(), Some(1));
    says(&follow.stderr(), &["the daemon went away"]);
    assert_eq!(names(), ["trace.pcap"]);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn progress_is_for_terminals() {
    skip_unless!(mount, "python3");
    let fed = Fed::holding(20_000);
    let silent = run(&mut fed.daemon.command(["replay", ALIAS]), 10).success();
    assert_eq!(silent.stderr, "");
    // Standard error is a terminal and standard output is not.
    let program = "
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=theirs)
size = len(child.stdout.read())
os.close(theirs)
shown = os.read(ours, 65536)
print(child.wait(), size, shown.decode())
";
    let mut shown = python(program);
    shown.arg(binary("pcapfs")).args(["replay", ALIAS]).env("PCAPFS_SOCKET", fed.daemon.socket());
    let shown = run(&mut shown, 10).success();
    let size = 24 + 20_000 * Fed::RECORD;
    says(shown.text(), &[&format!("0 {size} "), "%", " of 4.", "\r"]);
}

#[test]
fn clients_that_do_not_read_delay_no_other_client() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("64M"));
    fed.send(200_000);
    let pid = fed.daemon.pid();
    let before = anonymous_memory(pid);
    let stalled: Vec<Stalled> = (0..40)
        .map(|number| {
            let verb: &[&str] =
                if number % 2 == 0 { &["replay", ALIAS] } else { &["replay", ALIAS, "--live"] };
            let mut command = fed.daemon.command(verb);
            Stalled(command.stdout(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    // Each client has received as much as the pipes and buffers hold, and is stalled.
    let delivered = || -> Vec<u64> {
        let readers = fed.daemon.readers(ALIAS);
        readers.iter().filter_map(|reader| reader["delivered_packets"].as_u64()).collect()
    };
    let mut last = Vec::new();
    let mut since = Instant::now();
    // That no client takes more shows only over time.
    wait_until("no client takes more", 20, || {
        let now = delivered();
        if now != last || now.len() < stalled.len() {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    assert!(last.iter().all(|packets| *packets < 200_000), "{last:?}");
    let grown = anonymous_memory(pid).saturating_sub(before);
    let each = grown / stalled.len() as u64;
    eprintln!("{} stalled clients: {} KiB each", stalled.len(), each >> 10);
    assert!(each < 3 << 20, "{each} bytes for each of them");

    // Other clients and the capture do not notice.
    let begun = Instant::now();
    let listed = fed.daemon.json(["list", "--json"]);
    let took = begun.elapsed();
    assert_eq!(listed[0]["readers"]["open"], 40);
    eprintln!("list beside them: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let replay = run(&mut fed.daemon.command(["replay", ALIAS]), 20).success();
    assert_eq!(check_prefix(&replay.stdout).unwrap().whole().len(), 200_000);
    fed.feed.send(300_000, 200);
    fed.daemon.wait_stored(ALIAS, 500_000);
    drop(stalled);
    wait_until("they are gone", 10, || fed.daemon.readers(ALIAS).is_empty());
}

#[test]
fn garbage_does_no_harm() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let mut noise = Vec::new();
    for number in 0..20_000_u32 {
        noise.push((number.wrapping_mul(2_654_435_761) >> 24) as u8);
    }
    let mut kinds = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\0".repeat(100_000),
        noise.clone(),
        preface.to_vec(),
        [&preface[..], &noise].concat(),
        [&preface[..], settings, &noise].concat(),
        // A frame of 16 MiB whose content never comes.
        [&preface[..], settings, b"\xff\xff\xff\0\0\0\0\0\x01"].concat(),
        // Headers that never end.
        [&preface[..], settings, b"\0\x40\0\x09\0\0\0\0\x01", &b"\x41".repeat(1 << 20)].concat(),
    ];
    for cut in 1..preface.len() {
        kinds.push(preface[..cut].to_vec());
    }
    // The first request starts the service.
    fed.daemon.verb(["list"]);
    let before = descriptors(fed.daemon.pid());
    let mut open = Vec::new();
    for bytes in &kinds {
        let mut stream = UnixStream::connect(fed.daemon.socket()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        // The daemon may close the connection long before all bytes are sent.
        let _ = stream.write_all(bytes);
        open.push(stream);
        assert_eq!(fed.daemon.json(["list", "--json"])[0]["alias"], ALIAS);
    }
    for stream in &mut open {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let _ = stream.read(&mut [0; 4096]);
    }
    drop(open);
    wait_until("all are closed", 10, || descriptors(fed.daemon.pid()) <= before + 1);
}

#[test]
fn a_thousand_silent_connections_lock_no_client_out() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let pid = fed.daemon.pid();
    // The first request starts the service.
    fed.daemon.verb(["list"]);
    let (memory, before) = (anonymous_memory(pid), descriptors(pid));
    let mut idle = Vec::new();
    for _ in 0..1000 {
        // The socket's queue may be full for a moment.
        idle.push(wait_for("a connection", 10, || UnixStream::connect(fed.daemon.socket()).ok()));
    }
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(fed.daemon.json(["status", ALIAS, "--json"])["packets"]["stored"], 10);
    }
    eprintln!(
        "1000 connections: {} descriptors, {} KiB, {} threads; a status takes {:?}",
        descriptors(pid) - before,
        anonymous_memory(pid).saturating_sub(memory) >> 10,
        threads(pid),
        begun.elapsed() / 10
    );
    assert!(descriptors(pid) - before <= 300, "{}", descriptors(pid) - before);
    drop(idle);
    wait_until("all are closed", 10, || descriptors(pid) <= before + 1);
}

#[test]
fn captures_and_permissions_outlive_the_daemon() {
    skip_unless!(root);
    let net = Net::new();
    let (rings, trace) = (TempDir::new_in("/dev/shm").unwrap(), TempDir::new().unwrap());
    let trace = trace.path().join("trace.pcap");
    fs::write(&trace, pcapfs_tests::savefile::numbered(Default::default(), 10, 100)).unwrap();
    let mount = || {
        let mount = Mount::new().inside(&net.a).ring("4M").ring_dir(rings.path());
        mount.arg("-r").arg(&trace).start()
    };
    let mut daemon = mount();
    daemon.verb(["init", Net::DEVICE, "udp", "--alias", "web"]);
    daemon.verb(["init", Net::DEVICE, "udp", "--alias", "www"]);
    daemon.verb(["init", "lo", "--alias", "gone"]);
    daemon.verb(["remove", "gone"]);
    net.sender(200).send(10);
    daemon.wait_stored("web", 10);
    for (alias, mode) in [("web", 0o770), ("trace", 0o700), ("", 0o775)] {
        fs::set_permissions(daemon.path(alias), fs::Permissions::from_mode(mode)).unwrap();
    }
    for round in 0..2 {
        if round == 0 {
            daemon.kill9();
        } else {
            assert!(daemon.terminate().success());
        }
        drop(daemon);
        daemon = mount();
        assert_eq!(daemon.count("web", "/packets/retained"), 10, "round {round}");
        assert_eq!(daemon.status("web")["filter"], "udp");
        assert_eq!(fs::read_link(daemon.path("www")).unwrap(), Path::new("web"));
        assert!(!daemon.path("gone").exists());
        for (alias, mode) in [("web", 0o770), ("trace", 0o700), ("", 0o775)] {
            let metadata = fs::metadata(daemon.path(alias)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{alias}, round {round}");
        }
    }
    assert!(daemon.terminate().success());

    // A truncated state file is set aside, and everything else goes on.
    let state = rings.path().join("pcapfs.state");
    let whole = fs::metadata(&state).unwrap().len();
    OpenOptions::new().write(true).open(&state).unwrap().set_len(whole / 2).unwrap();
    let daemon = mount();
    assert_eq!(daemon.json(["list", "--json"]).as_array().unwrap().len(), 1, "trace is there");
    says(&daemon.stderr(), &["pcapfs.state: damaged", "pcapfs.state.damaged", "pcapfs init"]);
    assert!(rings.path().join("pcapfs.state.damaged").exists());
}

#[test]
fn a_state_that_cannot_be_written_is_reported() {
    skip_unless!(root);
    let net = Net::new();
    let mount = Mount::new().inside(&net.a).ring("4M");
    let daemon = mount.arg("--state").arg("/proc/pcapfs/state").start();
    let made = run(&mut daemon.command(["init", Net::DEVICE]), 10).success();
    assert_eq!(made.text(), "1 wire-a\n");
    says(&made.stderr, &["after a restart", "/proc/pcapfs/state"]);
    assert_eq!(daemon.status(Net::DEVICE)["state"], "running");
}

#[test]
fn a_capture_made_by_init_waits_for_its_interface_after_a_restart() {
    skip_unless!(root);
    let net = Net::new();
    let rings = TempDir::new_in("/dev/shm").unwrap();
    let mount = || Mount::new().inside(&net.a).ring("4M").ring_dir(rings.path()).start();
    let mut daemon = mount();
    daemon.verb(["init", Net::DEVICE]);
    assert!(daemon.terminate().success());
    let ip = |words: &[&str]| pcapfs_tests::net::ip(&[&["-n", net.a.name()], words].concat());
    ip(&["link", "delete", Net::DEVICE]);
    let daemon = mount();
    let status = daemon.status(Net::DEVICE);
    assert_eq!(status["state"], "retrying", "{status:#}");
    says(status["error"].as_str().unwrap(), &["wire-a: no such interface"]);
    assert_eq!(status["interruptions"][0]["ended"], Value::Null);
    ip(&["link", "add", Net::DEVICE, "type", "veth", "peer", "name", "other"]);
    ip(&["link", "set", Net::DEVICE, "up"]);
    daemon.wait_state(Net::DEVICE, "running");
    let status = daemon.status(Net::DEVICE);
    assert_eq!(status["error"], Value::Null);
    assert!(status["interruptions"][0]["ended"].is_string(), "{status:#}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let finished =
            run(tool(binary("pcapfs").to_str().unwrap()).args(["completions", shell]), 5);
        let script = finished.success();
        for word in ["mount", "umount", "init", "replay", "listen", "check-config", "--socket"] {
            let found = script.text().contains(word.trim_start_matches('-'));
            assert!(found, "{word} is not in the script for {shell}");
        }
    }
}
