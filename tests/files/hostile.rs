//! Traffic that strangers can send to exhaust a program: every limit holds and is counted, and the
//! capture loses no packet.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use frames::{UDP, ip, ipv4_fragment, tcp, udp};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use pcapfs_tests::coding::{chunked, gzip_of_zeros};
use pcapfs_tests::conversation::{
    ACK, EPOCH, PSH, Packet, SYN, ethernet, noise, records, savefile, savefile_of,
};
use pcapfs_tests::flows::{flow, json, lines, meta, names};
use pcapfs_tests::savefile::Format;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fifo, Filed, Mount, Running, Server, run, skip_unless,
    tool, wait_until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Memory for flows in these tests, in bytes.
const GIVEN: u64 = 32 * MIB;

/// Maximum memory of a daemon in these tests: the memory for flows, a quarter as much for each of
/// the two logs, and 32 MiB for everything else that a daemon needs.
const ALLOWED: u64 = GIVEN + GIVEN / 2 + 32 * MIB;

fn memory(daemon: &Daemon) -> u64 {
    let status = json(&daemon.path("status.json"));
    status["memory"].as_u64().unwrap_or_else(|| panic!("no memory in {status:#}"))
}

fn frugal() -> Mount {
    Mount::new().arg("--flow-memory").arg(GIVEN.to_string()).lifetime(Duration::from_secs(240))
}

/// A daemon that reads a savefile. Its memory is watched all the time.
struct Watched {
    daemon: Daemon,
    most: u64,
    _folder: TempDir,
}

impl Watched {
    #[track_caller]
    fn new(savefile: &[u8]) -> Self {
        Self::with(frugal(), savefile)
    }

    #[track_caller]
    fn with(mount: Mount, savefile: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flood.pcap");
        fs::write(&file, savefile).unwrap();
        // `--no-wait`, so that memory can be watched while the savefile is read.
        let mount = mount.arg("--no-wait");
        let daemon = mount.capture(ALIAS, &format!("file:{}", file.display())).start();
        let mut most = 0;
        wait_until("the capture has ended", 200, || {
            most = most.max(memory(&daemon));
            daemon.status(ALIAS)["state"] == "ended"
        });
        let this = Self { daemon, most, _folder: folder };
        this.check();
        this
    }

    /// Memory is within its limit, and the counters add up.
    #[track_caller]
    fn check(&self) {
        let status = self.daemon.status(ALIAS);
        let most = self.most.max(memory(&self.daemon));
        assert!(most <= ALLOWED, "{} MiB: {:#}", most / MIB, status["flows"]);
        adds_up(&status);
    }

    fn count(&self, name: &str) -> u64 {
        self.daemon.count(ALIAS, &format!("/flows/{name}"))
    }
}

/// No packet of an idle capture is lost, and its flow counters add up.
#[track_caller]
fn adds_up(status: &Value) {
    let of = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert_eq!(of("/packets/seen"), of("/packets/stored"), "{status:#}");
    assert_eq!(of("/packets/stored"), of("/packets/retained") + of("/packets/overwritten"));
    assert_eq!(of("/flows/engine_lag_packets"), 0, "{status:#}");
    assert!(of("/flows/memory") <= GIVEN + GIVEN / 2 + MIB, "{status:#}");
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0b00_0000 + number).into()
}

/// A packet that is the only one of its flow; each number gives another flow.
fn lone(number: u32, is_udp: bool) -> Packet {
    let (here, there) =
        ((address(number), 1_234).into(), ("10.0.0.1".parse::<IpAddr>().unwrap(), 80));
    let there = there.into();
    let (protocol, segment) = if is_udp {
        (17, udp(here, there, b"x"))
    } else {
        (6, tcp(here, there, [number, 0], SYN, b""))
    };
    let data = ethernet(
        Client,
        &[],
        &ip(address(number), "10.0.0.1".parse().unwrap(), protocol, &segment),
    );
    Packet { time: EPOCH + u64::from(number) * 1_000, data, from: Client }
}

