//! The files of open flows.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use pcapfs_tests::conversation::{noise, savefile};
use pcapfs_tests::flows::{flow, lines, meta, wait_flow};
use pcapfs_tests::{Client, Fed, Net, Running, Server, Wired, run, skip_unless, tool, wait_until};
use serde_json::json;

use crate::support::{exchange, feed, size, talk};

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
        // Packet by packet, so that each file is also read in the middle of a message.
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
        wait_until("the transaction is recorded", 5, || {
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

    // The flow closes, and every `tail` has all of its file.
    let before = talk.packets.len();
    talk.close(Client);
    feed(&mut fed, &talk.packets[before..]);
    wait_flow(&fed.daemon, 1, "closed");
    wait_until("the end is recorded", 5, || lines(&fed.daemon.path("web/flows.jsonl")).len() == 2);
    for (file, tail) in files.iter().zip(&tails) {
        let wanted = fs::read(file).unwrap();
        tail.wait_stdout("the rest", 5, |got| got.len() >= wanted.len());
        assert!(tail.stdout() == wanted, "{} as tail has it", file.display());
    }
}

#[test]
fn an_open_file_grows_after_its_end_and_any_offset_is_right() {
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
            // Until the reader hangs up, and never more than the ring holds.
            for seed in 0..4_000 {
                let part = noise(seed, 8_192);
                if begin.elapsed().as_secs() > 30 || stream.write_all(&part).is_err() {
                    break;
                }
                sent += part.len();
                // A pace at which the ring holds all that is sent while the readers read.
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
        // The ring may have dropped the first bytes by now.
        let beginning = meta(&wired.daemon, 1)["client"]["gaps"].clone();
        assert_eq!(beginning, json!([]), "64 MiB are enough for this test");
        assert!(cat.stdout == wanted[..cat.stdout.len()], "after {} bytes", cat.stdout.len());
        last = cat.stdout.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let (sent, received) = (sender.join().unwrap(), sink.join().unwrap());
    assert!(sent as u64 >= last && received >= last);
}
