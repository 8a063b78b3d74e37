//! `pcapfs receive`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use pcapfs_tests::measure::Peak;
use pcapfs_tests::process::Finished;
use pcapfs_tests::receiving::own_port;
use pcapfs_tests::{
    Receiving, Running, binary, loopback_address, run, schema, skip_unless, tool, wait_for,
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

const PORT: u16 = Receiving::PORT;

/// Sends these bytes, and waits until they are in the file of the port with this index.
#[track_caller]
fn send(receiving: &Receiving, index: u16, stream: &mut TcpStream, bytes: &[u8]) {
    let before = receiving.contents().get(&(PORT + index)).map_or(0, Vec::len);
    stream.write_all(bytes).unwrap();
    receiving.wait_bytes(PORT + index, before + bytes.len());
}

/// Waits until the far end has closed a connection, and returns whether it was a reset.
#[track_caller]
fn was_reset(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(0) => false,
        Ok(_) => panic!("it sends"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    }
}

fn refused(arguments: &[&str]) -> Finished {
    run(tool(binary("pcapfs").to_str().unwrap()).arg("receive").args(arguments), 10)
}

#[test]
fn each_port_has_a_file_that_begins_with_its_first_connection() {
    let mut receiving = Receiving::start(3, &[]);
    assert_eq!(receiving.files().len(), 0, "before the first connection");
    let mut first = receiving.connect(0);
    send(&receiving, 0, &mut first, b"first");
    drop(first);
    receiving.wait_said(": has sent all; 5 bytes at port 5000");
    let mut third = receiving.connect(2);
    send(&receiving, 2, &mut third, b"third");
    let mut again = receiving.connect(0);
    send(&receiving, 0, &mut again, b" and second");
    let names: Vec<String> = receiving
        .files()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for (name, port) in names.iter().zip([5000, 5002]) {
        let time = name.strip_prefix(&format!("stream_{port}_")).expect(name);
        let time = time.strip_suffix(".bin").expect(name);
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let (day, clock) = time.split_once('_').expect(name);
        assert!((day.len(), clock.len()) == (8, 6) && digits(day) && digits(clock), "{name}");
    }
    let said = receiving.end();
    let expected = [(PORT, b"first and second".to_vec()), (PORT + 2, b"third".to_vec())];
    assert_eq!(receiving.contents(), BTreeMap::from(expected));
    assert!(said.ends_with("pcapfs: 3 connections: 21 bytes in 2 files\n"), "{said}");
    assert!(said.contains(": connected to port 5002, into "), "{said}");
    assert!(said.contains(": closed; 11 bytes at port 5000"), "{said}");
}

#[test]
fn names_have_the_local_time() {
    let folder = TempDir::new().unwrap();
    let first = SocketAddr::new(loopback_address().into(), PORT);
    let mut command = Receiving::command(first.ip(), 1, folder.path());
    // A zone that needs no database: eleven hours and a half ahead of UTC.
    let receiving = Receiving::spawn(command.env("TZ", "XXX-11:30"), first, folder);
    let date = || {
        let shown = run(tool("date").env("TZ", "XXX-11:30").arg("+%Y%m%d_%H%M%S"), 5).success();
        shown.text().trim().to_owned()
    };
    let before = date();
    drop(receiving.connect(0));
    wait_until("there is a file", 10, || receiving.files().len() == 1);
    let after = date();
    let name = receiving.files()[0].file_name().unwrap().to_str().unwrap().to_owned();
    let stated = name.strip_prefix("stream_5000_").unwrap().strip_suffix(".bin").unwrap();
    assert!((before.as_str()..=after.as_str()).contains(&stated), "{before} {name} {after}");
}

#[test]
fn bytes_are_in_the_order_in_which_they_came() {
    let mut receiving = Receiving::start(1, &[]);
    let mut streams: Vec<TcpStream> = (0..5).map(|_| receiving.connect(0)).collect();
    let mut expected = Vec::new();
    for round in 0..40_usize {
        let which = round * 7 % streams.len();
        let part = vec![u8::try_from(round).unwrap(); 100 + round];
        send(&receiving, 0, &mut streams[which], &part);
        expected.extend(part);
    }
    receiving.end();
    assert_eq!(receiving.contents()[&PORT], expected);
}

#[test]
fn connections_at_the_same_time_are_each_in_order() {
    const BYTES: usize = 200_000;
    let mut receiving = Receiving::start(2, &[]);
    // The upper half of a byte is the connection, the lower half counts.
    let bytes = |number: u8| -> Vec<u8> {
        let count = (0..BYTES).map(|at| u8::try_from(at % 16).expect("below 16"));
        count.map(|at| number << 4 | at).collect()
    };
    thread::scope(|scope| {
        for number in 0..16_u8 {
            let mut stream = receiving.connect(u16::from(number) % 2);
            scope.spawn(move || stream.write_all(&bytes(number)).unwrap());
        }
    });
    receiving.wait_bytes(PORT, 8 * BYTES);
    receiving.wait_bytes(PORT + 1, 8 * BYTES);
    receiving.end();
    let contents = receiving.contents();
    for number in 0..16_u8 {
        let of_port = &contents[&(PORT + u16::from(number) % 2)];
        let own: Vec<u8> = of_port.iter().copied().filter(|byte| byte >> 4 == number).collect();
        assert!(own == bytes(number), "connection {number}");
    }
}

#[test]
fn what_has_the_name_stays_as_it_is() {
    let receiving = Receiving::start(1, &[]);
    // The names of the next minute, as files and as links that lead nowhere.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let name = |time: u64| {
        let mut date = tool("date");
        let shown = run(date.args(["-u", "-d", &format!("@{time}"), "+%Y%m%d_%H%M%S"]), 5);
        format!("stream_5000_{}.bin", shown.success().text().trim())
    };
    for time in now..now + 60 {
        let path = receiving.folder().join(name(time));
        if time % 2 == 0 {
            fs::write(path, "earlier").unwrap();
        } else {
            symlink(receiving.folder().join("elsewhere_5000_"), path).unwrap();
        }
    }
    let mut stream = receiving.connect(0);
    stream.write_all(b"new").unwrap();
    let written = wait_for("the bytes are in a file", 10, || {
        let mut files = receiving.files().into_iter();
        files.find(|path| fs::read(path).is_ok_and(|bytes| bytes == b"new"))
    });
    assert!(written.to_str().unwrap().ends_with("-2.bin"), "{}", written.display());
    assert_eq!(receiving.files().len(), 61);
    assert!(!receiving.folder().join("elsewhere_5000_").exists());
}