fn flood(count: u32, is_udp: bool) -> Vec<u8> {
    let mut bytes = Format::default().header();
    (0..count).for_each(|number| lone(number, is_udp).append(&mut bytes));
    bytes
}

/// The number of lines in a log, all of them whole. Only one in 64 is parsed, because parsing is
/// slow in a test build.
#[track_caller]
fn count_lines(log: &Path) -> u64 {
    let text = fs::read_to_string(log).unwrap();
    let mut count = 0;
    for line in text.split_inclusive('\n') {
        assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
        if count % 64 == 0 {
            drop(serde_json::from_str::<Value>(line).unwrap_or_else(|why| panic!("{why}: {line}")));
        }
        count += 1;
    }
    count
}

// ---- Many flows.

#[test]
fn flows_of_one_packet_stay_within_their_memory_limit() {
    skip_unless!(mount);
    const COUNT: u32 = 200_000;
    for is_udp in [false, true] {
        let bytes = flood(COUNT, is_udp);
        let watched = Watched::new(&bytes);
        let flows = watched.daemon.status(ALIAS)["flows"].clone();
        let of = |name: &str| flows[name].as_u64().unwrap();
        assert_eq!(of("open") + of("closed") + of("evicted"), u64::from(COUNT), "{flows:#}");
        assert!(of("dropped") > 0, "the bound was not reached: {flows:#}");
        assert_eq!((of("engine_lost_packets"), of("undecodable")), (0, 0), "{flows:#}");
        let names = names(&watched.daemon);
        assert_eq!(names.len() as u64 + of("dropped"), u64::from(COUNT), "{flows:#}");
        // The newest flows stay.
        let first = u64::from(COUNT) - names.len() as u64 + 1;
        assert!(names[0].starts_with(&format!("{first:06}-")), "{} of {first}", names[0]);
        let newest = flow(&watched.daemon, u64::from(COUNT));
        assert_eq!(
            fs::read(newest.join("packets.pcap")).unwrap(),
            savefile([&lone(COUNT - 1, is_udp)])
        );
        assert_eq!(watched.daemon.count(ALIAS, "/packets/stored"), u64::from(COUNT));
        assert!(fs::read(watched.daemon.path("web/replay.pcap")).unwrap() == bytes);
        // The logs keep their newest lines and count the dropped ones.
        let told = count_lines(&watched.daemon.path("web/flows.jsonl"));
        assert_eq!(told + of("log_lines_dropped"), 2 * u64::from(COUNT), "{flows:#}");
        watched.check();
    }
}

#[test]
fn a_flood_of_syns_does_not_delay_the_capture() {
    skip_unless!(mount);
    const COUNT: u32 = 150_000;
    let fifo = Fifo::new();
    let daemon = frugal().ring("16M").capture(ALIAS, &fifo.source()).start();
    let mut feed = fifo.connect();
    let begun = Instant::now();
    for part in (0..COUNT).collect::<Vec<_>>().chunks(1_000) {
        let packets: Vec<_> = part.iter().map(|number| lone(*number, false)).collect();
        feed.write(&records(&packets));
    }
    daemon.wait_stored(ALIAS, u64::from(COUNT));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    wait_until("the engine has had them", 60, || {
        daemon.count(ALIAS, "/flows/engine_lag_packets") == 0
    });
    let status = daemon.status(ALIAS);
    adds_up(&status);
    assert_eq!(status["packets"]["seen"], COUNT, "{status:#}");
    let flows = &status["flows"];
    let of = |name: &str| flows[name].as_u64().unwrap();
    let seen = of("open") + of("closed") + of("evicted") + of("engine_lost_packets");
    assert_eq!(seen, u64::from(COUNT), "{flows:#}");
    assert!(memory(&daemon) <= ALLOWED, "{} MiB", memory(&daemon) / MIB);
    // A flow that begins now shows up at once.
    let asked = Instant::now();
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"still there");
    feed.write(&records(&talk.packets));
    wait_until("the new flow is there", 10, || {
        names(&daemon).last().is_some_and(|name| name.ends_with("10.0.0.1.40000-10.0.0.2.80"))
    });
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn listing_many_flows_page_by_page_gives_each_once() {
    skip_unless!(mount);
    const COUNT: u32 = 30_000;
    let filed = Filed::new(&flood(COUNT, true));
    let ls = run(tool("ls").arg("-U").arg(filed.daemon.path("web/flows")), 60).success();
    let listed: Vec<_> = ls.text().lines().collect();
    assert_eq!(listed.len(), COUNT as usize);
    for (id, name) in (1..).zip(&listed) {
        assert!(name.starts_with(&format!("{id:06}-")), "{name} at place {id}");
    }
}

