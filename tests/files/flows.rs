//! Flows: connections as directories, while they grow, once they have ended, and when packets of
//! theirs are missing or gone.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Whence, lseek};
use pcapfs_tests::conversation::{
    ACK, EPOCH, PSH, Packet, SECOND, STEP, merged, noise, records, savefile, savefile_of,
};
use pcapfs_tests::flows::{everything, flow, json, lines, listed, meta, names, parsed, wait_flow};
use pcapfs_tests::savefile::{Format, Parser as _, PcapParser};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Fifo, Filed, Mount, Net, Running, Server, Side,
    Wired, python, run, skip_unless, tool, wait_until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Files of every flow.
const PLAIN: [&str; 4] = ["client.bin", "meta.json", "packets.pcap", "server.bin"];

/// A conversation between hosts of its own for each `number`, from port 40,000 to port 9,000.
fn talk(number: u8) -> Conversation {
    Conversation::tcp(&format!("10.1.0.{number}:40000"), &format!("10.2.0.{number}:9000"))
}

/// A request, and a response with a body.
fn exchange(talk: &mut Conversation, target: &str, body: &[u8]) {
    let length = body.len();
    talk.says(Client, format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    talk.says(Server, [head.as_bytes(), body].concat());
}

/// Feeds packets in, and waits until the engine has had them.
#[track_caller]
fn feed(fed: &mut Fed, packets: &[Packet]) {
    let stored = fed.daemon.count(ALIAS, "/packets/stored");
    fed.feed.write(&records(packets));
    fed.daemon.wait_stored(ALIAS, stored + packets.len() as u64);
    wait_settled(&fed.daemon);
}

#[track_caller]
fn wait_settled(daemon: &Daemon) {
    wait_until("the flow engine has had all packets", 20, || {
        daemon.count(ALIAS, "/flows/engine_lag_packets") == 0
    });
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).size()
}

/// Nanoseconds since the Unix epoch.
fn modified(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    u64::try_from(metadata.mtime()).unwrap() * SECOND
        + u64::try_from(metadata.mtime_nsec()).unwrap()
}

/// RFC 3339 with nanoseconds, by date(1).
fn rfc3339(nanoseconds: u64) -> String {
    let time = format!("@{}.{:09}", nanoseconds / SECOND, nanoseconds % SECOND);
    let output = run(tool("date").args(["-u", "-d", &time, "+%Y-%m-%dT%H:%M:%S.%NZ"]), 5);
    output.success().text().trim().to_owned()
}

/// The captures of one of each kind of flow: closed with HTTP, reset, IPv6, UDP, with a hole.
fn sundry() -> Vec<Conversation> {
    let mut http = talk(1);
    http.open();
    exchange(&mut http, "/first.txt", b"one\n");
    exchange(&mut http, "/second.bin", &noise(1, 70_000));
    http.close(Server);
    let mut reset = talk(2).at(EPOCH + 333);
    reset.open().says(Client, noise(2, 20_000)).says(Server, noise(3, 5)).reset(Server);
    let mut six = Conversation::tcp("[fd00::1]:40000", "[fd00::2]:9000").at(EPOCH + 555);
    six.open().says(Server, noise(4, 9_999)).close(Client);
    let mut udp = Conversation::udp("10.1.0.1:5353", "10.2.0.1:53").at(EPOCH + 777);
    udp.says(Client, b"question").says(Server, b"answer").says(Client, b"another");
    vec![http, reset, six, udp, holed(5).at_the_end()]
}

/// A conversation in which `server.bin` has a hole from 3,000 to 8,000.
struct Holed(Conversation);

fn holed(number: u8) -> Holed {
    let mut talk = talk(number).at(EPOCH + 999);
    talk.open().says(Server, noise(7, 3_000)).unseen(Server, noise(8, 5_000)).ack(Client);
    for part in noise(9, 60_000).chunks(1_000) {
        talk.says(Server, part).ack(Client);
    }
    Holed(talk)
}

impl Holed {
    fn at_the_end(mut self) -> Conversation {
        self.0.close(Server);
        self.0
    }

    /// What is served.
    fn served(&self) -> Vec<u8> {
        let mut bytes = self.0.stream(Server).to_vec();
        bytes[3_000..8_000].fill(0);
        bytes
    }
}

// ---- The tree.

#[test]
fn flows_appear_in_order_while_traffic_runs_and_ids_are_never_reused() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    assert_eq!(names(&fed.daemon), Vec::<String>::new());
    let mut expected = Vec::new();
    let mut time = EPOCH;
    // The same endpoints again and again, each time a connection of its own.
    for id in 1..=12u32 {
        let mut talk = match id % 4 {
            0 => Conversation::tcp("[fd00::1]:40000", "[fd00:0:0:1::2]:443"),
            1 => Conversation::tcp("10.0.0.1:43512", "10.0.0.2:80"),
            // Who begins is the client, whatever the ports say.
            2 => Conversation::tcp("10.0.0.2:80", "10.0.0.1:50000"),
            _ => Conversation::udp(&format!("10.0.0.1:{}", 1_000 + id), "10.0.0.2:53"),
        };
        talk = talk.at(time).numbered_from(id << 24, id << 23);
        if id % 4 == 3 {
            talk.says(Client, b"ask").says(Server, b"tell");
        } else {
            talk.open().says(Client, b"hello").close(Client);
        }
        time = talk.times().1 + SECOND;
        for (at, packet) in talk.packets.iter().enumerate() {
            feed(&mut fed, std::slice::from_ref(packet));
            if at == 0 {
                expected.push(talk.name(u64::from(id)));
            }
            assert_eq!(names(&fed.daemon), expected, "after packet {at} of flow {id}");
        }
        for name in PLAIN {
            assert!(flow(&fed.daemon, u64::from(id)).join(name).is_file(), "no {name} in {id}");
        }
    }
    assert_eq!(expected[0], "000001-tcp-10.0.0.1.43512-10.0.0.2.80");
    assert_eq!(expected[3], "000004-tcp-fd00::1.40000-fd00:0:0:1::2.443");
    let ls = run(tool("ls").arg(fed.daemon.path("web/flows")), 5).success();
    assert_eq!(ls.text().lines().collect::<Vec<_>>(), expected, "in the order of ls");
}

#[test]
fn only_flows_with_http_have_its_files() {
    skip_unless!(mount);
    let filed = Filed::of(sundry());
    for (id, has_http) in [(1, true), (2, false), (3, false), (4, false), (5, false)] {
        let mut expected: Vec<_> = PLAIN.into();
        if has_http {
            expected.extend(["bodies", "http", "http.har", "http.jsonl"]);
            expected.sort_unstable();
        }
        assert_eq!(listed(&flow(&filed.daemon, id)), expected, "flow {id}");
    }
    assert_eq!(
        listed(&filed.file(1, "bodies")),
        ["0001-response-first.txt", "0002-response-second.bin"]
    );
    for absent in ["000006-tcp-1.2.3.4.5-6.7.8.9.10", "1", "../nothing", "000001"] {
        let path = filed.daemon.path("web/flows").join(absent);
        assert!(!path.exists(), "{absent}");
    }
}

#[test]
fn find_and_du_walk_through_all_flows() {
    skip_unless!(mount);
    let filed = Filed::of(sundry());
    let found = run(tool("find").arg(filed.daemon.path("web/flows")).args(["-type", "f"]), 10);
    let files = everything(&filed.daemon.path("web/flows"));
    let files = files.iter().filter(|(_, bytes)| bytes.is_some()).count();
    assert_eq!(found.success().text().lines().count(), files);
    let mut du = tool("du");
    drop(run(du.args(["-a", "--apparent-size"]).arg(filed.daemon.path("web/flows")), 10).success());
}

// ---- Growing.