#[test]
fn a_signal_ends_it_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut receiving = Receiving::start(2, &[]);
        let mut stream = receiving.connect(0);
        send(&receiving, 0, &mut stream, b"before");
        // What has come before the signal is written. The second connection may be accepted or not.
        receiving.process.signal(Signal::SIGSTOP);
        stream.write_all(&[7; 20_000]).unwrap();
        let mut late = receiving.connect(1);
        late.write_all(b"late").unwrap();
        receiving.process.signal(signal);
        receiving.process.signal(Signal::SIGCONT);
        let said = receiving.ended();
        assert!(was_reset(stream), "it had not ended");
        assert_eq!(receiving.contents()[&PORT].len(), 20_006, "{said}");
        assert!(said.contains(": closed; 20006 bytes at port 5000"), "{said}");
        let late = receiving.contents().get(&(PORT + 1)).map_or(0, Vec::len);
        let connections = if late == 0 { "1 connection: " } else { "2 connections: " };
        assert!(said.contains(connections), "{late} {said}");
        assert!(TcpStream::connect(receiving.first).is_err(), "it listens no more");
    }
}

#[test]
fn files_and_their_names_are_on_the_disk_at_the_end() {
    skip_unless!("strace");
    for (options, expected) in [(&[][..], 2), (&["--per-connection"], 3)] {
        let folder = TempDir::new().unwrap();
        let first = SocketAddr::new(loopback_address().into(), PORT);
        let receive = Receiving::command(first.ip(), 2, folder.path());
        let mut strace = tool("strace");
        strace.args(["-f", "-y", "-e", "trace=fsync", "-o"]).arg(folder.path().join("t_0_trace"));
        strace.arg(receive.get_program()).args(receive.get_args()).args(options);
        let mut receiving = Receiving::spawn(&mut strace, first, folder);
        for index in [0, 1, 1] {
            let mut stream = receiving.connect(index);
            stream.write_all(b"x").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(!was_reset(stream), "it took everything");
        }
        // The signal is for the child of strace.
        let children = format!("/proc/{0}/task/{0}/children", receiving.process.pid());
        let child = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGTERM).unwrap();
        receiving.ended();
        let trace = fs::read_to_string(receiving.folder().join("t_0_trace")).unwrap();
        let calls = || trace.lines().filter(|line| line.contains(" fsync("));
        let synced = |part: &str| calls().filter(|line| line.contains(part)).count();
        assert_eq!(synced(".bin>"), expected, "{trace}");
        let folder = format!("{}>)", receiving.folder().display());
        assert_eq!(synced(&folder), 1, "{trace}");
    }
}

