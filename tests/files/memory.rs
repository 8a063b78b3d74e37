//! Memory that strangers and readers can make a daemon use: it stays within the documented limits
//! and is given back.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::unistd::Pid;
use pcapfs_tests::conversation::{EPOCH, Packet, merged, noise, records, savefile, savefile_of};
use pcapfs_tests::measure::{Peak, anonymous_memory, file_memory};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Fed, Filed, Mount, Server, skip_unless, wait_until,
};

const MIB: u64 = 1 << 20;

/// Memory that a daemon needs for itself, in bytes.
const OWN: u64 = 32 * MIB;

/// Bytes of open content that are kept when less memory than that is given to flows.
const ROOM: u64 = 256 * MIB;

fn mount(given: u64) -> Mount {
    Mount::new().arg("--flow-memory").arg(given.to_string()).lifetime(Duration::from_secs(240))
}

/// The maximum memory of the process that is seen until `is_over`.
fn most(pid: Pid, what: &str, mut is_over: impl FnMut() -> bool) -> u64 {
    let mut most = 0;
    wait_until(what, 200, || {
        most = most.max(anonymous_memory(pid));
        is_over()
    });
    most
}

/// Packets of `count` flows that all have a transaction under way at the same time: first come all
/// requests, then the beginnings of all responses. Also returns the name of the last flow.
fn under_way(count: u32, has_beginnings: bool) -> (Vec<Packet>, String) {
    let cookie = "c".repeat(400);
    let talks = (0..count).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        let time = u64::from(number) * 1_000;
        let mut talk = Conversation::tcp(&format!("10.{a}.{b}.{c}:1000"), "10.255.0.1:80")
            .at(EPOCH + time)
            .every(100);
        let head = format!("GET /{number} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n");
        if has_beginnings {
            talk.open();
        }
        talk.says(Client, head).wait(u64::from(count) * 1_000);
        talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
        talk
    });
    let mut last = String::new();
    let talks = talks.zip(1..).inspect(|(talk, id)| last = talk.name(*id)).map(|(talk, _)| talk);
    (merged(talks), last)
}

#[test]
fn transactions_under_way_stay_within_their_memory_limit() {
    skip_unless!(mount);
    const GIVEN: u64 = 64 * MIB;
    const COUNT: u32 = 24_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("open.pcap");
    fs::write(&file, savefile(&under_way(COUNT, true).0)).unwrap();
    let source = format!("file:{}", file.display());
    let daemon = mount(GIVEN).arg("--no-wait").capture(ALIAS, &source).start();
    let most =
        most(daemon.pid(), "the capture has ended", || daemon.status(ALIAS)["state"] == "ended");
    let flows = daemon.status(ALIAS)["flows"].clone();
    eprintln!("at most {} MiB; {flows}", most / MIB);
    assert!(flows["dropped"].as_u64().unwrap() > 0, "the bound was not reached: {flows:#}");
    assert!(most <= GIVEN + OWN, "{} MiB of {}", most / MIB, GIVEN / MIB);
}

/// A daemon whose ring already has all its pages, so that memory used from now on is not the
/// ring's.
fn settled(given: u64, ring: u64) -> (Fed, Peak) {
    let mount = mount(given).ring(&ring.to_string()).arg("--no-wait");
    let fed = Fed::with(mount);
    let pid = fed.daemon.pid();
    wait_until("the ring has its pages", 60, || file_memory(pid) >= ring);
    (fed, Peak::from_now(pid))
}

#[test]
fn the_peak_of_a_hundred_thousand_transactions_under_way_is_within_the_memory_given() {
    skip_unless!(mount);
    const GIVEN: u64 = 256 * MIB;
    const COUNT: u32 = 100_000;
    let (packets, last) = under_way(COUNT, false);
    let (mut fed, peak) = settled(GIVEN, 192 * MIB);
    fed.feed.write(&records(&packets));
    fed.daemon.wait_stored(ALIAS, packets.len() as u64);
    // A stream whose beginning was not captured is recognized only after a while. It must not take
    // another packet to do so.
    let http = fed.daemon.path(ALIAS).join("flows").join(last).join("http");
    wait_until("the last flow is known to be HTTP", 120, || http.exists());
    let flows = || fed.daemon.status(ALIAS)["flows"].clone();
    wait_until("nothing is under way", 60, || {
        let (before, after) = (flows(), flows());
        before["engine_lag_packets"] == 0 && before == after
    });
    let then = flows();
    eprintln!("at most {} MiB; {then}", peak.anonymous() / MIB);
    assert!(then["dropped"].as_u64().unwrap() > 0, "the bound was not reached: {then:#}");
    assert!(peak.anonymous() <= GIVEN + OWN, "{} MiB", peak.anonymous() / MIB);
    // `clear` takes the packets out of the ring, and the flows with them. The logs and the flows'
    // places in tables stay.
    fed.daemon.control(ALIAS, "clear").unwrap();
    let pid = fed.daemon.pid();
    wait_until("all flows have left", 120, || flows()["open"] == 0);
    let logs = || flows()["memory_bytes"].as_u64().unwrap();
    wait_until("it is given back", 60, || anonymous_memory(pid) <= logs() + 2 * OWN);
}

/// Reads `http.har` of a flow of `filed`. Returns its length and the peak of memory during the
/// read. Checks that the memory is given back afterwards.
fn read_har(filed: &Filed) -> (std::io::Result<u64>, u64) {
    let har = filed.file(1, "http.har");
    let pid = filed.daemon.pid();
    let before = anonymous_memory(pid);
    let peak = Peak::from_now(pid);
    let length = fs::read(har).map(|bytes| bytes.len() as u64);
    let most = peak.anonymous();
    eprintln!("at most {} MiB for {length:?}", most / MIB);
    // A copy of the file stays in case it is read again.
    wait_until("it is given back", 30, || anonymous_memory(pid) <= before + 64 * MIB + 16 * MIB);
    (length, most)
}

