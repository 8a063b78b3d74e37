//! `inject.pcap`: frames of a savefile go into the kernel as if an interface had received them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use frames::{Format, HARDWARE, IPV4, TCP, flags, ipv4};
use nix::sys::signal::Signal;
use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::{Interface, NgPacket, pcapng};
use pcapfs_tests::{
    Daemon, Mount, Namespace, Net, Running, User, frame, run, skip_unless, tool, wait_for,
    wait_until,
};

const ALIAS: &str = "lab";
const DEVICE: &str = "lab0";
const USER: User = User { id: 54_371, group: 65_491, groups: &[] };
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// Any time of the past.
const LONG_AGO: u64 = 1_000_000_000_000_000_000;

/// A device in a namespace of its own, and its capture.
struct Lab {
    namespace: Namespace,
    daemon: Daemon,
}

impl Lab {
    fn new(arguments: &[&str]) -> Self {
        Self::of(&format!("tap:{DEVICE}"), arguments)
    }

    fn of(source: &str, arguments: &[&str]) -> Self {
        let namespace = Namespace::new();
        let mount = Mount::new().inside(&namespace).ring("8M").args(arguments);
        let daemon = mount.capture(ALIAS, source).start();
        daemon.wait_state(ALIAS, "running");
        Self { namespace, daemon }
    }

    fn path(&self) -> PathBuf {
        self.daemon.path(ALIAS).join("inject.pcap")
    }

    fn writer(&self) -> std::io::Result<File> {
        OpenOptions::new().write(true).open(self.path())
    }

    /// A number of `injection` in the status.
    fn count(&self, name: &str) -> u64 {
        self.daemon.count(ALIAS, &format!("/injection/{name}"))
    }

    #[track_caller]
    fn wait_count(&self, name: &str, number: u64) {
        wait_until(&format!("{number} {name}"), 10, || self.count(name) == number);
    }

    fn error(&self) -> String {
        let status = self.daemon.status(ALIAS);
        status["injection"]["error"].as_str().unwrap_or_default().to_owned()
    }

    /// The packets of a file of the capture: their times, whether they are marked outbound, and
    /// their bytes. tshark is the judge.
    fn packets(&self) -> Vec<(f64, bool, Vec<u8>)> {
        let file = self.daemon.path(ALIAS).join("replay.pcapng");
        let fields = ["-e", "frame.time_epoch", "-e", "frame.packet_flags_direction"];
        let mut command = tool("tshark");
        command.arg("-r").arg(file).args(["-T", "fields"]).args(fields);
        let listed = run(&mut command, 20).success();
        let bytes = fs::read(self.daemon.path(ALIAS).join("replay.pcap")).unwrap();
        let mut rest = &bytes[24..];
        let frames = listed.text().lines().map(|line| {
            let (time, direction) = line.split_once('\t').unwrap();
            let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            let frame = rest[16..16 + length].to_vec();
            rest = &rest[16 + length..];
            (time.parse().unwrap(), direction == "0x00000002", frame)
        });
        frames.collect()
    }
}

/// A savefile of numbered frames, so many nanoseconds apart.
fn savefile(numbers: std::ops::RangeInclusive<u64>, gap: u64) -> Vec<u8> {
    let mut bytes = Format::default().header();
    for number in numbers {
        let frame = frame::ethernet(number, 100);
        Format::default().append(&mut bytes, LONG_AGO + number * gap, &frame, frame.len());
    }
    bytes
}

