//! Bytes that were not captured, and bytes that the ring has dropped.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::unistd::{Whence, lseek};
use pcapfs_tests::conversation::{ACK, STEP, noise, savefile};
use pcapfs_tests::flows::{everything, flow, lines, meta, names, parsed};
use pcapfs_tests::{ALIAS, Client, Fed, Filed, Mount, Server, run, skip_unless, tool, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{exchange, feed, holed, is_meta, size, talk, talk_again, wait_settled};

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
fn a_hole_of_a_body_is_one_of_its_file() {
    skip_unless!(mount);
    let mut talk = talk(1);
    let (before, missing, behind) = (noise(1, 300_000), noise(2, 1_000_000), noise(3, 300_000));
    let length = before.len() + missing.len() + behind.len();
    talk.open().says(Client, "GET /big HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
    talk.says(Server, &before).unseen(Server, &missing).ack(Client).says(Server, &behind);
    talk.ack(Client).close(Server);
    let filed = Filed::of([talk]);
    let path = filed.file(1, "bodies/0001-response-big");
    let (hole, data, end) = (300_000, 1_300_000, 1_600_000);
    let file = File::open(&path).unwrap();
    for (from, to, found) in [
        (0, Whence::SeekHole, Some(hole)),
        (hole - 1, Whence::SeekData, Some(hole - 1)),
        (hole, Whence::SeekHole, Some(hole)),
        (hole, Whence::SeekData, Some(data)),
        (data, Whence::SeekHole, Some(end)),
        (end, Whence::SeekData, None),
    ] {
        assert_eq!(lseek(&file, from, to).ok(), found, "{to:?} from {from}");
    }
    let stat = fs::metadata(&path).unwrap();
    assert_eq!(stat.size(), length as u64);
    assert_eq!(stat.blocks(), 600_000_u64.div_ceil(512), "what du says is what there is");
    let wanted = [before, vec![0; missing.len()], behind].concat();
    assert!(fs::read(&path).unwrap() == wanted);
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
fn a_hole_that_is_filled_late_is_not_a_hole() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1);
    talk.open().says(Server, noise(1, 1_000));
    talk.says(Server, noise(2, 1_000)).says(Server, noise(3, 1_000)).swap();
    let (late, early) = (talk.packets.len() - 1, talk.packets.len() - 2);
    feed(&mut fed, &talk.packets[..=early]);
    let path = flow(&fed.daemon, 1).join("server.bin");
    assert_eq!(size(&path), 1_000, "undecided bytes are not served");
    assert_eq!(meta(&fed.daemon, 1)["server"]["gaps"], json!([]));
    feed(&mut fed, &talk.packets[late..=late]);
    assert!(fs::read(&path).unwrap() == talk.stream(Server));
    assert_eq!(fed.daemon.count(ALIAS, "/flows/gaps"), 0);
}

#[test]
fn overwritten_bytes_become_a_hole_and_the_flow_leaves_with_its_last_packet() {
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

    // packets.pcap now begins at another packet, so it is another file. A reader that has the old
    // one open goes on with it.
    let new = fs::metadata(&packets).unwrap();
    assert_ne!(new.ino(), inode, "another beginning is another file");
    let gone = usize::try_from(first(&fed)).unwrap() - 1;
    assert!(fs::read(&packets).unwrap() == savefile(&talk.packets[gone..]));
    let before = old_packets.metadata().unwrap();
    assert_eq!(before.ino(), inode, "an open file becomes another");
    assert!(before.size() >= savefile(&talk.packets).len() as u64, "it shrinks");
    // Records cannot be replaced by zeros: reading ends with an error, and all bytes before it are
    // right.
    let mut bytes = Vec::new();
    let ended = old_packets.read_to_end(&mut bytes);
    assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::EIO));
    let all = savefile(&talk.packets);
    assert!(bytes == all[..bytes.len()], "the first {} bytes", bytes.len());
    let from = savefile(&talk.packets[..gone]).len();
    let mut rest = vec![0; all.len() - from];
    old_packets.read_exact_at(&mut rest, from as u64).unwrap();
    assert!(rest == all[from..], "what is retained");

    // The flow leaves with its last packet.
    while first(&fed) <= talk.packets.len() as u64 {
        fed.send(200);
    }
    wait_until("the flow has left", 10, || !names(&fed.daemon).contains(&talk.name(1)));
    // The kernel may use a cached directory entry until its timeout.
    wait_until("its name is gone too", 5, || !stream.exists());
    assert_eq!(names(&fed.daemon).len(), 1, "the flow of the numbered packets stays");
    assert!(old.metadata().unwrap().size() >= 200_000, "an open file shrinks");
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).unwrap();
    assert!(rest.len() >= 200_000 && rest.iter().all(|byte| *byte == 0), "{} bytes", rest.len());
    wait_until("its end is recorded", 5, || {
        let log = lines(&fed.daemon.path("web/flows.jsonl"));
        log.iter().any(|line| line["id"] == 1 && line["state"] == "evicted")
    });

    // The flow's number is not reused.
    let next = u64::try_from(names(&fed.daemon).len()).unwrap() + 2;
    let mut again = talk_again(&talk);
    again.open().says(Client, b"hello");
    feed(&mut fed, &again.packets);
    assert_eq!(names(&fed.daemon).last(), Some(&again.name(next)));
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
    wait_until("the transaction is recorded", 5, || lines(&folder.join("http.jsonl")).len() == 1);
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
    // The capture's own log keeps its line.
    assert_eq!(lines(&fed.daemon.path("web/http.jsonl")), [line]);
}