#[test]
fn tail_follows_every_file_of_an_open_flow() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1);
    talk.open();
    exchange(&mut talk, "/0", b"zero\n");
    feed(&mut fed, &talk.packets);
    let folder = flow(&fed.daemon, 1);
    wait_until("HTTP is seen", 5, || folder.join("http").exists());
    let mut files: Vec<PathBuf> =
        ["client.bin", "server.bin", "packets.pcap", "http", "http.jsonl"]
            .map(|name| folder.join(name))
            .into();
    files.extend(["http.jsonl", "flows.jsonl"].map(|name| fed.daemon.path("web").join(name)));
    let tails: Vec<_> = files
        .iter()
        .map(|file| Running::spawn(tool("tail").args(["-f", "-c", "+1"]).arg(file)))
        .collect();

    let mut sizes = vec![0; files.len()];
    for turn in 1..=6 {
        let before = talk.packets.len();
        exchange(&mut talk, &format!("/{turn}"), format!("body {turn}\n").as_bytes());
        // Step by step, so that each file is looked at in the middle of things.
        for at in before..talk.packets.len() {
            feed(&mut fed, &talk.packets[at..=at]);
            for (file, last) in files.iter().zip(&mut sizes) {
                let now = size(file);
                assert!(now >= *last, "{} shrinks from {last} to {now}", file.display());
                *last = now;
                let cat = run(tool("cat").arg(file), 5).success();
                assert!(cat.stdout.len() as u64 >= now, "{}", file.display());
            }
        }
        wait_until("the transaction is told", 5, || {
            lines(&folder.join("http.jsonl")).len() == turn + 1
        });
        for (file, tail) in files.iter().zip(&tails) {
            let wanted = fs::read(file).unwrap();
            tail.wait_stdout(&format!("all of {}", file.display()), 5, |got| {
                got.len() >= wanted.len()
            });
            assert!(tail.stdout() == wanted, "{} as tail has it", file.display());
            assert!(!tail.stderr().contains("truncated"), "{}", tail.stderr());
        }
    }
    let text = String::from_utf8(fs::read(folder.join("http")).unwrap()).unwrap();
    for turn in 0..=6 {
        assert!(text.contains(&format!("GET /{turn} HTTP/1.1\nHost: shop.example\n")), "{text}");
    }
    assert!(text.contains("\nbody 6\n"), "{text}");
    assert_eq!(fs::read(folder.join("client.bin")).unwrap(), talk.stream(Client));
    assert_eq!(fs::read(folder.join("server.bin")).unwrap(), talk.stream(Server));
    assert_eq!(fs::read(folder.join("packets.pcap")).unwrap(), savefile(&talk.packets));

    // The end comes, and whoever follows has all of it.
    let before = talk.packets.len();
    talk.close(Client);
    feed(&mut fed, &talk.packets[before..]);
    wait_flow(&fed.daemon, 1, "closed");
    wait_until("the end is told", 5, || lines(&fed.daemon.path("web/flows.jsonl")).len() == 2);
    for (file, tail) in files.iter().zip(&tails) {
        let wanted = fs::read(file).unwrap();
        tail.wait_stdout("the rest", 5, |got| got.len() >= wanted.len());
        assert!(tail.stdout() == wanted, "{} as tail has it", file.display());
    }
}

#[test]
fn an_open_file_goes_on_behind_its_end_and_any_offset_is_right() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1).segments_of(777);
    talk.open().says(Client, noise(1, 5_000));
    feed(&mut fed, &talk.packets);
    let path = flow(&fed.daemon, 1).join("client.bin");
    let mut file = File::open(&path).unwrap();
    let mut got = Vec::new();
    for turn in 0..4 {
        file.read_to_end(&mut got).unwrap();
        assert!(got == talk.stream(Client), "turn {turn}: {} bytes", got.len());
        assert_eq!(file.metadata().unwrap().size(), got.len() as u64);
        for (offset, length) in [(0, 1), (776, 3), (4_999, 1), (1, 3_000), (777 * 3, 777)] {
            let mut part = vec![0; length];
            file.read_exact_at(&mut part, offset as u64).unwrap();
            assert!(part == got[offset..offset + length], "{length} bytes at {offset}");
        }
        assert_eq!(file.read_at(&mut [0], got.len() as u64).unwrap(), 0);
        let before = talk.packets.len();
        talk.says(Client, noise(turn, 3_333));
        feed(&mut fed, &talk.packets[before..]);
    }
}

#[test]
fn reading_a_growing_flow_comes_to_an_end_under_load() {
    skip_unless!(root);
    let wired = Wired::start();
    let listener = wired.net.a.run(|| TcpListener::bind((Net::ADDRESS, 9_000)).unwrap());
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let stream = wired.net.b.run(|| TcpStream::connect((Net::ADDRESS, 9_000)).unwrap());
    let sender = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || {
            let mut sent = 0;
            let begin = std::time::Instant::now();
            // Until the reader hangs up; never more than the ring takes.
            for seed in 0..4_000 {
                let part = noise(seed, 8_192);
                if begin.elapsed().as_secs() > 30 || stream.write_all(&part).is_err() {
                    break;
                }
                sent += part.len();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            sent
        }
    });
    let path = flow(&wired.daemon, 1).join("client.bin");
    let mut last = 0;
    for _ in 0..20 {
        let promised = size(&path);
        assert!(promised >= last, "it shrinks from {last} to {promised}");
        let cat = run(tool("cat").arg(&path), 10).success();
        assert!(cat.stdout.len() as u64 >= promised);
        let wanted: Vec<u8> = (0..)
            .take_while(|seed| seed * 8_192 < cat.stdout.len() as u64)
            .flat_map(|seed| noise(seed, 8_192))
            .collect();
        // The ring may have dropped the beginning by now.
        let beginning = meta(&wired.daemon, 1)["client"]["gaps"].clone();
        assert_eq!(beginning, json!([]), "64 MiB are enough for this test");
        assert!(cat.stdout == wanted[..cat.stdout.len()], "after {} bytes", cat.stdout.len());
        last = cat.stdout.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let (sent, received) = (sender.join().unwrap(), sink.join().unwrap());
    assert!(sent as u64 >= last && received >= last);
}

// ---- Fixed.

