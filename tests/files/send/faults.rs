//! Receivers that are missing, slow or gone, and savefiles that are broken.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use pcapfs_tests::conversation::{Client, Conversation, SECOND, noise};
use pcapfs_tests::{
    Fed, Receiving, Running, binary, loopback_address, run, skip_unless, tool, wait_for,
};

use crate::support::{Savefile, ports, send, send_command};

/// A savefile in which each of several sources says its number, in bytes of this length.
fn sources(count: u8, length: usize) -> Savefile {
    Savefile::of((0..count).map(|number| {
        let client = format!("10.0.0.{}:40000", number + 1);
        let mut talk = Conversation::tcp(&client, "10.0.1.1:80");
        talk.wait(u64::from(number) * SECOND).says(Client, vec![number; length]);
        talk
    }))
}

#[test]
fn too_few_ports_are_said_before_anything_is_sent() {
    let savefile = sources(5, 100);
    let mut receiving = Receiving::start(3, &[]);
    let refused = send(&savefile.path, &receiving, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let expected = format!(
        "pcapfs: {}: Connection refused; 5 ports from 5000 on are needed, one for \
         each connection, and the first 3 of them answer\n",
        receiving.address(3)
    );
    assert_eq!(refused.stderr, expected);
    receiving.end();
    assert!(receiving.contents().values().all(Vec::is_empty), "nothing was sent");

    let mut command = tool(binary("pcapfs").to_str().unwrap());
    command.arg("send").arg(&savefile.path).args(["127.0.0.1", "65533"]);
    let refused = run(&mut command, 10);
    assert_eq!(refused.status.code(), Some(1));
    let expected = "pcapfs: 5 ports from 65533 on are needed, one for each connection, and there \
                    are 3: choose a lower base port, or leave out packets with --filter\n";
    assert_eq!(refused.stderr, expected);
}

#[test]
fn a_missing_receiver_host_savefile_or_capture_is_named() {
    let savefile = sources(1, 100);
    let path = savefile.path.to_str().unwrap();
    let missing = savefile.beside("missing.pcap");
    let missing = missing.to_str().unwrap();
    let address = loopback_address().to_string();
    for (arguments, code, says) in [
        ([path, &address, "5000"], 1, "Connection refused (start the receiver first)"),
        ([path, "no-such-host.invalid", "5000"], 1, "no-such-host.invalid: "),
        ([missing, &address, "5000"], 1, "missing.pcap: No such file or directory"),
        ([path, &address, "0"], 2, "invalid value '0' for '<BASE_PORT>'"),
        (["web", &address, "5000"], 1, "no pcapfs listens there"),
        (["nowhere:web", &address, "5000"], 1, "nowhere"),
    ] {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        command.env("PCAPFS_SOCKET", savefile.beside("no.sock")).arg("send").args(arguments);
        let refused = run(&mut command, 30);
        assert_eq!(refused.status.code(), Some(code), "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    let refused = run(command.args(["send", "-", &address, "5000", "--loop", "2"]), 10);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("- can be read only once"), "{}", refused.stderr);
}

#[test]
fn what_comes_before_a_fault_is_sent() {
    let whole = fs::read(sources(2, 100).path).unwrap();
    let receiving = Receiving::start(2, &[]);
    let cut = Savefile::new(&whole[..whole.len() - 1]);
    let said = send(&cut.path, &receiving, &[]).success().stderr;
    assert!(
        said.contains("trace.pcap: ends inside a packet; its 169 bytes are not sent"),
        "{said}"
    );
    assert!(said.contains("100 bytes sent in 1 packet on 1 connection"), "{said}");

    let mut broken = whole.clone();
    // The captured length of the second record.
    let at = 24 + (whole.len() - 24) / 2 + 8;
    broken[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let failed = send(&Savefile::new(&broken).path, &receiving, &[]);
    assert_eq!(failed.status.code(), Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("100 bytes sent in 1 packet"), "{}", failed.stderr);
    assert!(failed.stderr.contains("trace.pcap: malformed at byte "), "{}", failed.stderr);
}

/// Listens at consecutive ports, without a pcapfs.
fn listeners(count: u16) -> (SocketAddr, Vec<TcpListener>) {
    let address = loopback_address();
    let all = (0..count).map(|index| TcpListener::bind((address, 5000 + index)).unwrap());
    (SocketAddr::new(address.into(), 5000), all.collect())
}

/// The next connection.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = wait_for("it connects", 20, || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream
}

/// `pcapfs send` to these listeners.
fn send_to(first: SocketAddr, savefile: &Savefile, options: &[&str]) -> Running {
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    command.arg("send").arg(&savefile.path).args([first.ip().to_string(), "5000".to_owned()]);
    Running::spawn(command.args(options))
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_receiver_that_goes_away_is_reported_and_the_others_go_on() {
    // Three sources take turns for two seconds.
    let savefile = Savefile::of((0..3).map(|number| {
        let client = format!("10.0.0.{}:40000", number + 1);
        let mut talk = Conversation::tcp(&client, "10.0.1.1:80").every(SECOND / 20);
        talk.wait(number);
        for _ in 0..40 {
            talk.says(Client, [u8::try_from(number).unwrap(); 10]);
        }
        talk
    }));
    let (first, listeners) = listeners(3);
    let mut running = send_to(first, &savefile, &[]);
    let mut streams: Vec<TcpStream> = listeners.iter().map(accept).collect();
    let mut gone = streams.remove(1);
    gone.read_exact(&mut [0; 10]).unwrap();
    // Unread bytes make it a reset.
    drop(gone);
    let received: Vec<Vec<u8>> = streams.into_iter().map(read_all).collect();
    assert_eq!(received, [vec![0; 400], vec![2; 400]]);
    assert_eq!(running.wait(20).code(), Some(1));
    let said = running.stderr();
    let gone = "pcapfs: port 5001, which gets 10.0.0.2: ";
    assert!(said.contains(gone) && said.contains("; the others go on\n"), "{said}");
    assert!(said.contains("bytes for receivers that had gone"), "{said}");
    assert!(said.ends_with("pcapfs: 1 of 3 receivers did not get everything\n"), "{said}");
}

#[test]
fn without_receivers_it_ends() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.1.1:80").every(SECOND / 10);
    for _ in 0..600 {
        talk.says(Client, b"x");
    }
    let (first, listeners) = listeners(1);
    let savefile = Savefile::of([talk]);
    let mut running = send_to(first, &savefile, &[]);
    let mut stream = accept(&listeners[0]);
    stream.read_exact(&mut [0; 1]).unwrap();
    drop(stream);
    assert_eq!(running.wait(30).code(), Some(1), "long before a minute");
    assert!(running.stderr().ends_with("1 of 1 receivers did not get everything\n"));
}

#[test]
fn a_connection_ends_when_its_receiver_has_everything() {
    let savefile = sources(2, 1_000);
    let (first, listeners) = listeners(2);
    let mut running = send_to(first, &savefile, &["--speed", "max"]);
    let mut streams: Vec<TcpStream> = listeners.iter().map(accept).collect();
    // A receiver that sends no more, as nc does without input, still receives.
    streams[0].shutdown(std::net::Shutdown::Write).unwrap();
    // What a receiver sends is ignored.
    streams[1].write_all(b"hello").unwrap();
    let mut bytes = vec![0; 1_000];
    streams[1].read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [1; 1_000]);
    assert_eq!(streams[1].read(&mut [0]).unwrap(), 0, "the end comes before it closes");
    assert_eq!(running.try_wait(), None, "it waits for the receivers");
    assert_eq!(read_all(streams.remove(0)), [0; 1_000]);
    drop(streams);
    assert!(running.wait(20).success(), "{}", running.stderr());
}

#[test]
fn a_slow_receiver_holds_up_the_others_and_gets_everything() {
    const BYTES: usize = 48 << 20;
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.1.1:80").segments_of(30_000);
    talk.says(Client, noise(1, BYTES));
    let mut other = Conversation::tcp("10.0.0.2:40000", "10.0.1.1:80");
    other.wait(3_600 * SECOND).says(Client, b"last");
    let expected = talk.stream(Client).to_vec();
    let savefile = Savefile::of([talk, other]);
    let (first, listeners) = listeners(2);
    let mut running = send_to(first, &savefile, &["--speed", "max"]);
    let slow = accept(&listeners[0]);
    setsockopt(&slow, sockopt::RcvBuf, &65_536).unwrap();
    let mut fast = accept(&listeners[1]);
    // It is full now, as far as that can be seen: nothing comes for the other receiver.
    fast.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    assert!(fast.read(&mut [0]).is_err(), "it waits for the slow one");
    fast.set_read_timeout(None).unwrap();
    let reader = thread::spawn(move || read_all(slow));
    assert_eq!(read_all(fast), b"last");
    assert!(reader.join().unwrap() == expected);
    assert!(running.wait(30).success(), "{}", running.stderr());
}

#[test]
fn what_waits_is_sent_after_an_interruption() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.1.1:80");
    talk.says(Client, noise(3, 100_000)).wait(3_600 * SECOND).says(Client, b"never");
    let expected = talk.stream(Client)[..100_000].to_vec();
    let savefile = Savefile::of([talk]);
    let mut receiving = Receiving::start(1, &[]);
    let mut command = send_command(&savefile.path, &receiving, &["--speed", "1"]);
    let mut running = Running::spawn(&mut command);
    wait_for("it begins", 10, || (!receiving.files().is_empty()).then_some(()));
    // The packets of 1,460 bytes are a millisecond apart.
    receiving.wait_bytes(Receiving::PORT, 100_000);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(10).code(), Some(1));
    receiving.end();
    assert_eq!(receiving.contents(), ports([&expected]));
}

#[test]
fn a_name_that_is_neither_a_file_nor_a_capture_is_said_to_be_neither() {
    skip_unless!(mount);
    let fed = Fed::start();
    let folder = tempfile::tempdir().unwrap();
    let _ = run(tool("mkfifo").arg(folder.path().join("pipe")), 10).success();
    let missing = folder.path().join("no.sock");
    let daemons = [None, missing.to_str()];
    for (socket, word, parts) in [
        (daemons[0], "gone.pcap", ["gone.pcap: no such file; ", "gone.pcap: no such capture"]),
        (daemons[1], "gone.pcap", ["gone.pcap: no such file; ", "no pcapfs listens there"]),
        (daemons[0], "pipe", ["pipe: not an ordinary file (write ./pipe", "no such capture"]),
    ] {
        let mut command = fed.daemon.command(["send", word, "127.0.0.1", "5000"]);
        if let Some(socket) = socket {
            command.args(["--socket", socket]);
        }
        let finished = run(command.current_dir(folder.path()), 10);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        }
    }
}