// ---- Hard streams.

#[test]
fn segments_of_one_byte_make_the_same_stream() {
    skip_unless!(mount);
    let body = noise(1, 60_000);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").segments_of(1).every(1_000);
    talk.open().says(Client, "GET /one.bin HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
    talk.says(Server, &body).close(Client);
    let stream = talk.stream(Server).to_vec();
    let watched = Watched::new(&savefile_of([talk]));
    let folder = flow(&watched.daemon, 1);
    assert!(fs::read(folder.join("server.bin")).unwrap() == stream);
    assert!(fs::read(folder.join("bodies/0001-response-one.bin")).unwrap() == body);
}

#[test]
fn heads_that_never_end_are_given_up() {
    skip_unless!(mount);
    // One head goes on for 4 MiB. The other eighty stop before they reach a limit of their own;
    // together they reach the memory for flows less the fifth that is left for memory that cannot
    // be counted.
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open().says(Client, "GET / HTTP/1.1\r\nHost: a.example\r\n");
    for number in 0..40_000 {
        talk.says(Client, format!("X-Header-{number}: {}\r\n", "y".repeat(90)));
    }
    let stream = talk.stream(Client).to_vec();
    let mut talks = vec![talk];
    for number in 1..=80 {
        let mut talk = Conversation::tcp(&format!("10.3.0.{number}:40000"), "10.0.0.2:80")
            .every(1_000)
            .at(EPOCH + 500 + number);
        talk.open().says(Client, "GET / HTTP/1.1\r\nX: ").says(Client, vec![b'z'; 200_000]);
        talks.push(talk);
    }
    let watched = Watched::new(&savefile_of(talks));
    let told = lines(&flow(&watched.daemon, 1).join("http.jsonl"));
    assert_eq!(told[0]["state"], "malformed", "{:?}", told[0]["why"]);
    assert!(fs::read(flow(&watched.daemon, 1).join("client.bin")).unwrap() == stream);
}

#[test]
fn a_bomb_is_decoded_up_to_a_bound() {
    skip_unless!(mount, "python3");
    let bomb = gzip_of_zeros(1 << 30);
    let length = bomb.len();
    // A body is decoded in memory. Its own limits apply to it: 64 MiB and the ratio.
    let bytes = savefile_of([bombing("10.0.0.1:40000", &bomb)]);
    let filed = Filed::with(frugal(), &bytes);
    let records = filed.http(1);
    assert_eq!(records[1]["state"], "complete");
    assert_eq!(records[0]["why"], "response body: the decoded body is larger than allowed");
    let file = records[0]["response_body"]["file"].as_str().unwrap();
    let decoded = filed.read(1, file);
    assert_eq!(records[0]["response_body"]["bytes"], decoded.len());
    assert!(decoded.len() as u64 <= 64 * MIB, "{} bytes", decoded.len());
    assert!((1..=256).contains(&(decoded.len() / length)), "{} bytes of {length}", decoded.len());
    assert!(decoded.iter().all(|byte| *byte == 0));
    let transcript = String::from_utf8(filed.read(1, "http")).unwrap();
    let told = transcript.lines().any(|line| line.starts_with("---") && line.contains("larger"));
    assert!(told, "it is not marked as cut: {}", &transcript[..transcript.len().min(1_000)]);
    drop(filed.read(1, "http.har"));
    // Ten readers at the same time.
    let path = filed.file(1, file);
    let mut readers: Vec<_> = (0..10).map(|_| Running::spawn(tool("md5sum").arg(&path))).collect();
    let mut most = 0;
    for reader in &mut readers {
        wait_until("the reader is done", 60, || {
            most = most.max(memory(&filed.daemon));
            reader.try_wait().is_some()
        });
    }
    assert!(most <= ALLOWED + 4 * 64 * MIB, "{} MiB", most / MIB);
    drop(readers);
    // Afterwards the memory is given back, except for one HAR file and the memory the allocator
    // keeps.
    wait_until("the memory is given back", 20, || memory(&filed.daemon) <= ALLOWED + 2 * 64 * MIB);
}

/// A conversation that transfers a bomb.
fn bombing(client: &str, bomb: &[u8]) -> Conversation {
    let mut talk = Conversation::tcp(client, "10.0.0.2:80").every(1_000);
    talk.open().says(Client, "GET /bomb HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let length = bomb.len();
    talk.says(
        Server,
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"),
    );
    talk.says(Server, bomb);
    talk.says(Client, "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").close(Client);
    talk
}

#[test]
fn many_bombs_that_are_open_at_a_time() {
    skip_unless!(mount, "python3");
    const BOMBS: u64 = 8;
    // Number of decoded bodies that can be open at a time with so little memory for flows.
    const ROOM: usize = 4;
    let bomb = gzip_of_zeros(1 << 28);
    let talks = (0..BOMBS).map(|number| bombing(&format!("10.0.0.1:{}", 40_000 + number), &bomb));
    let filed = Filed::with(frugal(), &savefile_of(talks));
    let paths: Vec<_> = (1..=BOMBS)
        .map(|id| {
            let file = filed.http(id)[0]["response_body"]["file"].as_str().unwrap().to_owned();
            filed.file(id, &file)
        })
        .collect();
    let mut most = 0;
    let mut opened = Vec::new();
    for path in &paths {
        let file = File::open(path);
        most = most.max(memory(&filed.daemon));
        match file {
            Ok(file) => opened.push(file),
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::ENOMEM as i32), "{error}"),
        }
    }
    assert_eq!(opened.len(), ROOM);
    assert!(most <= ALLOWED + (ROOM as u64 + 2) * 64 * MIB, "{} MiB", most / MIB);
    // Opening the same file again takes no room, and closing files gives their room back.
    drop(File::open(&paths[0]).expect("it is open"));
    drop(opened);
    for path in &paths {
        wait_until("there is room again", 10, || File::open(path).is_ok());
    }
}