#[test]
fn copies_of_closed_flows_are_exact_and_keep_their_times() {
    skip_unless!(mount, "rsync");
    let filed = Filed::of(sundry());
    let flows = filed.daemon.path("web/flows");
    let one = flow(&filed.daemon, 1);
    let folder = TempDir::new().unwrap();
    for (number, source) in [&one, &flows].into_iter().enumerate() {
        let original = everything(source);
        let at = |name: &str| folder.path().join(format!("{name}-{number}"));
        let shell = |script: &str, to: &Path| {
            fs::create_dir_all(to).unwrap();
            let mut sh = tool("sh");
            drop(run(sh.arg("-euc").arg(script).arg("sh").arg(source).arg(to), 30).success());
        };
        let copies = [
            ("cp-r", r#"cp -r "$1/." "$2""#, false),
            ("cp-a", r#"cp -a "$1/." "$2""#, true),
            ("rsync", r#"rsync -a "$1/" "$2""#, true),
            ("tar", r#"tar --format=posix -C "$1" -cf - . | tar -C "$2" -xf -"#, true),
        ];
        for (name, script, keeps_times) in copies {
            let copy = at(name);
            shell(script, &copy);
            assert!(everything(&copy) == original, "{name} of {}", source.display());
            if keeps_times {
                for (path, _) in &original {
                    let times = [source, &copy].map(|folder| modified(&folder.join(path)));
                    assert_eq!(times[0], times[1], "{name} of {}", path.display());
                }
            }
        }
        // Nothing left to do: sizes and times agree, and so does every byte.
        for more in ["-ain", "-ainc"] {
            let mut command = tool("rsync");
            command.arg(more).arg(format!("{}/", source.display())).arg(at("rsync"));
            assert_eq!(run(&mut command, 30).success().text(), "", "rsync {more}");
        }
        drop(run(tool("diff").arg("-r").arg(source).arg(at("cp-r")), 30).success());
    }
}

#[test]
fn times_of_files_are_times_of_packets() {
    skip_unless!(mount);
    let talks = sundry();
    let spans: Vec<_> = talks.iter().map(Conversation::times).collect();
    let filed = Filed::of(talks);
    for (id, (first, last)) in (1..).zip(spans) {
        let folder = flow(&filed.daemon, id);
        for name in ["", "meta.json", "packets.pcap"] {
            assert_eq!(modified(&folder.join(name)), last, "{name:?} of flow {id}");
        }
        for (name, _) in everything(&folder) {
            let time = modified(&folder.join(&name));
            assert!((first..=last).contains(&time), "{} of flow {id}: {time}", name.display());
        }
        let meta = filed.meta(id);
        assert_eq!(meta["first"], rfc3339(first));
        assert_eq!(meta["last"], rfc3339(last));
    }
}

#[test]
fn a_closed_flow_changes_no_more() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut one = talk(1);
    one.open();
    exchange(&mut one, "/", b"body");
    one.close(Client);
    feed(&mut fed, &one.packets);
    wait_flow(&fed.daemon, 1, "closed");
    let folder = flow(&fed.daemon, 1);
    let look = || {
        let stat = |path: &Path| (size(path), modified(path), fs::metadata(path).unwrap().ino());
        let all = everything(&folder);
        all.into_iter()
            .map(|(name, bytes)| (stat(&folder.join(&name)), name, bytes))
            .collect::<Vec<_>>()
    };
    let before = look();
    let mut two = talk(2).at(one.times().1 + 100 * SECOND);
    two.open();
    exchange(&mut two, "/", b"body");
    feed(&mut fed, &two.packets);
    assert!(look() == before);
}

// ---- packets.pcap.

#[test]
fn packets_pcap_has_the_packets_of_its_flow_and_no_others() {
    skip_unless!(mount, "tcpdump", "tshark", "capinfos");
    let talks = sundry();
    let filed = Filed::of(talks.clone());
    // What replay has of each, in its order.
    let replay = fs::read(filed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(replay, savefile_of(talks.clone()));
    for (id, talk) in (1..).zip(&talks) {
        let path = filed.file(id, "packets.pcap");
        let bytes = fs::read(&path).unwrap();
        let own: std::collections::HashSet<_> =
            talk.packets.iter().map(|packet| (packet.time, packet.data.clone())).collect();
        let mut selected = Format::default().header();
        let mut parser = PcapParser::default();
        parser
            .push(&replay, &mut |record| {
                if own.contains(&(record.timestamp, record.data.to_vec())) {
                    let length = record.original_length as usize;
                    Format::default().append(&mut selected, record.timestamp, record.data, length);
                }
                Ok(())
            })
            .unwrap();
        assert!(bytes == selected, "flow {id}");
        assert_eq!(bytes.len() as u64, size(&path));
        assert_eq!(bytes[..4], [0x4d, 0x3c, 0xb2, 0xa1], "not the nanosecond magic");

        let count = talk.packets.len();
        let tcpdump = run(tool("tcpdump").args(["-nn", "-r"]).arg(&path), 10).success();
        assert_eq!(tcpdump.text().lines().count(), count, "tcpdump, flow {id}");
        let mut tshark = tool("tshark");
        tshark.args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-r"]).arg(&path);
        let tshark = run(&mut tshark, 20).success();
        let times: Vec<_> = tshark.text().lines().map(str::to_owned).collect();
        let wanted: Vec<_> = talk
            .packets
            .iter()
            .map(|packet| format!("{}.{:09}", packet.time / SECOND, packet.time % SECOND))
            .collect();
        assert_eq!(times, wanted, "tshark, flow {id}");
        let capinfos = run(tool("capinfos").args(["-c", "-M", "-T", "-r"]).arg(&path), 10);
        let capinfos = capinfos.success();
        assert!(capinfos.text().trim_end().ends_with(&format!("\t{count}")), "{}", capinfos.text());
    }
}

#[test]
fn packets_pcap_of_another_format_says_what_the_capture_says() {
    skip_unless!(mount, "tcpdump");
    let mut talk = talk(1);
    talk.open().says(Client, b"hello").close(Client);
    for (nanoseconds, big_endian) in [(false, false), (false, true), (true, true)] {
        let format = Format { nanoseconds, big_endian, ..Format::default() };
        let mut bytes = format.header();
        for packet in &talk.packets {
            format.append(&mut bytes, packet.time, &packet.data, packet.data.len());
        }
        let filed = Filed::new(&bytes);
        let path = filed.file(1, "packets.pcap");
        let replay = fs::read(filed.daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), replay, "{format:?}");
        assert_eq!(filed.read(1, "client.bin"), b"hello");
        let output = run(tool("tcpdump").args(["-nn", "-r"]).arg(&path), 5).success();
        assert_eq!(output.text().lines().count(), talk.packets.len());
    }
}

// ---- UDP.

#[test]
fn a_udp_conversation_is_its_payloads_back_to_back() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = Conversation::udp("10.0.0.1:5000", "10.0.0.2:53");
    for turn in 0..20 {
        let before = talk.packets.len();
        talk.says(Client, noise(turn, 100 + usize::try_from(turn).unwrap()));
        talk.says(Server, noise(turn + 50, 1_000));
        feed(&mut fed, &talk.packets[before..]);
        for (side, name) in [(Client, "client.bin"), (Server, "server.bin")] {
            let bytes = fs::read(flow(&fed.daemon, 1).join(name)).unwrap();
            assert!(bytes == talk.stream(side), "{name} after turn {turn}");
        }
    }
    // A datagram captured twice is two datagrams.
    let before = talk.packets.len();
    talk.repeat();
    feed(&mut fed, &talk.packets[before..]);
    let mut wanted = talk.stream(Server).to_vec();
    wanted.extend(noise(69, 1_000));
    assert!(fs::read(flow(&fed.daemon, 1).join("server.bin")).unwrap() == wanted);
    let meta = meta(&fed.daemon, 1);
    assert_eq!(
        (&meta["protocol"], &meta["state"], &meta["application"]),
        (&json!("udp"), &json!("open"), &json!("unknown"))
    );
    assert_eq!(meta["server"]["packets"], 21);
}

// ---- meta.json.

/// Whether a value is what a word says: `int`, `text`, `null`, `time`, ... joined by `|`.
fn is_of(value: &Value, kinds: &str) -> bool {
    kinds.split('|').any(|kind| match kind {
        "int" => value.is_u64(),
        "text" => value.is_string(),
        "null" => value.is_null(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        "time" => value.as_str().is_some_and(|text| {
            text.len() == "2023-11-14T22:13:20.000000000Z".len() && text.ends_with('Z')
        }),
        word => value == word,
    })
}

#[track_caller]
fn has_fields(value: &Value, fields: &[(&str, &str)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for (name, kinds) in fields {
        let field = object.get(*name).unwrap_or_else(|| panic!("no {name} in {value:#}"));
        assert!(is_of(field, kinds), "{name} is no {kinds} but {field}");
    }
    let known = |name: &str| fields.iter().any(|(field, _)| *field == name);
    let extra: Vec<_> = object.keys().filter(|name| !known(name)).collect();
    assert!(extra.is_empty(), "{extra:?} beside what is documented");
}

#[track_caller]
fn is_meta(meta: &Value) {
    has_fields(
        meta,
        &[
            ("id", "int"),
            ("name", "text"),
            ("protocol", "tcp|udp"),
            ("application", "http|tls|unknown"),
            ("state", "opening|open|closing|closed|reset|timed_out|evicted|midstream"),
            ("closed_by", "client|server|null"),
            ("client", "object"),
            ("server", "object"),
            ("vlan", "list"),
            ("tunnel", "object|null"),
            ("first", "time"),
            ("last", "time"),
            ("handshake_us", "int|null"),
            ("tls", "object|null"),
            ("http", "object|null"),
        ],
    );
    for side in ["client", "server"] {
        has_fields(
            &meta[side],
            &[
                ("address", "text"),
                ("port", "int"),
                ("packets", "int"),
                ("bytes", "int"),
                ("stream_bytes", "int"),
                ("retransmitted", "int"),
                ("out_of_order", "int"),
                ("overlapping", "int"),
                ("gaps", "list"),
            ],
        );
        for gap in meta[side]["gaps"].as_array().unwrap() {
            assert!(gap[0].is_u64() && gap[1].as_u64() > gap[0].as_u64(), "{gap}");
            assert!(is_of(&gap[2], "missing|expired"), "{gap}");
        }
    }
    if !meta["tls"].is_null() {
        let fields = [("sni", "text|null"), ("alpn", "text|null"), ("version", "text|null")];
        has_fields(&meta["tls"], &fields);
    }
    if !meta["http"].is_null() {
        has_fields(&meta["http"], &[("transactions", "int"), ("incomplete", "int")]);
    }
}

#[track_caller]
fn one(talk: &Conversation) -> Value {
    let filed = Filed::of([talk.clone()]);
    let meta = filed.meta(1);
    is_meta(&meta);
    assert_eq!(meta["name"], talk.name(1));
    assert_eq!(meta["id"], 1);
    for (side, role) in [(Client, "client"), (Server, "server")] {
        assert_eq!(meta[role]["packets"], talk.count(side), "{role} in {meta:#}");
        assert_eq!(meta[role]["bytes"], talk.bytes(side), "{role} in {meta:#}");
    }
    let log = lines(&filed.daemon.path("web/flows.jsonl"));
    assert_eq!(log.len(), 2, "{log:#?}");
    is_meta(&log[0]);
    assert_eq!(log[1], meta, "the line of the end is meta.json");
    meta
}

#[test]
fn meta_of_a_clean_close() {
    skip_unless!(mount);
    for by in [Client, Server] {
        let mut talk = talk(1);
        talk.open();
        exchange(&mut talk, "/x", b"body");
        talk.close(by);
        let meta = one(&talk);
        assert_eq!(meta["state"], "closed");
        assert_eq!(meta["closed_by"], if by == Client { "client" } else { "server" });
        assert_eq!((&meta["application"], &meta["protocol"]), (&json!("http"), &json!("tcp")));
        assert_eq!(meta["http"], json!({"transactions": 1, "incomplete": 0}));
        assert_eq!(meta["client"]["address"], "10.1.0.1");
        assert_eq!(meta["client"]["port"], 40_000);
        assert_eq!(meta["server"]["address"], "10.2.0.1");
        assert_eq!(meta["server"]["port"], 9_000);
        assert_eq!(meta["client"]["stream_bytes"], talk.stream(Client).len());
        assert_eq!(meta["server"]["stream_bytes"], talk.stream(Server).len());
        // From SYN to the ACK that ends the handshake, two steps.
        assert_eq!(meta["handshake_us"], 2 * STEP / 1_000);
        for field in ["tls", "tunnel"] {
            assert_eq!(meta[field], Value::Null, "{field}");
        }
        assert_eq!(meta["vlan"], json!([]));
    }
}

#[test]
fn meta_of_flows_that_do_not_end_well() {
    skip_unless!(mount);
    let mut reset = talk(1);
    reset.open().says(Client, b"hello").reset(Server);
    let meta = one(&reset);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("reset"), &json!("server")));

    let mut opening = talk(1);
    opening.syn();
    let meta = one(&opening);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("opening"), &Value::Null));
    assert_eq!(meta["handshake_us"], Value::Null);
    assert_eq!(meta["server"]["packets"], 0);

    let mut open = talk(1);
    open.open().says(Client, b"hello");
    assert_eq!(one(&open)["state"], "open");

    let mut closing = talk(1);
    closing.open().says(Client, b"hello").fin(Client).ack(Server);
    assert_eq!(one(&closing)["state"], "closing");

    let mut middle = talk(1);
    middle.says(Client, noise(1, 100)).says(Server, noise(2, 200)).ack(Client);
    let meta = one(&middle);
    assert_eq!(meta["state"], "midstream");
    assert_eq!(meta["handshake_us"], Value::Null);
    assert_eq!(meta["client"]["stream_bytes"], 100);
    assert_eq!(meta["server"]["stream_bytes"], 200);

    let mut late = talk(1);
    late.says(Client, b"only the end").close(Client);
    let meta = one(&late);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("closed"), &json!("client")));
}