/// A folder with a savefile in it.
fn saved(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("incident.pcap");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// `cp FILE inject.pcap`, and `cat` in a shell.
fn copies(file: &std::path::Path, lab: &Lab) -> Vec<Command> {
    let mut cp = tool("cp");
    cp.arg(file).arg(lab.path());
    let shell = |script: &str| {
        let mut command = tool("sh");
        command.args(["-c", script, "sh"]).arg(file).arg(lab.path());
        command
    };
    vec![
        cp,
        shell("cat \"$1\" > \"$2\""),
        shell("cat \"$1\" >> \"$2\""),
        shell("dd bs=77 if=\"$1\" of=\"$2\" 2> /dev/null"),
    ]
}

#[test]
fn frames_go_into_the_kernel_and_are_captured_as_outbound() {
    skip_unless!(root, "ip", "tshark");
    let lab = Lab::new(&[]);
    ip(&["-n", lab.namespace.name(), "address", "add", "10.0.0.2/24", "dev", DEVICE]);
    // The frames are for another station, unless the device is that one.
    let station = HARDWARE[0].map(|byte| format!("{byte:02x}")).join(":");
    ip(&["-n", lab.namespace.name(), "link", "set", DEVICE, "address", &station]);
    let socket = lab.namespace.run(|| UdpSocket::bind(("10.0.0.2", frame::PORT)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_folder, file) = saved(&savefile(1..=3, 0));
    let mut sent = 0;
    for mut command in copies(&file, &lab) {
        let _ = run(&mut command, 10).success();
        sent += 3;
        lab.wait_count("injected_packets", sent);
        for number in 1..=3 {
            let mut payload = [0; 200];
            let (length, from) = socket.recv_from(&mut payload).unwrap();
            assert_eq!(payload[..length], frame::payload(number, 100));
            assert_eq!(from, SocketAddr::from(([10, 0, 0, 1], frame::SOURCE_PORT)));
        }
    }
    // What the system sends is not marked.
    lab.namespace.send_frames(DEVICE, &[frame::ethernet(9, 100)]);
    lab.daemon.wait_stored(ALIAS, sent + 1);
    let packets = lab.packets();
    let numbers: Vec<u64> = (0..4).flat_map(|_| 1..=3).chain([9]).collect();
    for ((_, is_outbound, bytes), number) in packets.iter().zip(numbers) {
        assert_eq!((*is_outbound, &bytes[..]), (number != 9, &frame::ethernet(number, 100)[..]));
    }
    assert_eq!(lab.count("injected_bytes"), 12 * 142);
    assert_eq!((lab.count("refused_packets"), lab.error().as_str()), (0, ""));
    lab.wait_count("writers", 0);
}

#[test]
fn gaps_in_time_are_kept_at_the_speed_that_is_set() {
    skip_unless!(root, "ip", "tshark");
    for (speed, gap) in [(None, 0.2), (Some("2"), 0.1), (Some("max"), 0.0)] {
        let arguments: &[&str] = &match speed {
            Some(speed) => vec!["--inject-speed", speed],
            None => vec![],
        };
        let lab = Lab::new(arguments);
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        lab.writer().unwrap().write_all(&savefile(1..=4, 200 * MS)).unwrap();
        lab.wait_count("injected_packets", 4);
        let times: Vec<f64> = lab.packets().into_iter().map(|(time, ..)| time).collect();
        assert!(times.is_sorted(), "{times:?}");
        // None is earlier than the savefile has it, whatever the machine is busy with. The clock may
        // be set a little in the meantime.
        for (time, gaps) in times.iter().zip([0.0, 1.0, 2.0, 3.0]) {
            assert!(time - begun > gaps * gap - 0.002, "{speed:?}: {begun} {times:?}");
        }
        let shown = lab.daemon.status(ALIAS)["injection"]["speed"].clone();
        assert_eq!(shown, speed.map_or("1.0", |speed| if speed == "2" { "2.0" } else { speed }));
    }
}

#[test]
fn a_connection_is_made_over_an_injected_syn() {
    skip_unless!(root, "ip", "tshark");
    let lab = Lab::new(&[]);
    let name = lab.namespace.name();
    ip(&["-n", name, "address", "add", "10.0.0.2/24", "dev", DEVICE]);
    let station = HARDWARE[0].map(|byte| format!("{byte:02x}")).join(":");
    ip(&["-n", name, "link", "set", DEVICE, "address", &station]);
    let client: SocketAddr = ([10, 0, 0, 1], 40_000).into();
    let server: SocketAddr = ([10, 0, 0, 2], 80).into();
    let words = ["neighbour", "add", "10.0.0.1", "lladdr", "02:00:00:00:00:01", "dev", DEVICE];
    ip(&[&["-n", name][..], &words].concat());
    let listener = lab.namespace.run(|| TcpListener::bind(server).unwrap());
    let segment = |flags: u8, numbers: [u32; 2], payload: &[u8]| {
        let segment = frames::tcp(client, server, numbers, flags, payload);
        frames::ethernet(&[], IPV4, &ipv4(([10, 0, 0, 1], [10, 0, 0, 2]), TCP, &segment))
    };
    let mut writer = lab.writer().unwrap();
    writer.write_all(&Format::default().header()).unwrap();
    let mut inject = |frame: &[u8]| {
        let mut record = Vec::new();
        Format::default().append(&mut record, LONG_AGO, frame, frame.len());
        writer.write_all(&record).unwrap();
    };
    inject(&segment(flags::SYN, [1000, 0], b""));
    // The answer of the kernel's stack is captured.
    let find = |wanted: u8| {
        let packets = lab.packets();
        let answer = packets.iter().position(|(_, is_outbound, bytes)| {
            !is_outbound && bytes.get(47).is_some_and(|flags| flags & wanted == wanted)
        })?;
        assert!(answer > 0 && packets[0].1, "the frame comes before its answer");
        Some(packets[answer].2.clone())
    };
    let answer = wait_for("the kernel answers", 10, || find(flags::SYN | flags::ACK));
    let word = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
    assert_eq!(word(42), 1001, "it acknowledges the SYN");
    let request = b"GET / HTTP/1.0\r\n\r\n";
    inject(&segment(flags::ACK, [1001, word(38) + 1], b""));
    inject(&segment(flags::ACK | flags::PSH, [1001, word(38) + 1], request));
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from, client);
    let mut bytes = [0; 18];
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::io::Read::read_exact(&mut stream, &mut bytes).unwrap();
    assert_eq!(&bytes, request);
    stream.write_all(b"HTTP/1.0 204 No Content\r\n\r\n").unwrap();
    // The connection is a flow, both ways.
    let line = wait_for("the transaction is found", 10, || {
        let lines = fs::read_to_string(lab.daemon.path(ALIAS).join("http-open.jsonl")).ok()?;
        let ended = fs::read_to_string(lab.daemon.path(ALIAS).join("http.jsonl")).ok()?;
        [lines, ended]
            .concat()
            .lines()
            .find(|line| line.contains("\"status\":204"))
            .map(str::to_owned)
    });
    assert!(line.contains("\"address\":\"10.0.0.1\",\"port\":40000"), "{line}");
}

#[test]
fn frames_reach_what_is_behind_a_bridge_and_answers_come_back() {
    skip_unless!(root, "ip", "tshark");
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).ring("2M").capture(ALIAS, "tap:lab0").start();
    ip(&["-n", net.a.name(), "link", "add", "switch0", "type", "bridge"]);
    for device in [DEVICE, Net::DEVICE] {
        ip(&["-n", net.a.name(), "link", "set", device, "master", "switch0"]);
    }
    ip(&["-n", net.a.name(), "link", "set", "switch0", "up"]);
    let socket = net.b.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, frame::PORT)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    ip(&["-n", net.b.name(), "address", "add", "10.0.0.2/24", "dev", Net::PEER]);
    let station = HARDWARE[0].map(|byte| format!("{byte:02x}")).join(":");
    ip(&["-n", net.b.name(), "link", "set", Net::PEER, "address", &station]);
    let words =
        ["neighbour", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:77", "dev", Net::PEER];
    ip(&[&["-n", net.b.name()][..], &words].concat());
    let path = daemon.path(ALIAS).join("inject.pcap");
    fs::write(&path, savefile(1..=1, 0)).unwrap();
    let mut payload = [0; 200];
    let (length, from) = socket.recv_from(&mut payload).unwrap();
    assert_eq!(payload[..length], frame::payload(1, 100));
    // The bridge floods the answer to an unknown station into the device.
    socket.send_to(&frame::payload(2, 100), from).unwrap();
    wait_until("the answer is captured", 10, || {
        let bytes = fs::read(daemon.path(ALIAS).join("replay.pcap")).unwrap();
        let wanted = frame::payload(2, 100);
        bytes.windows(wanted.len()).any(|bytes| bytes == wanted)
    });
}