/// A conversation from which every other byte was not captured.
fn riddled(holes: u64) -> Conversation {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open();
    for number in 0..holes {
        talk.says(Server, [1]).unseen(Server, [2]);
        if number % 64 == 0 {
            talk.ack(Client);
        }
    }
    talk.says(Server, [3]).ack(Client).close(Server);
    talk
}

#[test]
fn long_lists_of_gaps_take_of_the_room_for_bodies() {
    skip_unless!(mount);
    // Number of decoded bodies that can be open at a time with so little memory for flows.
    const ROOM: u64 = 4;
    let bomb = gzip_of_zeros(1 << 28);
    let talks = (0..ROOM).map(|number| bombing(&format!("10.0.0.1:{}", 41_000 + number), &bomb));
    let filed = Filed::with(frugal(), &savefile_of(talks.chain([riddled(1_000)])));
    let holed = names(&filed.daemon).iter().position(|name| name.contains(".40000-")).unwrap() + 1;
    let long = filed.file(holed as u64, "meta.json");
    let size = fs::metadata(&long).unwrap().size();
    assert_eq!(fs::read(&long).unwrap().len() as u64, size);
    let bodies = (1..=ROOM + 1).filter(|id| *id != holed as u64).map(|id| {
        let file = filed.http(id)[0]["response_body"]["file"].as_str().unwrap().to_owned();
        File::open(filed.file(id, &file)).unwrap()
    });
    let bodies: Vec<_> = bodies.collect();
    let taken: u64 = bodies.iter().map(|body| body.metadata().unwrap().size()).sum();
    let left = (ROOM * 64 * MIB).strict_sub(taken) / size;
    let lists: Vec<_> = (0..left).map(|_| File::open(&long).unwrap()).collect();
    let error = File::open(&long).expect_err("there is no room");
    assert_eq!(error.raw_os_error(), Some(Errno::ENOMEM as i32), "{error}");
    assert_eq!(fs::metadata(&long).unwrap().size(), size, "it can be looked at");
    for id in (1..=ROOM + 1).filter(|id| *id != holed as u64) {
        assert_eq!(filed.meta(id)["id"], id, "short ones can be opened");
    }
    drop((bodies, lists));
    wait_until("there is room again", 10, || fs::read(&long).is_ok());
}