#[test]
fn silence_ends_flows() {
    skip_unless!(mount);
    let mut silent = talk(1);
    silent.open().says(Client, b"hello");
    let mut unanswered = talk(2).at(EPOCH + 500);
    unanswered.syn();
    let mut asked = Conversation::udp("10.0.0.1:5000", "10.0.0.2:53").at(EPOCH + 600);
    asked.says(Client, b"question").says(Server, b"answer");
    let mut other = talk(3).at(EPOCH + 10 * 3_600 * SECOND);
    other.open();
    let talks = [silent, unanswered, asked, other];
    let last: Vec<_> = talks.iter().map(|talk| talk.times().1).collect();
    let mut fed = Fed::start();
    feed(&mut fed, &merged(talks.clone()));
    for (id, last) in (1..=3).zip(last) {
        let meta = wait_flow(&fed.daemon, id, "timed_out");
        is_meta(&meta);
        assert_eq!(meta["last"], rfc3339(last));
        assert_eq!(meta["closed_by"], Value::Null);
    }
    assert_eq!(meta(&fed.daemon, 4)["state"], "open");
    // What comes now is another connection, or another conversation.
    let mut again =
        Conversation::udp("10.0.0.1:5000", "10.0.0.2:53").at(EPOCH + 10 * 3_601 * SECOND);
    again.says(Client, b"again");
    feed(&mut fed, &again.packets);
    assert_eq!(fs::read(flow(&fed.daemon, 5).join("client.bin")).unwrap(), b"again");
    assert_eq!(fs::read(flow(&fed.daemon, 3).join("client.bin")).unwrap(), b"question");
}

#[test]
fn too_many_flows_evict_the_oldest() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--max-flows", "10"]));
    let mut talks = Vec::new();
    for number in 0..25 {
        let mut talk = talk(number).at(EPOCH + u64::from(number) * SECOND / 10);
        talk.open().says(Client, [number]);
        talks.push(talk);
    }
    let wanted: Vec<_> = (1..).zip(&talks).map(|(id, talk)| talk.name(id)).collect();
    for talk in &talks {
        feed(&mut fed, &talk.packets);
    }
    wait_until("only the newest are left", 10, || names(&fed.daemon) == wanted[15..]);
    wait_until("their end is told", 5, || lines(&fed.daemon.path("web/flows.jsonl")).len() >= 40);
    let log = lines(&fed.daemon.path("web/flows.jsonl"));
    let evicted: Vec<_> = log.iter().filter(|line| line["state"] == "evicted").collect();
    assert_eq!(evicted.len(), 15);
    for (id, line) in (1..).zip(evicted) {
        is_meta(line);
        assert_eq!(line["id"], id);
        assert_eq!(line["client"]["stream_bytes"], 1);
    }
    assert_eq!(fed.daemon.count(ALIAS, "/flows/evicted"), 15);
    assert_eq!(fed.daemon.count(ALIAS, "/flows/open"), 10);
}

#[test]
fn meta_tells_vlans_and_tunnels() {
    skip_unless!(mount);
    let mut tagged = talk(1).tagged(&[100]);
    tagged.open().says(Client, b"hello").close(Client);
    assert_eq!(one(&tagged)["vlan"], json!([100]));
    let mut twice = talk(1).tagged(&[2_000, 7]);
    twice.open().says(Client, b"hello").close(Client);
    assert_eq!(one(&twice)["vlan"], json!([2_000, 7]));

    let tunnels = [
        ("vxlan", json!(4_242), talk(1).in_vxlan(4_242)),
        ("gre", Value::Null, talk(1).in_gre()),
        ("vxlan", json!(5), Conversation::tcp("[fd00::1]:1", "[fd00::2]:2").in_vxlan(5)),
    ];
    for (kind, id, mut talk) in tunnels {
        talk.open().says(Client, b"hello").says(Server, b"world").close(Client);
        let meta = one(&talk);
        let tunnel = &meta["tunnel"];
        assert_eq!((&tunnel["kind"], &tunnel["id"]), (&json!(kind), &id), "{tunnel}");
        assert_eq!(tunnel["source"], "192.0.2.1");
        assert_eq!(tunnel["destination"], "192.0.2.2");
        let filed = Filed::of([talk.clone()]);
        assert_eq!(filed.read(1, "client.bin"), b"hello");
        assert_eq!(filed.read(1, "server.bin"), b"world");
        assert_eq!(filed.read(1, "packets.pcap"), savefile(&talk.packets));

        // On request, the outer packet is the packet.
        let outer = Filed::with(Mount::new().arg("--no-tunnels"), &savefile_of([talk]));
        let names = names(&outer.daemon);
        assert!(names.iter().all(|name| name.contains("-192.0.2.1.")), "{names:?}");
        assert_eq!(names.len(), usize::from(kind == "vxlan") * 2);
    }
}

