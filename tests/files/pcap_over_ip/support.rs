//! Peers of the daemon: ports, senders, servers.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pcapfs_tests::savefile::{Format, append_numbered};
use pcapfs_tests::{ALIAS, Daemon, wait_for};
use serde_json::Value;

/// An address of the loopback interface at which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound")
}

/// Bytes of the numbered packets `first` to `last`, without a header.
pub(crate) fn records(format: Format, first: u64, last: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sequence in first..=last {
        append_numbered(&mut bytes, format, sequence, 200);
    }
    bytes
}

/// A savefile with the numbered packets `first` to `last`.
pub(crate) fn savefile(format: Format, first: u64, last: u64) -> Vec<u8> {
    [format.header(), records(format, first, last)].concat()
}

/// A connection to `address`, as soon as somebody listens there.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    wait_for("somebody listens", 10, || TcpStream::connect(address).ok())
}

/// A connection on which these bytes were sent.
pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("the daemon reads");
    stream
}

/// The next connection of the daemon.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a listener");
    let (stream, _) = wait_for("the daemon connects", 20, || listener.accept().ok());
    stream.set_nonblocking(false).expect("a stream");
    stream
}

/// Waits until the error of the capture contains `part`.
#[track_caller]
pub(crate) fn wait_error(daemon: &Daemon, part: &str) {
    let mut error = Value::Null;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !error.as_str().is_some_and(|error| error.contains(part)) {
        assert!(Instant::now() < deadline, "no {part:?} in {error}");
        error = daemon.status(ALIAS)["error"].take();
    }
}

/// Checks the sum of the counters.
#[track_caller]
pub(crate) fn check_sum(daemon: &Daemon) {
    let packets = daemon.status(ALIAS)["packets"].take();
    let count = |name: &str| packets[name].as_u64().expect("a count");
    let dropped = count("dropped_kernel") + count("dropped_oversize");
    assert_eq!(count("seen"), count("stored") + dropped, "{packets:#}");
}