#[test]
fn a_stream_of_holes() {
    skip_unless!(mount);
    const HOLES: u64 = 65_535;
    let talk = riddled(HOLES);
    let length = talk.stream(Server).len();
    let watched = Watched::new(&savefile_of([talk]));
    let path = flow(&watched.daemon, 1).join("server.bin");
    assert_eq!(fs::metadata(&path).unwrap().size(), length as u64);
    let bytes = fs::read(&path).unwrap();
    let meta = meta(&watched.daemon, 1);
    let gaps = meta["server"]["gaps"].as_array().unwrap();
    assert!(!gaps.is_empty() && gaps.len() as u64 <= HOLES, "{}", gaps.len());
    // Exactly the listed gaps read as zeros.
    let mut wanted = vec![1; length];
    wanted[length - 1] = 3;
    let mut last = 0;
    for gap in gaps {
        let (start, end) = (gap[0].as_u64().unwrap(), gap[1].as_u64().unwrap());
        assert!(start >= last && end > start, "{gap}");
        last = end;
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        wanted[range].fill(0);
    }
    assert!(bytes == wanted, "server.bin is not what meta.json says");
    assert!(bytes[1..length].iter().step_by(2).take(1_000).all(|byte| *byte == 0));
    assert_eq!(watched.count("gaps"), gaps.len() as u64);
    let file = File::open(&path).unwrap();
    assert_eq!(lseek(&file, 0, Whence::SeekHole), Ok(1));
    let copy = tempfile::tempdir().unwrap();
    let mut cp = tool("cp");
    drop(run(cp.arg("--sparse=always").arg(&path).arg(copy.path()), 60).success());
    assert!(fs::read(copy.path().join("server.bin")).unwrap() == bytes);
}

#[test]
fn copies_that_contradict_each_other_are_counted() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open().says(Client, vec![b'a'; 1_000]);
    for number in 0..30_000u32 {
        let other = b'b' + u8::try_from(number % 20).unwrap();
        talk.again(Client, 1_000, ACK | PSH, &vec![other; 1_000]);
    }
    talk.ack(Server).close(Client);
    let watched = Watched::new(&savefile_of([talk]));
    assert_eq!(watched.count("overlap_conflicts"), 30_000);
    assert_eq!(fs::read(flow(&watched.daemon, 1).join("client.bin")).unwrap(), [b'a'; 1_000]);
}