#[test]
fn each_connection_may_have_a_file_of_its_own() {
    let mut receiving = Receiving::start(1, &["--per-connection"]);
    let mut streams: Vec<TcpStream> = (0..10).map(|_| receiving.connect(0)).collect();
    wait_until("each has a file", 10, || receiving.files().len() == 10);
    for (number, stream) in (0..).zip(&mut streams) {
        stream.write_all(&[number; 50]).unwrap();
        stream.write_all(&[number; 50]).unwrap();
    }
    receiving.wait_bytes(PORT, 1000);
    let said = receiving.end();
    let files = receiving.files();
    let mut contents: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, (0..10).map(|number| vec![number; 100]).collect::<Vec<_>>());
    assert!(said.ends_with("pcapfs: 10 connections: 1000 bytes in 10 files\n"), "{said}");
}

#[test]
fn it_ends_after_as_many_bytes_as_it_may_take() {
    let mut receiving = Receiving::start(2, &["--max-bytes", "10K"]);
    let mut first = receiving.connect(0);
    send(&receiving, 0, &mut first, &[1; 6_000]);
    let mut second = receiving.connect(1);
    // It may end while they are sent.
    let _ = second.write_all(&[2; 100_000]);
    let said = receiving.ended();
    let contents = receiving.contents();
    assert_eq!(contents[&PORT], [1; 6_000]);
    assert_eq!(contents[&(PORT + 1)], [2; 10_240 - 6_000]);
    assert!(said.contains(": closed, --max-bytes is reached; "), "{said}");
    assert!(said.ends_with("pcapfs: 2 connections: 10240 bytes in 2 files\n"), "{said}");
}

/// A file system of a few pages, unmounted on drop.
struct TinyDisk(TempDir);