#[test]
fn the_same_addresses_in_two_networks_are_two_flows() {
    skip_unless!(mount);
    let networks = [
        talk(1),
        talk(1).tagged(&[1]),
        talk(1).tagged(&[2]),
        talk(1).in_vxlan(1),
        talk(1).in_vxlan(2),
    ];
    let talks: Vec<_> = (0..)
        .zip(networks)
        .map(|(at, talk)| {
            let mut talk = talk.at(EPOCH + u64::from(at) * 100);
            talk.open().says(Client, [at; 10]).close(Client);
            talk
        })
        .collect();
    let filed = Filed::of(talks);
    for (id, at) in (1..=5).zip(0..) {
        assert_eq!(filed.read(id, "client.bin"), [at; 10], "flow {id}");
    }
}

#[test]
fn meta_counts_what_came_again_or_late() {
    skip_unless!(mount);
    let mut talk = talk(1);
    talk.open();
    talk.says(Client, b"once").repeat().repeat().ack(Server);
    talk.says(Client, b"first ").says(Client, b"second").swap().ack(Server);
    // Half of it old, half of it new.
    let old = talk.stream(Client)[10..].to_vec();
    talk.again(Client, 6, ACK | PSH, &[&old[..], b" third"].concat());
    let mut wanted = talk.stream(Client).to_vec();
    wanted.extend(b" third");
    // The builder knows nothing of it: sequence numbers go on behind.
    let mut number = talk.next(Client).wrapping_add(6);
    for part in [&b" fourth"[..], b"!"] {
        let peer = talk.next(Server);
        talk.raw(Client, number, peer, ACK | PSH, part);
        number = number.wrapping_add(u32::try_from(part.len()).unwrap());
        wanted.extend_from_slice(part);
    }
    let meta = one(&talk);
    assert_eq!(meta["client"]["retransmitted"], 2);
    assert_eq!(meta["client"]["out_of_order"], 1);
    assert_eq!(meta["client"]["overlapping"], 1);
    for field in ["retransmitted", "out_of_order", "overlapping"] {
        assert_eq!(meta["server"][field], 0, "{field}");
    }
    assert_eq!(meta["client"]["gaps"], json!([]));
    let filed = Filed::of([talk]);
    assert_eq!(filed.read(1, "client.bin"), wanted);
}

#[test]
fn meta_lists_missing_ranges() {
    skip_unless!(mount);
    let talk = holed(1).at_the_end();
    let meta = one(&talk);
    assert_eq!(meta["server"]["gaps"], json!([[3_000, 8_000, "missing"]]));
    assert_eq!(meta["server"]["stream_bytes"], talk.stream(Server).len());
    assert_eq!(meta["client"]["gaps"], json!([]));
    let filed = Filed::of([talk]);
    assert_eq!(filed.daemon.count(ALIAS, "/flows/gaps"), 1);
}

/// A ServerHello of TLS 1.2 that has chosen `h2`, in its record.
fn server_hello() -> Vec<u8> {
    let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    let mut body = vec![3, 3];
    body.extend(noise(1, 32));
    body.extend([0, 0xc0, 0x2f, 0]);
    body.extend(u16::try_from(alpn.len()).unwrap().to_be_bytes());
    body.extend(alpn);
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 3];
    record.extend((length + 4).to_be_bytes());
    record.extend([2, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn meta_tells_what_tls_says_in_the_clear() {
    skip_unless!(mount, "python3");
    let program = "
import ssl, sys
context = ssl.create_default_context()
context.set_alpn_protocols(['h2', 'http/1.1'])
out = ssl.MemoryBIO()
tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname='shop.example')
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    sys.stdout.buffer.write(out.read())
";
    let hello = run(&mut python(program), 10).success().stdout;
    // On any port, in one segment or in many.
    for most in [1_460, 50] {
        let mut talk = talk(1).segments_of(most);
        talk.open().says(Client, &hello).says(Server, server_hello());
        talk.says(Client, noise(5, 500)).says(Server, noise(6, 5_000)).close(Client);
        let meta = one(&talk);
        assert_eq!(meta["application"], "tls");
        assert_eq!(meta["tls"]["sni"], "shop.example");
        assert_eq!(meta["tls"]["alpn"], "h2");
        let version = meta["tls"]["version"].as_str().unwrap_or_default();
        assert!(version.contains("1.2"), "{meta:#}");
        assert_eq!(meta["http"], Value::Null);
    }
    // The client alone says what it offers.
    let mut half = talk(1);
    half.open().says(Client, &hello).reset(Server);
    let meta = one(&half);
    assert_eq!(
        (&meta["application"], &meta["tls"]["sni"]),
        (&json!("tls"), &json!("shop.example"))
    );
}

#[test]
fn the_log_has_a_line_when_a_flow_opens_and_one_when_it_ends() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let log = fed.daemon.path("web/flows.jsonl");
    assert_eq!(fs::read(&log).unwrap(), b"");
    let mut talk = talk(1);
    talk.syn();
    feed(&mut fed, &talk.packets);
    wait_until("it is told", 5, || lines(&log).len() == 1);
    let first = lines(&log).remove(0);
    is_meta(&first);
    assert_eq!((&first["id"], &first["state"]), (&json!(1), &json!("opening")));
    assert_eq!(first["name"], talk.name(1));
    let before = talk.packets.len();
    talk.syn_ack().ack(Client).says(Client, b"hello").says(Server, b"world").close(Server);
    feed(&mut fed, &talk.packets[before..]);
    let meta = wait_flow(&fed.daemon, 1, "closed");
    wait_until("its end is told", 5, || lines(&log).len() == 2);
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(parsed(&text), [first, meta]);
    assert!(text.ends_with(&fs::read_to_string(flow(&fed.daemon, 1).join("meta.json")).unwrap()));
}

// ---- Holes.

#[test]
fn lseek_finds_the_holes_of_a_stream() {
    skip_unless!(mount);
    let holed = holed(1);
    let served = holed.served();
    let filed = Filed::of([holed.at_the_end()]);
    let path = filed.file(1, "server.bin");
    let file = File::open(&path).unwrap();
    let end = i64::try_from(served.len()).unwrap();
    for (from, hole, data) in [
        (0, Some(3_000), Some(0)),
        (2_999, Some(3_000), Some(2_999)),
        (3_000, Some(3_000), Some(8_000)),
        (7_999, Some(7_999), Some(8_000)),
        (8_000, Some(end), Some(8_000)),
        (end - 1, Some(end), Some(end - 1)),
        (end, None, None),
    ] {
        assert_eq!(lseek(&file, from, Whence::SeekHole).ok(), hole, "hole from {from}");
        assert_eq!(lseek(&file, from, Whence::SeekData).ok(), data, "data from {from}");
    }
    assert!(fs::read(&path).unwrap() == served);
    // A stream without holes is all data.
    let client = File::open(filed.file(1, "client.bin")).unwrap();
    assert!(lseek(&client, 0, Whence::SeekData).is_err(), "it is empty");
    let packets = File::open(filed.file(1, "packets.pcap")).unwrap();
    let length = i64::try_from(packets.metadata().unwrap().size()).unwrap();
    assert_eq!(lseek(&packets, 0, Whence::SeekHole), Ok(length));
}