#[test]
fn a_large_har_is_made_within_the_limit_of_open_contents() {
    skip_unless!(mount);
    const GIVEN: u64 = 64 * MIB;
    // 60 MiB of bodies that are not text.
    let body = noise(1, 6 << 20);
    let mut talk = Conversation::tcp("10.0.0.1:1000", "10.0.0.2:80").every(1_000);
    talk.open();
    for number in 0..10 {
        talk.says(Client, format!("GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        let length = body.len();
        talk.says(Server, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        talk.says(Server, &body);
    }
    talk.close(Client);
    let filed = Filed::with(mount(GIVEN), &savefile_of([talk]));
    let (length, most) = read_har(&filed);
    let length = length.unwrap();
    assert!(length > 80 * MIB, "{length}");
    // The file once, and one of its bodies besides.
    assert!(most <= length + 32 * MIB + GIVEN + OWN, "{} MiB", most / MIB);
    assert!(most <= ROOM + GIVEN + OWN);
}

#[test]
fn a_har_of_long_heads_is_not_made_beyond_the_limit_of_open_contents() {
    skip_unless!(mount);
    const GIVEN: u64 = 64 * MIB;
    // 24 MiB of heads. In JSON, each byte of a value takes six bytes, and each value is there
    // twice.
    let value = "\u{1}".repeat(60_000);
    let mut talk = Conversation::tcp("10.0.0.1:1000", "10.0.0.2:80").every(1_000);
    talk.open();
    for number in 0..420 {
        let cookie = format!("Cookie: a={value}");
        talk.says(Client, format!("GET /{number} HTTP/1.1\r\nHost: x\r\n{cookie}\r\n\r\n"));
        talk.says(Server, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    talk.close(Client);
    let filed = Filed::with(mount(GIVEN), &savefile_of([talk]));
    let (length, most) = read_har(&filed);
    assert_eq!(length.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    assert!(most <= ROOM + GIVEN + OWN, "{} MiB", most / MIB);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client that makes many calls at the same time and reads no answer. Its windows have the
/// maximum size.
fn stalled(
    daemon: &pcapfs_tests::Daemon,
    method: &str,
    message: &[u8],
    streams: u32,
) -> UnixStream {
    const HEADERS: [&str; 6] = [":method", "POST", ":scheme", "http", ":authority", "x"];
    let mut socket = UnixStream::connect(daemon.socket()).unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, and a WINDOW_UPDATE for the connection.
    bytes.extend(frame(4, 0, 0, &[&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat()));
    bytes.extend(frame(8, 0, 0, &0x7ffe_0000_u32.to_be_bytes()));
    let path = format!("/pcapfs.control.v1.Control/{method}");
    let names = HEADERS.into_iter().chain([":path", &path]);
    let names = names.chain(["content-type", "application/grpc", "te", "trailers"]);
    let mut head = Vec::new();
    for (at, text) in names.enumerate() {
        // A literal without indexing and with a new name: RFC 7541, section 6.2.2.
        head.extend((at % 2 == 0).then_some(0));
        head.push(u8::try_from(text.len()).unwrap());
        head.extend(text.bytes());
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    for stream in (0..streams).map(|number| 2 * number + 1) {
        bytes.extend(frame(1, 4, stream, &head));
        bytes.extend(frame(0, 1, stream, &body));
    }
    socket.write_all(&bytes).unwrap();
    socket
}

#[test]
fn clients_that_do_not_read_take_little_memory_and_leave_none() {
    skip_unless!(mount);
    /// Limit for all clients of one user together, as documented: 32 MiB, plus 16 KiB for each
    /// stream.
    const CLIENTS: u64 = 64;
    const STREAMS: u32 = 16;
    const ON_THE_WAY: u64 = 32 * MIB + CLIENTS * STREAMS as u64 * (16 << 10);
    let (mut fed, _) = settled(MIB, 64 * MIB);
    fed.send(100_000);
    let pid = fed.daemon.pid();
    let before = anonymous_memory(pid);
    let peak = Peak::from_now(pid);
    // Field 1 is the capture. Field 3 asks for future packets as well.
    let message = [&[1 << 3 | 2, 3][..], b"web", &[3 << 3, 1]].concat();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| stalled(&fed.daemon, "Replay", &message, STREAMS)).collect();
    let all = usize::try_from(CLIENTS * u64::from(STREAMS)).unwrap();
    wait_until("all are served", 60, || fed.daemon.readers(ALIAS).len() == all);
    // Each client has received as much as its socket and the answers under way hold, and nothing
    // more comes.
    let delivered = || {
        let readers = fed.daemon.readers(ALIAS);
        readers.iter().filter_map(|reader| reader["delivered_bytes"].as_u64()).sum::<u64>()
    };
    let mut last = (0, 0);
    wait_until("they are stalled", 60, || {
        // That nothing more comes shows only over time.
        std::thread::sleep(Duration::from_millis(50));
        let now = delivered();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        last.1 == 5
    });
    let most = peak.anonymous();
    eprintln!("{} MiB, at most {} MiB until all are stalled", before / MIB, most / MIB);
    assert!(most <= MIB + ON_THE_WAY + OWN, "{} MiB", most / MIB);
    // The first client still gets its answer.
    let mut first = &clients[0];
    let mut answer = [0; 4_096];
    assert!(first.read(&mut answer).unwrap() > 0);
    drop(clients);
    wait_until("it is given back", 30, || anonymous_memory(pid) <= before + 16 * MIB);
}