#[test]
fn requests_without_answers() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open();
    for number in 0..50_000 {
        talk.says(Client, format!("GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    }
    talk.ack(Server).close(Client);
    let watched = Watched::new(&savefile_of([talk]));
    let told = lines(&flow(&watched.daemon, 1).join("http.jsonl"));
    assert_eq!(told.len(), 50_000);
    for (number, line) in told.iter().enumerate() {
        assert_eq!(line["target"], format!("/{number}"));
        assert_eq!((&line["status"], &line["state"]), (&Value::Null, &json!("truncated")));
    }
}

#[test]
fn chunks_of_one_byte() {
    skip_unless!(mount);
    let body = noise(1, 100_000);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open().says(Client, "GET /c HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.says(Server, chunked(&body, 1, "", "")).close(Server);
    let watched = Watched::new(&savefile_of([talk]));
    let record = lines(&flow(&watched.daemon, 1).join("http.jsonl")).remove(0);
    let file = record["response_body"]["file"].as_str().unwrap();
    let got = fs::read(flow(&watched.daemon, 1).join(file)).unwrap();
    assert!(got.len() > 60_000 && got == body[..got.len()], "{} bytes", got.len());
    let is_whole = got.len() == body.len();
    assert_eq!(record["state"], if is_whole { "complete" } else { "truncated" }, "{record:#}");
}

// ---- Fragments.

const HOSTS: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);

fn fragment(identification: u16, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let place = u16::try_from(offset / 8).unwrap() | if more { 0x2000 } else { 0 };
    ethernet(Client, &[], &ipv4_fragment(HOSTS, UDP, place, identification, bytes))
}

fn packets(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Packet> {
    let timed =
        |(at, data): (u64, Vec<u8>)| Packet { time: EPOCH + at * 1_000, data, from: Client };
    (0..).zip(frames).map(timed).collect()
}

fn datagram(bytes: &[u8]) -> Vec<u8> {
    let (here, there) = (IpAddr::from(HOSTS.0), IpAddr::from(HOSTS.1));
    udp((here, 5_000).into(), (there, 53).into(), bytes)
}

#[test]
fn fragments_are_put_together() {
    skip_unless!(mount);
    let body = noise(1, 4_000);
    let whole = datagram(&body);
    let part = |from: usize, to: usize| {
        fragment(9, from, to < whole.len(), &whole[from..to.min(whole.len())])
    };
    // The fragments are out of order, some come twice, and one of them holds only the UDP header.
    let first = [(0, 8), (8, 1_480)].map(|(from, to)| part(from, to));
    let frames = [vec![part(2_960, 4_440)], first.to_vec(), first.to_vec()].concat();
    let all = packets(frames.into_iter().chain([part(1_480, 2_960)]));
    let filed = Filed::new(&savefile(&all));
    assert!(filed.read(1, "client.bin") == body);
    let ids: Vec<_> = names(&filed.daemon);
    assert_eq!(ids, ["000001-udp-10.0.0.1.5000-10.0.0.2.53"]);
    // All fragments belong to the flow.
    assert!(
        filed.read(1, "packets.pcap") == fs::read(filed.daemon.path("web/replay.pcap")).unwrap()
    );
    let meta = filed.meta(1);
    assert_eq!(meta["client"]["packets"], all.len());
    let bytes: usize = all.iter().map(|packet| packet.data.len()).sum();
    assert_eq!(meta["client"]["bytes"], bytes);
    assert_ne!(meta["first"], meta["last"]);
}

#[test]
fn fragments_that_overlap_or_never_end() {
    skip_unless!(mount);
    let body = noise(2, 2_000);
    let whole = datagram(&body);
    let mut frames = Vec::new();
    // Teardrop: the second fragment lies within the first and has other bytes.
    for id in 0..1_000 {
        frames.push(fragment(id, 0, true, &whole[..1_480]));
        frames.push(fragment(id, 800, true, &[0xee; 400]));
        frames.push(fragment(id, 1_480, false, &whole[1_480..]));
    }
    // A fragment beyond the maximum packet length.
    frames.push(fragment(2_000, 65_528, true, &[1; 1_000]));
    // First fragments whose rest never comes.
    for id in 0..60_000 {
        frames.push(fragment(3_000u16.wrapping_add(id), 0, true, &whole[..1_480]));
    }
    // A correct datagram after all of them.
    frames.push(fragment(65_000, 0, true, &whole[..1_480]));
    frames.push(fragment(65_000, 1_480, false, &whole[1_480..]));
    let count = frames.len() as u64;
    let watched = Watched::new(&savefile(&packets(frames)));
    assert_eq!(watched.daemon.count(ALIAS, "/packets/stored"), count);
    let stream = fs::read(flow(&watched.daemon, 1).join("client.bin")).unwrap();
    assert!(stream.ends_with(&body), "the good one is not there");
    assert!(stream.len().is_multiple_of(body.len()), "{} bytes", stream.len());
    // Of the other datagrams, the part that was received, followed by a gap.
    let alone = [&body[..1_472], &vec![0; body.len() - 1_472]].concat();
    assert!(
        stream.chunks(body.len()).all(|one| one == body || one == alone),
        "a datagram with contradictory fragments was served"
    );
    let flows = watched.daemon.status(ALIAS)["flows"].clone();
    let packets = meta(&watched.daemon, 1)["client"]["packets"].as_u64().unwrap();
    assert_eq!(packets + flows["undecodable"].as_u64().unwrap(), count, "{flows:#}");
    assert_eq!(flows["undecodable_by"]["bad_fragment"], 1, "{flows:#}");
}

// ---- Garbage.

#[test]
fn broken_packets_are_counted_and_passed_over() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").every(1_000);
    talk.open();
    for turn in 0..200 {
        talk.says(Client, noise(turn, 300));
    }
    talk.close(Client);
    let stream = talk.stream(Client).to_vec();
    // Between the packets: noise, and packets of other flows that are cut short or have changed
    // bits.
    let mut all = Vec::new();
    let mut garbage = 0;
    for (at, packet) in (0u64..).zip(&talk.packets) {
        all.push(packet.clone());
        let mut cut = lone(77, at % 2 == 0).data;
        cut.truncate(usize::try_from(at % 54).unwrap());
        let mut turned = lone(78, at % 2 == 0).data;
        turned[14] = noise(at, 1)[0];
        for data in [noise(at, 200), cut, turned] {
            garbage += 1;
            all.push(Packet { time: packet.time, data, from: Client });
        }
    }
    let watched = Watched::new(&savefile(&all));
    assert_eq!(watched.daemon.count(ALIAS, "/packets/stored"), all.len() as u64);
    let undecodable = watched.count("undecodable");
    assert!(undecodable > 0 && undecodable <= garbage, "{undecodable} of {garbage}");
    assert!(fs::read(flow(&watched.daemon, 1).join("client.bin")).unwrap() == stream);
    let mut bytes = vec![0; 100];
    let replay = File::open(watched.daemon.path("web/replay.pcap")).unwrap();
    replay.read_exact_at(&mut bytes, 24).unwrap();
}

#[test]
fn packets_cut_by_a_snaplen_have_holes() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").segments_of(1_000);
    talk.open().says(Client, noise(1, 10_000)).ack(Server).close(Client);
    let format = Format { snaplen: 154, ..Format::default() };
    let mut bytes = format.header();
    for packet in &talk.packets {
        let kept = packet.data.len().min(154);
        format.append(&mut bytes, packet.time, &packet.data[..kept], packet.data.len());
    }
    let watched = Watched::new(&bytes);
    let mut wanted = talk.stream(Client).to_vec();
    let mut gaps = Vec::new();
    for start in (0..10_000).step_by(1_000) {
        wanted[start + 100..start + 1_000].fill(0);
        gaps.push(json!([start + 100, start + 1_000, "missing"]));
    }
    assert_eq!(meta(&watched.daemon, 1)["client"]["gaps"], Value::from(gaps));
    assert!(fs::read(flow(&watched.daemon, 1).join("client.bin")).unwrap() == wanted);
}