#[test]
fn sparse_copies_are_exact() {
    skip_unless!(mount, "rsync");
    let holed = holed(1);
    let served = holed.served();
    let filed = Filed::of([holed.at_the_end()]);
    let source = flow(&filed.daemon, 1);
    let folder = TempDir::new().unwrap();
    for (name, script) in [
        ("cp", r#"cp -a --sparse=always "$1/." "$2""#),
        ("cp-auto", r#"cp -a --sparse=auto "$1/." "$2""#),
        ("tar", r#"tar -S -C "$1" -cf - . | tar -C "$2" -xf -"#),
        ("rsync", r#"rsync -aS "$1/" "$2""#),
    ] {
        let copy = folder.path().join(name);
        fs::create_dir_all(&copy).unwrap();
        let mut sh = tool("sh");
        drop(run(sh.arg("-euc").arg(script).arg("sh").arg(&source).arg(&copy), 20).success());
        assert!(everything(&copy) == everything(&source), "{name}");
        assert!(fs::read(copy.join("server.bin")).unwrap() == served, "{name}");
    }
}

#[test]
fn a_hole_that_is_filled_late_is_no_hole() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1);
    talk.open().says(Server, noise(1, 1_000));
    talk.says(Server, noise(2, 1_000)).says(Server, noise(3, 1_000)).swap();
    let (late, early) = (talk.packets.len() - 1, talk.packets.len() - 2);
    feed(&mut fed, &talk.packets[..=early]);
    let path = flow(&fed.daemon, 1).join("server.bin");
    assert_eq!(size(&path), 1_000, "what is not known yet is not served");
    assert_eq!(meta(&fed.daemon, 1)["server"]["gaps"], json!([]));
    feed(&mut fed, &talk.packets[late..=late]);
    assert!(fs::read(&path).unwrap() == talk.stream(Server));
    assert_eq!(fed.daemon.count(ALIAS, "/flows/gaps"), 0);
}

// ---- What the ring has dropped.

#[test]
fn what_is_overwritten_becomes_a_hole_and_the_flow_leaves_with_its_last_packet() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let mut talk = talk(1);
    talk.open().says(Server, noise(1, 200_000)).ack(Client);
    feed(&mut fed, &talk.packets);
    let folder = flow(&fed.daemon, 1);
    let (stream, packets) = (folder.join("server.bin"), folder.join("packets.pcap"));
    let mut old = File::open(&stream).unwrap();
    let mut old_packets = File::open(&packets).unwrap();
    let inode = fs::metadata(&packets).unwrap().ino();
    let stream_inode = fs::metadata(&stream).unwrap().ino();
    assert_eq!(size(&stream), 200_000);

    let first = |fed: &Fed| fed.daemon.count(ALIAS, "/ring/first_number");
    while first(&fed) < 30 {
        fed.send(200);
    }
    assert!(first(&fed) < talk.packets.len() as u64, "more was dropped than the test wants");
    wait_settled(&fed.daemon);
    wait_until("the gap is listed", 5, || {
        meta(&fed.daemon, 1)["server"]["gaps"][0][2] == "expired"
    });
    let now = meta(&fed.daemon, 1);
    is_meta(&now);
    assert_eq!(now["server"]["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(now["server"]["gaps"][0][0], 0);
    let end = usize::try_from(now["server"]["gaps"][0][1].as_u64().unwrap()).unwrap();
    assert!(end > 0 && end.is_multiple_of(1_460), "{end}");
    let mut wanted = talk.stream(Server).to_vec();
    wanted[..end].fill(0);
    assert!(fs::read(&stream).unwrap() == wanted);
    assert_eq!(
        fs::metadata(&stream).unwrap().ino(),
        stream_inode,
        "server.bin begins where it did"
    );
    assert_eq!(size(&stream), 200_000, "the size is that of the stream");
    assert_eq!(
        lseek(File::open(&stream).unwrap(), 0, Whence::SeekData),
        Ok(i64::try_from(end).unwrap())
    );

    // packets.pcap begins elsewhere, so it is another file; who has the old one goes on with it.
    let new = fs::metadata(&packets).unwrap();
    assert_ne!(new.ino(), inode, "another beginning is another file");
    let gone = usize::try_from(first(&fed)).unwrap() - 1;
    assert!(fs::read(&packets).unwrap() == savefile(&talk.packets[gone..]));
    let before = old_packets.metadata().unwrap();
    assert_eq!(before.ino(), inode, "an open file becomes another");
    assert!(before.size() >= savefile(&talk.packets).len() as u64, "it shrinks");
    // Records have no zeros for what is gone: an error, and nothing wrong in front of it.
    let mut bytes = Vec::new();
    let ended = old_packets.read_to_end(&mut bytes);
    assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::EIO));
    let all = savefile(&talk.packets);
    assert!(bytes == all[..bytes.len()], "the first {} bytes", bytes.len());
    let from = savefile(&talk.packets[..gone]).len();
    let mut rest = vec![0; all.len() - from];
    old_packets.read_exact_at(&mut rest, from as u64).unwrap();
    assert!(rest == all[from..], "what is retained");

    // Gone with its last packet.
    while first(&fed) <= talk.packets.len() as u64 {
        fed.send(200);
    }
    wait_until("the flow has left", 10, || !names(&fed.daemon).contains(&talk.name(1)));
    assert!(!stream.exists());
    assert_eq!(names(&fed.daemon).len(), 1, "the flow of the numbered packets stays");
    assert!(old.metadata().unwrap().size() >= 200_000, "an open file shrinks");
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).unwrap();
    assert!(rest.len() >= 200_000 && rest.iter().all(|byte| *byte == 0), "{} bytes", rest.len());
    wait_until("its end is told", 5, || {
        let log = lines(&fed.daemon.path("web/flows.jsonl"));
        log.iter().any(|line| line["id"] == 1 && line["state"] == "evicted")
    });

    // Its number is not given again.
    let next = u64::try_from(names(&fed.daemon).len()).unwrap() + 2;
    let mut again = talk_again(&talk);
    again.open().says(Client, b"hello");
    feed(&mut fed, &again.packets);
    assert_eq!(names(&fed.daemon).last(), Some(&again.name(next)));
}

/// The same endpoints, later.
fn talk_again(before: &Conversation) -> Conversation {
    talk(1).at(before.times().1 + SECOND).numbered_from(77, 88)
}

#[test]
fn bodies_whose_packets_are_gone_keep_their_names_and_sizes() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let mut talk = talk(1);
    talk.open();
    exchange(&mut talk, "/early.txt", &[b'e'; 30_000]);
    let mut time = talk.times().1;
    feed(&mut fed, &talk.packets);
    let folder = flow(&fed.daemon, 1);
    wait_until("the body is there", 5, || folder.join("bodies/0001-response-early.txt").exists());
    let line = lines(&folder.join("http.jsonl")).remove(0);
    let sizes = |name: &str| size(&folder.join(name));
    let transcript = sizes("http");
    while fed.daemon.count(ALIAS, "/ring/first_number") <= talk.packets.len() as u64 - 2 {
        let before = talk.packets.len();
        talk.wait(STEP).says(Client, b"");
        talk.again(Client, 0, ACK, &[]);
        feed(&mut fed, &talk.packets[before..]);
        fed.send(500);
        time += STEP;
    }
    assert!(time > 0);
    let body = folder.join("bodies/0001-response-early.txt");
    assert_eq!(size(&body), 30_000);
    assert_eq!(fs::read(&body).unwrap().len(), 30_000);
    assert_eq!(sizes("http"), transcript);
    assert_eq!(fs::read(folder.join("http")).unwrap().len() as u64, transcript);
    let again = fs::read(folder.join("http.jsonl")).unwrap();
    assert_eq!(again.len() as u64, sizes("http.jsonl"));
    assert_eq!(parsed(str::from_utf8(&again).unwrap()).len(), 1);
    // The capture's own log keeps what was said.
    assert_eq!(lines(&fed.daemon.path("web/http.jsonl")), [line]);
}

// ---- Recovery.

#[test]
fn flows_are_there_again_after_a_crash() {
    skip_unless!(mount);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let mounts = TempDir::new().unwrap();
    let fifo = Fifo::new();
    let mount = || {
        let mount = Mount::new().ring_dir(rings.path()).mountpoint(mounts.path());
        mount.capture(ALIAS, &fifo.source()).start()
    };
    let daemon = mount();
    let mut pipe = fifo.connect();
    let mut talks = sundry();
    let mut open = talk(77).at(EPOCH + 1_234);
    open.open();
    exchange(&mut open, "/open", b"still open");
    talks.push(open.clone());
    let packets = merged(talks);
    pipe.write(&records(&packets));
    daemon.wait_stored(ALIAS, packets.len() as u64);
    wait_settled(&daemon);
    // Not those that change as time passes.
    let look = |daemon: &Daemon| {
        for id in [1, 3, 5] {
            wait_flow(daemon, id, "closed");
        }
        wait_flow(daemon, 2, "reset");
        wait_until("the open one's HTTP is seen", 5, || flow(daemon, 6).join("http").exists());
        everything(&daemon.path("web/flows"))
    };
    let before = look(&daemon);
    assert_eq!(names(&daemon).len(), 6);
    daemon.crash();
    drop(pipe);

    let daemon = mount();
    let after = look(&daemon);
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is, "{} is not what it was", was.0.display());
    }
    assert_eq!(before.len(), after.len());

    // And the open one goes on.
    let mut pipe = fifo.connect();
    let from = open.packets.len();
    exchange(&mut open, "/later", b"and on");
    pipe.write(&records(&open.packets[from..]));
    wait_until("both transactions are told", 10, || {
        lines(&flow(&daemon, 6).join("http.jsonl")).len() == 2
    });
    assert_eq!(fs::read(flow(&daemon, 6).join("server.bin")).unwrap(), open.stream(Server));
}