#[test]
fn a_tun_device_takes_ip_packets() {
    skip_unless!(root, "ip", "tshark");
    let lab = Lab::of("tun:lab0", &[]);
    ip(&["-n", lab.namespace.name(), "address", "add", "10.0.0.2/24", "dev", DEVICE]);
    let socket = lab.namespace.run(|| UdpSocket::bind(("10.0.0.2", frame::PORT)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let format = Format { link_type: 101, ..Format::default() };
    let mut bytes = format.header();
    format.append(&mut bytes, LONG_AGO, &frame::ethernet(1, 100)[14..], 128);
    fs::write(lab.path(), &bytes).unwrap();
    let mut payload = [0; 200];
    let length = socket.recv(&mut payload).unwrap();
    assert_eq!(payload[..length], frame::payload(1, 100));
    let refused = lab.writer().unwrap().write_all(&savefile(1..=1, 0)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    assert!(lab.error().contains("at byte 0: packets of link type"), "{}", lab.error());
}

#[test]
fn a_pcapng_savefile_is_taken_too() {
    skip_unless!(root, "ip", "tshark");
    let lab = Lab::new(&[]);
    let interface = |link_type| Interface {
        link_type,
        snaplen: 65_535,
        name: None,
        filter: None,
        per_second: 1_000_000_000,
    };
    let packet = |interface, number| NgPacket {
        interface,
        timestamp: LONG_AGO,
        data: frame::ethernet(number, 100),
    };
    let good = pcapng(&[interface(1)], &[packet(0, 1), packet(0, 2)]);
    fs::write(lab.path(), good).unwrap();
    lab.wait_count("injected_packets", 2);
    let mixed =
        pcapng(&[interface(1), interface(113)], &[packet(0, 3), packet(1, 4), packet(0, 5)]);
    let refused = fs::write(lab.path(), &mixed).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    lab.wait_count("injected_packets", 3);
    assert!(lab.error().contains("packets of link type"), "{}", lab.error());
    let sent: Vec<_> = lab.packets().into_iter().map(|packet| packet.2).collect();
    assert_eq!(sent, [1, 2, 3].map(|number| frame::ethernet(number, 100)));
}

#[test]
fn what_is_no_savefile_is_refused_with_its_place() {
    skip_unless!(root, "ip", "tshark");
    let lab = Lab::new(&[]);
    let mut broken = savefile(1..=2, 0);
    let place = broken.len();
    broken.extend([0xff; 100]);
    broken.extend(&savefile(3..=3, 0)[24..]);
    let (_folder, file) = saved(&broken);
    let copied = run(tool("cp").arg(file).arg(lab.path()), 10);
    assert!(copied.stderr.contains("Invalid argument"), "{}", copied.stderr);
    let part = format!("malformed at byte {place}: ");
    assert!(lab.error().contains(&part), "{}", lab.error());
    wait_until("it is in the log", 10, || {
        lab.daemon.stderr().contains(&format!("{ALIAS}/inject.pcap: {part}"))
    });
    lab.wait_count("injected_packets", 2);
    // A program that ends in the middle of a record.
    let mut writer = lab.writer().unwrap();
    writer.write_all(&savefile(4..=5, 0)[..200]).unwrap();
    drop(writer);
    let part = "ends inside a record: 18 bytes from byte 182 on are dropped";
    wait_until("it is reported", 10, || lab.error().contains(part));
    lab.wait_count("injected_packets", 3);
    // A hole, which cp leaves out of sparse files.
    let writer = lab.writer().unwrap();
    let skipped = std::os::unix::fs::FileExt::write_at(&writer, b"x", 4096).unwrap_err();
    assert_eq!(skipped.raw_os_error(), Some(libc::ESPIPE));
    assert!(lab.error().contains("byte 4096, and byte 0 was next"), "{}", lab.error());
    // A frame that the kernel refuses.
    let mut short = Format::default().header();
    Format::default().append(&mut short, LONG_AGO, &[1; 13], 60);
    fs::write(lab.path(), short).unwrap();
    lab.wait_count("refused_packets", 1);
    assert_eq!(lab.count("cut_packets"), 1);
    assert!(lab.error().contains("13 bytes was refused: Invalid argument"), "{}", lab.error());
    let sent: Vec<_> = lab.packets().into_iter().map(|packet| packet.2).collect();
    assert_eq!(sent, [1, 2, 4].map(|number| frame::ethernet(number, 100)));
}

#[test]
fn only_who_may_write_the_capture_injects() {
    skip_unless!(root, "ip", "setpriv");
    let lab = Lab::new(&[]);
    let folder = lab.daemon.path(ALIAS);
    let (_folder, file) = saved(&savefile(1..=2, 0));
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&folder, None, Some(USER.group)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
    let inject = || {
        let mut command = USER.command("sh");
        command.args(["-c", "cat \"$1\" > \"$2\"", "sh"]).arg(&file).arg(lab.path());
        run(&mut command, 10)
    };
    assert!(inject().stderr.contains("ermission denied"));
    let may_read = run(USER.command("cat").arg(folder.join("replay.pcap")), 10);
    assert!(may_read.status.success(), "{}", may_read.stderr);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(fs::metadata(lab.path()).unwrap().mode() & 0o777, 0o220);
    let _ = inject().success();
    lab.wait_count("injected_packets", 2);
    let read = run(USER.command("cat").arg(lab.path()), 10);
    assert!(read.stderr.contains("ermission denied"), "{}", read.stderr);
    let listed = run(tool("ls").arg(&folder), 10).success();
    assert!(listed.text().lines().any(|name| name == "inject.pcap"));
    // Other captures have none.
    let _ = lab.daemon.verb(["init", "lo", "udp port 9", "--alias", "other"]);
    assert!(!lab.daemon.path("other").join("inject.pcap").exists());
    assert!(lab.daemon.status("other")["injection"].is_null());
}

#[test]
fn a_writer_waits_for_room_and_holds_up_nobody() {
    skip_unless!(root, "ip");
    let lab = Lab::new(&[]);
    // An hour between two frames, and more after them than a queue takes.
    let hour = 3_600_000 * MS;
    let mut bytes = savefile(1..=2, hour);
    for number in 3..=15_000 {
        let frame = frame::ethernet(number, 1_000);
        Format::default().append(&mut bytes, LONG_AGO + 2 * hour, &frame, frame.len());
    }
    let (_folder, file) = saved(&bytes);
    let mut waiting = Running::spawn(tool("cp").arg(&file).arg(lab.path()));
    lab.wait_count("injected_packets", 1);
    wait_until("its queue is full", 10, || lab.count("queued_bytes") > 900_000);
    assert_eq!(waiting.try_wait(), None);
    // Readers, other writers, and programs that truncate the file are served.
    let _ = run(tool("cat").arg(lab.daemon.path(ALIAS).join("replay.pcap")), 10).success();
    let (_folder, small) = saved(&savefile(1..=5, 0));
    for mut command in copies(&small, &lab) {
        let _ = run(&mut command, 10).success();
    }
    lab.wait_count("injected_packets", 21);
    // A program that does not want to wait gets EAGAIN.
    let mut patient =
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(lab.path()).unwrap();
    let refused = patient.write_all(&bytes).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    // The waiting one can be killed.
    waiting.signal(Signal::SIGKILL);
    let _ = waiting.wait(5);
    // At the end of the capture, what waits is dropped, and its writers are told.
    let mut waiting = Running::spawn(tool("cp").arg(&file).arg(lab.path()));
    wait_until("it waits", 10, || lab.count("queued_bytes") > 2_700_000);
    lab.daemon.control(ALIAS, "stop").unwrap();
    assert_eq!(waiting.wait(10).code(), Some(1));
    assert!(waiting.stderr().contains("Input/output error"), "{}", waiting.stderr());
    assert!(lab.count("dropped_packets") > 2_700 && lab.count("queued_packets") == 0);
    let stopped = lab.writer().unwrap_err();
    assert_eq!(stopped.raw_os_error(), Some(libc::EIO));
    lab.daemon.control(ALIAS, "start").unwrap();
    // At once.
    let before = lab.count("injected_packets");
    fs::write(lab.path(), savefile(6..=6, 0)).unwrap();
    lab.wait_count("injected_packets", before + 1);
}

#[test]
fn a_large_savefile_passes_through_a_bounded_queue() {
    skip_unless!(root, "ip");
    let lab = Lab::new(&["--inject-speed", "max"]);
    let mut bytes = Format::default().header();
    const COUNT: u64 = 30_000;
    for number in 1..=COUNT {
        let frame = frame::ethernet(number, 1_000);
        Format::default().append(&mut bytes, LONG_AGO + number, &frame, frame.len());
    }
    let (_folder, file) = saved(&bytes);
    let mut both: Vec<_> =
        (0..2).map(|_| Running::spawn(tool("cp").arg(&file).arg(lab.path()))).collect();
    for one in &mut both {
        assert!(one.wait(20).success(), "{}", one.stderr());
    }
    lab.wait_count("injected_packets", 2 * COUNT);
    assert_eq!(lab.count("refused_packets") + lab.count("dropped_packets"), 0);
    // Sixteen writers at a time, and no more.
    let mut writers: Vec<_> = (0..16).map(|_| lab.writer().unwrap()).collect();
    let refused = lab.writer().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    drop(writers.pop());
    wait_until("one has room", 10, || lab.writer().is_ok());
}

#[test]
fn a_capture_of_init_has_a_speed_of_its_own() {
    skip_unless!(root, "ip");
    let lab = Lab::new(&[]);
    let words = ["init", "tap:own0", "--alias", "own", "--inject-speed", "0.5"];
    let _ = lab.daemon.verb(words);
    assert_eq!(lab.daemon.status("own")["injection"]["speed"], "0.5");
    let words = ["init", "tap:bad0", "--inject-speed", "0"];
    let refused = run(&mut lab.daemon.command(words), 10);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("'0' is no speed"), "{}", refused.stderr);
}