impl TinyDisk {
    fn new(bytes: u64) -> Self {
        let disk = Self(TempDir::new().unwrap());
        let mut mount = tool("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "pcapfs-test"]);
        let _ = run(mount.arg(disk.0.path()), 10).success();
        disk
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = tool("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_and_what_was_written_is_whole() {
    skip_unless!(root, "mount");
    let disk = TinyDisk::new(256 << 10);
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 100 << 10]).unwrap();
    let first = SocketAddr::new(loopback_address().into(), PORT);
    let own = TempDir::new_in(disk.0.path()).unwrap();
    let mut command = Receiving::command(first.ip(), 2, own.path());
    let mut receiving = Receiving::spawn(&mut command, first, own);
    let mut other = receiving.connect(1);
    send(&receiving, 1, &mut other, b"other");
    let mut stream = receiving.connect(0);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let _ = stream.write_all(&sent);
    assert!(was_reset(stream), "the sender learns of it");
    receiving.wait_said(" bytes of it could not be written: No space left on device");
    let written = receiving.contents()[&PORT].clone();
    assert!(sent.starts_with(&written), "{} bytes", written.len());
    // Another connection of a disk that is full.
    fs::write(disk.0.path().join("more"), vec![0; 256 << 10]).unwrap_err();
    let refused = receiving.connect(0);
    assert!(was_reset(refused));
    receiving.wait_said(&format!(
        ": refused at port 5000: {}: No space left on device",
        receiving.folder().display()
    ));
    // Room again: it goes on in the same file, after what is whole.
    fs::remove_file(&ballast).unwrap();
    let mut again = receiving.connect(0);
    send(&receiving, 0, &mut again, b"again");
    send(&receiving, 1, &mut other, b" is open");
    let said = receiving.end();
    assert_eq!(receiving.contents()[&PORT], [&written[..], b"again"].concat());
    assert_eq!(receiving.contents()[&(PORT + 1)], b"other is open");
    assert!(said.contains(", 1 refused: "), "{said}");
    assert!(said.trim_end().ends_with(" not written"), "{said}");
}

/// Values of a field of the packets in a savefile, as tshark prints them.
#[track_caller]
fn fields(path: &Path, filter: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = tool("tshark");
    tshark.args(["-n", "-Y", filter, "-T", "fields", "-r"]).arg(path);
    tshark.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    tshark.args(names.iter().flat_map(|name| ["-e", *name]));
    let finished = run(&mut tshark, 30).success();
    let line = |line: &str| line.split('\t').map(str::to_owned).collect();
    finished.text().lines().map(line).collect()
}

#[test]
fn savefiles_have_what_came_as_packets_with_its_time() {
    skip_unless!("tshark");
    for address in ["127.0.0.1", "::1"] {
        let folder = TempDir::new().unwrap();
        let first = SocketAddr::new(address.parse().unwrap(), own_port());
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        command.args(["receive", address, &first.port().to_string(), "1", "--pcapng", "-o"]);
        let mut receiving = Receiving::spawn(command.arg(folder.path()), first, folder);
        let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let before = seconds().as_secs_f64();
        let mut stream = receiving.connect(0);
        let peer = stream.local_addr().unwrap();
        let long = vec![9; 150_000];
        for part in [&b"hello"[..], &long] {
            stream.write_all(part).unwrap();
            stream.flush().unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(!was_reset(stream));
        receiving.wait_said(": has sent all; 150005 bytes");
        receiving.end();
        let after = seconds().as_secs_f64();
        let file = receiving.files().remove(0);
        assert_eq!(file.extension().unwrap(), "pcapng");
        let found = fields(
            &file,
            "tcp",
            &["frame.time_epoch", "tcp.srcport", "tcp.flags", "tcp.payload", "tcp.checksum.status"],
        );
        let payload: String = found.iter().map(|packet| packet[3].as_str()).collect();
        assert_eq!(payload, format!("{}{}", "68656c6c6f", "09".repeat(long.len())));
        for packet in &found {
            let time: f64 = packet[0].parse().unwrap();
            assert!((before..=after).contains(&time), "{before} {packet:?} {after}");
            assert_eq!(packet[1], peer.port().to_string());
            assert_eq!(packet[4], "1", "the checksum is right");
        }
        let flags: Vec<&str> = found.iter().map(|packet| packet[2].as_str()).collect();
        assert!(flags.starts_with(&["0x0002"]) && flags.ends_with(&["0x0011"]), "{flags:?}");
        assert_eq!(
            fields(&file, "tcp.analysis.flags && !tcp.analysis.lost_segment", &["ip"]),
            [[""; 0]; 0]
        );
    }
}

#[test]
fn ports_that_cannot_be_had_are_named() {
    let address = loopback_address();
    let taken = TcpListener::bind((address, PORT + 1)).unwrap();
    let folder = TempDir::new().unwrap();
    let made = folder.path().join("made");
    let finished = run(&mut Receiving::command(address.into(), 3, &made), 10);
    assert_eq!(finished.status.code(), Some(1));
    let expected = format!("pcapfs: {address}:5001: Address already in use: another program");
    assert!(finished.stderr.starts_with(&expected), "{}", finished.stderr);
    assert!(finished.stderr.contains("(ports 5000 to 5002 are needed)"), "{}", finished.stderr);
    assert!(!made.exists(), "nothing is made for a receiver that cannot begin");
    drop(taken);
    for (arguments, says) in [
        (&["127.0.0.1", "65530", "7"][..], "7 ports from 65530 on: the last port is 65535"),
        (&["127.0.0.1", "0", "7"], "invalid value '0' for '<BASE_PORT>'"),
        (&["127.0.0.1", "5000", "0"], "invalid value '0' for '<COUNT>'"),
        (&["eth0", "5000", "1"], "'eth0' is no address of this machine"),
        (&["127.0.0.1", "5000"], "required arguments were not provided: <COUNT>"),
        (&["127.0.0.1", "5000", "1", "--max-bytes", "lots"], "'lots' is no size"),
    ] {
        let finished = refused(arguments);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}");
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }
    let finished = refused(&["192.0.2.1", "5000", "1"]);
    assert!(finished.stderr.contains("no interface has this address"), "{}", finished.stderr);
    fs::write(&made, "a file").unwrap();
    let finished = refused(&[&address.to_string(), "5000", "1", "-o", made.to_str().unwrap()]);
    let expected = format!("pcapfs: {}: File exists (name another", made.display());
    assert!(finished.stderr.starts_with(&expected), "{}", finished.stderr);
}

#[test]
fn connections_beyond_the_limit_of_descriptors_are_refused() {
    let folder = TempDir::new().unwrap();
    let first = SocketAddr::new(loopback_address().into(), PORT);
    let receive = Receiving::command(first.ip(), 1, folder.path());
    let mut limited = tool("prlimit");
    limited.arg("--nofile=40:40").arg(receive.get_program()).args(receive.get_args());
    let receiving = Receiving::spawn(&mut limited, first, folder);
    let streams: Vec<TcpStream> = (0..6).map(|_| receiving.connect(0)).collect();
    receiving.wait_bytes(PORT, 0);
    let last = receiving.connect(0);
    assert!(was_reset(last));
    receiving.wait_said(": refused at port 5000: 6 connections are open");
    drop(streams);
    wait_until("they have ended", 10, || {
        receiving.process.stderr().matches(": has sent all").count() == 6
    });
    let mut stream = receiving.connect(0);
    send(&receiving, 0, &mut stream, b"room again");
}

#[test]
fn a_thousand_connections_take_little_memory() {
    const EACH: usize = 20_000;
    let receiving = Receiving::start(10, &[]);
    let warm = receiving.connect(0);
    receiving.wait_said(": connected to port 5000");
    drop(warm);
    let peak = Peak::from_now(receiving.process.pid());
    let before = pcapfs_tests::measure::anonymous_memory(receiving.process.pid());
    let mut streams: Vec<TcpStream> = (0..1_000).map(|at| receiving.connect(at % 10)).collect();
    for stream in &mut streams {
        stream.write_all(&[5; EACH]).unwrap();
    }
    for index in 0..10 {
        receiving.wait_bytes(PORT + index, 100 * EACH);
    }
    let more = peak.anonymous().saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes for a thousand connections");
}

#[test]
fn programs_get_lines_of_json() {
    let mut receiving = Receiving::start(2, &["--json"]);
    let mut stream = receiving.connect(1);
    let peer = stream.local_addr().unwrap().to_string();
    stream.write_all(b"seven").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(!was_reset(stream));
    receiving.wait_bytes(PORT + 1, 5);
    receiving.process.wait_stdout("it has closed", 10, |text| {
        String::from_utf8_lossy(text).contains("\"closed\"")
    });
    let said = receiving.end();
    assert_eq!(said, "", "all of it is JSON");
    let text = String::from_utf8(receiving.process.stdout()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["listening", "opened", "closed", "ended"]);
    lines.iter().for_each(|line| schema::check("receive", line));
    assert_eq!((&lines[0]["first_port"], &lines[0]["last_port"]), (&5000.into(), &5001.into()));
    assert_eq!(lines[1]["file"], receiving.files()[0].to_str().unwrap());
    for line in &lines[1..3] {
        assert_eq!((&line["peer"], &line["port"]), (&peer.as_str().into(), &5001.into()));
    }
    assert_eq!(lines[2]["bytes"], 5);
    assert_eq!((&lines[2]["state"], &lines[2]["why"]), (&"complete".into(), &Value::Null));
    assert_eq!((&lines[3]["connections"], &lines[3]["bytes"]), (&1.into(), &5.into()));
}

#[test]
fn a_terminal_shows_what_comes() {
    skip_unless!("script");
    let folder = TempDir::new().unwrap();
    let first = SocketAddr::new(loopback_address().into(), PORT);
    let receive = Receiving::command(first.ip(), 1, folder.path());
    let words = receive.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>();
    let command = format!("exec {} {}", receive.get_program().to_str().unwrap(), words.join(" "));
    let running = Running::spawn(tool("script").args(["-qfc", &command, "/dev/null"]));
    running.wait_stdout("it receives", 10, |text| text.starts_with(b"pcapfs: receiving at"));
    let mut stream = TcpStream::connect(first).unwrap();
    stream.write_all(&[1; 5_000]).unwrap();
    running.wait_stdout("it shows what comes", 10, |text| {
        String::from_utf8_lossy(text).contains("\r1 connection, 4.8K received, ")
    });
    drop(stream);
    running.wait_stdout("the line makes way for the log", 10, |text| {
        let text = String::from_utf8_lossy(text);
        text.contains("\r\u{1b}[Kpcapfs: ") && text.contains(": has sent all; 5000 bytes")
    });
}

#[test]
fn both_families_come_at_an_address_of_both() {
    let folder = TempDir::new().unwrap();
    let first = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), own_port());
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    command.args(["receive", "[::]", &first.port().to_string(), "1", "-o"]).arg(folder.path());
    let mut receiving = Receiving::spawn(&mut command, first, folder);
    for address in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(address.parse().unwrap(), first.port());
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(b"x").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(!was_reset(stream));
    }
    let said = receiving.end();
    assert!(said.contains("\npcapfs: 127.0.0.1:") && said.contains("\npcapfs: [::1]:"), "{said}");
}