#[test]
fn a_saved_replay_gives_the_same_flows() {
    skip_unless!(root, "python3");
    let wired = Wired::start();
    let log = web(
        &wired,
        "
for turn in range(3):
    connection = http.client.HTTPConnection(host, 8000)
    for path in ('/one.txt', '/two.bin', '/none'):
        connection.request('GET', path, headers={'X-Turn': str(turn)})
        connection.getresponse().read()
    connection.close()
",
    );
    assert_eq!(log, "");
    for id in 1..=3 {
        wait_flow(&wired.daemon, id, "closed");
    }
    let filed = Filed::new(&fs::read(wired.daemon.path("web/replay.pcap")).unwrap());
    assert_eq!(names(&filed.daemon), names(&wired.daemon));
    let (live, saved) =
        (everything(&wired.daemon.path("web/flows")), everything(&filed.daemon.path("web/flows")));
    for (was, is) in live.iter().zip(&saved) {
        assert!(was == is, "{} is not what it was", was.0.display());
    }
    assert_eq!(live.len(), saved.len());
    assert_eq!(
        fs::read(wired.daemon.path("web/http.jsonl")).unwrap(),
        fs::read(filed.daemon.path("web/http.jsonl")).unwrap()
    );
}

/// Runs a server of three files on the wire's side `a`, and a client's program on the other side.
/// What the client prints is the result.
fn web(wired: &Wired, client: &str) -> String {
    let server = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        files = {'/one.txt': b'one\\n', '/two.bin': bytes(range(256)) * 400}
        body = files.get(self.path)
        self.send_response(200 if body else 404)
        body = body or b'there is none\\n'
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler)
print('ready', flush=True)
server.serve_forever()
";
    let server = wired.net.a.run(|| Running::spawn(python(server).arg(Net::ADDRESS)));
    server.wait_stdout("it serves", 10, |bytes| bytes.starts_with(b"ready"));
    let client = format!("import http.client, sys\nhost = sys.argv[1]\n{client}");
    let output = wired.net.b.run(|| run(python(&client).arg(Net::ADDRESS), 20));
    output.success().text().to_owned()
}

#[test]
fn a_real_server_and_a_real_client_on_a_wire() {
    skip_unless!(root, "python3");
    let wired = Wired::start();
    web(
        &wired,
        "
connection = http.client.HTTPConnection(host, 8000)
for path in ('/one.txt', '/two.bin?q=1', '/two.bin'):
    connection.request('GET', path)
    connection.getresponse().read()
connection.close()
",
    );
    let meta = wait_flow(&wired.daemon, 1, "closed");
    is_meta(&meta);
    assert_eq!((&meta["application"], &meta["closed_by"]), (&json!("http"), &json!("client")));
    assert_eq!(meta["client"]["address"], Net::PEER_ADDRESS);
    assert_eq!(meta["server"]["port"], 8_000);
    assert!(meta["handshake_us"].as_u64().is_some_and(|time| time < 1_000_000));
    assert_eq!(meta["http"], json!({"transactions": 3, "incomplete": 0}));
    let folder = flow(&wired.daemon, 1);
    assert_eq!(
        listed(&folder.join("bodies")),
        ["0001-response-one.txt", "0002-response-two.bin", "0003-response-two.bin"]
    );
    assert_eq!(fs::read(folder.join("bodies/0001-response-one.txt")).unwrap(), b"one\n");
    let wanted: Vec<u8> = (0..=255).cycle().take(256 * 400).collect();
    assert!(fs::read(folder.join("bodies/0003-response-two.bin")).unwrap() == wanted);
    let status: Vec<_> =
        lines(&folder.join("http.jsonl")).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(status, [200, 404, 200]);
    let status = wired.daemon.status(ALIAS);
    assert_eq!(status["flows"]["gaps"], 0, "{status:#}");
    assert_eq!(status["flows"]["engine_lost_packets"], 0, "{status:#}");
}

// ---- Counters.

#[track_caller]
fn add_up(daemon: &Daemon) {
    let status = daemon.status(ALIAS);
    let flows = &status["flows"];
    let log = lines(&daemon.path("web/flows.jsonl"));
    let mut times: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for line in &log {
        times.entry(line["id"].as_u64().unwrap()).or_default().push(line);
    }
    let count = |name: &str| flows[name].as_u64().unwrap();
    assert_eq!(times.len() as u64, count("open") + count("closed") + count("evicted"), "{flows}");
    assert!(times.keys().copied().eq(1..=times.len() as u64), "numbers are given in order");
    let ended: Vec<_> = times.values().filter(|lines| lines.len() == 2).collect();
    assert!(times.values().all(|lines| lines.len() <= 2), "a flow is told three times");
    assert_eq!(ended.len() as u64, count("closed") + count("evicted"), "{flows}");
    let evicted = ended.iter().filter(|lines| lines[1]["state"] == "evicted").count();
    assert_eq!(evicted as u64, count("evicted"), "{flows}");
    let ends: HashMap<_, _> =
        ended.iter().map(|lines| (lines[1]["id"].as_u64(), lines[1])).collect();
    for name in names(daemon) {
        let meta = json(&daemon.path("web/flows").join(&name).join("meta.json"));
        if let Some(end) = ends.get(&meta["id"].as_u64()) {
            assert_eq!(meta, **end, "the last line is meta.json");
        }
    }
    assert_eq!(count("engine_lag_packets"), 0, "at rest");
}

#[test]
fn counters_of_flows_add_up() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--max-flows", "30"]));
    let mut talks = Vec::new();
    for number in 0..60u8 {
        let mut talk = talk(number).at(EPOCH + u64::from(number) * 3 * SECOND);
        talk.open().says(Client, [number; 9]);
        match number % 3 {
            0 => talk.close(Client),
            1 => talk.reset(Server),
            _ => &mut talk,
        };
        talks.push(talk);
    }
    let packets = merged(talks);
    for part in packets.chunks(37) {
        feed(&mut fed, part);
    }
    assert_eq!(names(&fed.daemon).len(), 30);
    wait_until("what has ended is told", 10, || {
        let flows = fed.daemon.status(ALIAS)["flows"].clone();
        let lines = lines(&fed.daemon.path("web/flows.jsonl")).len() as u64;
        flows["open"] == 10 && 60 + 50 == lines
    });
    add_up(&fed.daemon);

    let filed = Filed::new(&savefile(&packets));
    add_up(&filed.daemon);
    assert_eq!(filed.daemon.count(ALIAS, "/flows/open"), 0, "the capture has ended");
}

#[test]
fn a_savefile_has_ended_once_all_its_flows_are_listed() {
    skip_unless!(mount);
    let mut bytes = Format::default().header();
    let count = 20_000u64;
    for number in 0..count {
        let client =
            format!("10.{}.{}.1:{}", number >> 16 & 255, number >> 8 & 255, 1_024 + (number & 255));
        let mut talk = Conversation::tcp(&client, "10.255.0.1:80").at(EPOCH + number * 1_000_000);
        talk.syn().syn_ack().ack(Client);
        talk.packets.iter().for_each(|packet| packet.append(&mut bytes));
    }
    let filed = Filed::new(&bytes);
    assert_eq!(names(&filed.daemon).len() as u64, count);
    assert_eq!(lines(&filed.daemon.path("web/flows.jsonl")).len() as u64, 2 * count);
    let status = filed.daemon.status(ALIAS);
    assert_eq!(status["flows"]["engine_lag_packets"], 0, "{status:#}");
    assert_eq!(status["flows"]["closed"], count, "{status:#}");
}

// ---- Permissions.

#[test]
fn files_of_flows_have_the_permissions_of_their_capture() {
    skip_unless!(root, "setpriv");
    const USER: u32 = 54_321;
    const GROUP: u32 = 65_432;
    let mut talk = talk(1);
    talk.open();
    exchange(&mut talk, "/a.txt", b"secret");
    talk.close(Client);
    let filed = Filed::of([talk]);
    let capture = filed.daemon.path("web");
    let flows = capture.join("flows");
    let all: Vec<_> = everything(&capture.join("flows"))
        .into_iter()
        .map(|(path, bytes)| (flows.join(path), bytes.is_none()))
        .chain([(flows.clone(), true)])
        .chain(["http.jsonl", "flows.jsonl"].map(|name| (capture.join(name), false)))
        .collect();
    let reads = |group: u32, path: &Path| {
        let mut command = tool("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={group}")]);
        let program = if path.is_dir() { "ls" } else { "cat" };
        let output = run(command.args(["--clear-groups", program]).arg(path), 5);
        let denied = output.stderr.contains("Permission denied");
        assert!(output.status.success() != denied, "{}: {}", path.display(), output.stderr);
        !denied
    };
    let check = |directories: u32, files: u32, group: u32| {
        for (path, is_directory) in &all {
            let metadata = fs::metadata(path).unwrap();
            let mode = if *is_directory { directories } else { files };
            assert_eq!(metadata.mode() & 0o7777, mode, "{}", path.display());
            assert_eq!((metadata.uid(), metadata.gid()), (0, group), "{}", path.display());
        }
    };
    let group = fs::metadata(&capture).unwrap().gid();
    check(0o750, 0o640, group);
    for (path, _) in &all {
        assert!(!reads(GROUP, path), "{} is open to others", path.display());
    }
    std::os::unix::fs::chown(&capture, None, Some(GROUP)).unwrap();
    check(0o750, 0o640, GROUP);
    for (path, _) in &all {
        assert!(reads(GROUP, path), "{} is closed to the group", path.display());
        assert!(!reads(GROUP + 1, path), "{} is open to others", path.display());
    }
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o755)).unwrap();
    check(0o755, 0o644, GROUP);
    for (path, _) in &all {
        assert!(reads(GROUP + 1, path), "{} is closed to others", path.display());
    }
    // Nothing of a flow can be changed or removed by anybody.
    for (path, is_directory) in &all {
        assert!(fs::remove_file(path).is_err() && fs::remove_dir(path).is_err());
        let written = fs::OpenOptions::new().write(true).open(path);
        assert!(*is_directory || written.is_err(), "{} can be written", path.display());
    }
}

// ---- Streams out of the ordinary.

#[test]
fn a_capture_of_one_direction_has_its_stream() {
    skip_unless!(mount);
    for side in [Client, Server] {
        let mut talk = talk(1);
        talk.open();
        for turn in 0..50 {
            talk.says(Client, noise(turn, 700)).says(Server, noise(turn + 99, 900));
        }
        talk.close(Client).only(side);
        let meta = one(&talk);
        let filed = Filed::of([talk.clone()]);
        let files = [("client.bin", Client), ("server.bin", Server)];
        for (name, whose) in files {
            let got = filed.read(1, name);
            if whose == side {
                assert!(got == talk.stream(side), "{name}, of which {side:?} was captured");
            } else {
                // As long as its receiver acknowledged, and all of it a hole.
                let role = name.trim_end_matches(".bin");
                assert_eq!(meta[role]["gaps"], json!([[0, got.len(), "missing"]]), "{meta:#}");
                assert_eq!(got, vec![0; talk.stream(whose).len()], "{name}");
            }
        }
        assert_eq!(meta[if side == Client { "client" } else { "server" }]["gaps"], json!([]));
    }
}

#[test]
fn reordered_segments_come_out_in_order() {
    skip_unless!(mount);
    let mut talk = talk(1).segments_of(100);
    talk.open();
    let first = talk.packets.len();
    talk.says(Client, noise(1, 10_000));
    for group in (first..talk.packets.len() - 10).step_by(10) {
        talk.exchange(group, group + 9)
            .exchange(group + 2, group + 5)
            .exchange(group + 1, group + 8);
    }
    talk.ack(Server).close(Client);
    let filed = Filed::of([talk.clone()]);
    assert!(filed.read(1, "client.bin") == talk.stream(Client));
    let packets = filed.read(1, "packets.pcap");
    assert!(packets == savefile(&talk.packets), "packets are in the order of the capture");
    assert_eq!(filed.meta(1)["client"]["gaps"], json!([]));
}

#[test]
fn sequence_numbers_wrap() {
    skip_unless!(mount);
    let mut talk = talk(1).numbered_from(u32::MAX - 5_000, u32::MAX - 3);
    talk.open().says(Client, noise(1, 30_000)).says(Server, noise(2, 9_000)).close(Client);
    let filed = Filed::of([talk.clone()]);
    assert!(filed.read(1, "client.bin") == talk.stream(Client));
    assert!(filed.read(1, "server.bin") == talk.stream(Server));
    assert_eq!(filed.meta(1)["state"], "closed");
}

#[test]
fn data_in_a_syn_and_a_syn_that_comes_late() {
    skip_unless!(mount);
    let mut fast = talk(1);
    let number = fast.next(Client);
    fast.raw(Client, number, 0, pcapfs_tests::conversation::SYN, b"early ");
    let mut wanted = fast;
    // The builder's own SYN is the same segment without data.
    wanted.syn().lose();
    let acknowledged = wanted.next(Client).wrapping_add(6);
    let server = wanted.next(Server);
    wanted.raw(Server, server, acknowledged, pcapfs_tests::conversation::SYN | ACK, b"");
    wanted.raw(Client, acknowledged, server.wrapping_add(1), ACK | PSH, b"bird");
    let filed = Filed::of([wanted]);
    assert_eq!(filed.read(1, "client.bin"), b"early bird");

    let mut late = talk(2);
    late.open().exchange(0, 1).says(Client, b"hello").says(Server, b"world").close(Client);
    let filed = Filed::of([late.clone()]);
    assert_eq!(names(&filed.daemon), [late.name(1)]);
    assert_eq!(filed.read(1, "client.bin"), b"hello");
}

#[test]
fn which_copy_of_a_byte_counts_can_be_chosen() {
    skip_unless!(mount);
    let mut talk = talk(1);
    talk.open();
    // A hole in front, so that both copies wait.
    talk.says(Client, b"GOOD").says(Client, b"first copy");
    let (hole, copy) = (talk.packets.len() - 2, talk.packets.len() - 1);
    talk.exchange(hole, copy);
    talk.again(Client, 10, ACK | PSH, b"OTHER COPY");
    // Then the hole is filled.
    let last = talk.packets.len() - 1;
    talk.exchange(copy, last).ack(Server).close(Client);
    let bytes = savefile_of([talk]);
    for (policy, wanted) in [("first", b"GOODfirst copy"), ("last", b"GOODOTHER COPY")] {
        let filed = Filed::with(Mount::new().args(["--overlap", policy]), &bytes);
        let got = filed.read(1, "client.bin");
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted), "{policy}");
        assert!(filed.daemon.count(ALIAS, "/flows/overlap_conflicts") > 0, "{policy}");
        assert_eq!(filed.meta(1)["client"]["overlapping"], 1);
    }
}

#[test]
fn ports_used_again_are_another_flow() {
    skip_unless!(mount);
    let mut first = talk(1);
    first.open().says(Client, b"first").close(Client);
    let mut second = talk_again(&first);
    second.open().says(Client, b"second").close(Server);
    let filed = Filed::of([first.clone(), second.clone()]);
    assert_eq!(names(&filed.daemon), [first.name(1), second.name(2)]);
    assert_eq!(filed.read(1, "client.bin"), b"first");
    assert_eq!(filed.read(2, "client.bin"), b"second");
}

#[test]
fn side_names_are_opposite() {
    for side in [Client, Server] {
        assert_eq!(Side::other(side.other()), side);
    }
}
