//! Peers that are no clients: the service goes on, and local captures lose no packet.

use std::time::{Duration, Instant};

use pcapfs_tests::measure::{anonymous_memory, descriptors};
use pcapfs_tests::{ALIAS, Net, Running, python, skip_unless, tool, wait_until};

use crate::support::{Far, PORT, says};

/// Counts of the service.
fn count(far: &Far, name: &str) -> u64 {
    far.daemon().status("")["remote"][name].as_u64().unwrap()
}

/// A Python program of the near machine; its arguments are the address and the port.
fn peer(far: &Far, program: &str) -> Running {
    let mut python = python(program);
    python.args([Net::ADDRESS, &PORT.to_string()]);
    far.spawn(&mut python)
}

/// Sends packets, and checks that none of them is lost and that clients are served.
#[track_caller]
fn goes_on(far: &mut Far) {
    let before = far.daemon().count(ALIAS, "/packets/stored");
    far.fed.send(500);
    let status = far.daemon().status(ALIAS);
    assert_eq!(status["packets"]["stored"], before + 500);
    for dropped in ["dropped_kernel", "dropped_interface", "dropped_oversize"] {
        assert_eq!(status["packets"][dropped], 0, "{dropped}");
    }
    says(&far.verb(["list", "far:"]), &["far:web"]);
    let begun = Instant::now();
    says(&far.daemon().verb(["list"]), &[ALIAS]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn what_is_no_client_is_refused() {
    skip_unless!(root, "ip", "openssl");
    let mut far = Far::with_root();
    let place = format!("{}:{PORT}", Net::ADDRESS);
    // TLS 1.2, and a client without a certificate.
    for (options, said) in [
        (&["-tls1_2"][..], "it does not speak TLS 1.3"),
        (&["-tls1_3"][..], "it has no certificate"),
    ] {
        let mut client = tool("openssl");
        client.args(["s_client", "-connect", &place, "-ign_eof"]).args(options);
        let mut client = far.spawn(&mut client);
        let _ = client.wait(10);
        let stderr = client.stderr();
        assert!(stderr.contains("alert"), "{stderr}");
        far.wait_log(said);
    }
    // HTTP/2 without TLS, and noise: the connection ends, and the peer is told why.
    let mut ended = peer(
        &far,
        "
import os, socket, sys
place = (sys.argv[1], int(sys.argv[2]))
for bytes in (b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes(9), b'GET / HTTP/1.1\\r\\n\\r\\n',
              os.urandom(65536), bytes(65536), b'\\x16\\x03\\x01\\xff\\xff' + bytes(65535)):
    peer = socket.create_connection(place, 10)
    try:
        peer.sendall(bytes)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass
    except ConnectionError:
        pass
print('ended')
",
    );
    assert!(ended.wait(30).success(), "{}", ended.stderr());
    far.wait_log("it does not speak TLS\n");
    assert!(count(&far, "refused") >= 7, "{}", count(&far, "refused"));
    goes_on(&mut far);
}

#[test]
fn a_thousand_connections_that_say_nothing_hold_up_no_client() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root();
    goes_on(&mut far);
    let memory = anonymous_memory(far.daemon().pid());
    let before = descriptors(far.daemon().pid());
    let silent = peer(
        &far,
        "
import socket, sys, time
place = (sys.argv[1], int(sys.argv[2]))
peers = []
for number in range(1000):
    peer = socket.socket()
    peer.settimeout(10)
    try:
        peer.connect(place)
        # Half of them begin a handshake, a byte at a time.
        peer.send(b'\\x16' if number % 2 else b'')
    except OSError:
        pass
    peers.append(peer)
print('connected', flush=True)
while True:
    for peer in peers:
        try:
            peer.send(b'\\x03')
        except OSError:
            pass
    time.sleep(1)
",
    );
    silent.wait_stdout("all have connected", 60, |bytes| bytes.starts_with(b"connected"));
    wait_until("most of them are closed", 20, || count(&far, "too_many") > 500);
    let open = descriptors(far.daemon().pid());
    assert!(open <= before + 64 + 16, "{before} descriptors, then {open}");
    goes_on(&mut far);
    let grown = anonymous_memory(far.daemon().pid()).saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes");
    // Those that are still there have ten seconds for the whole handshake.
    wait_until("all of them are gone", 20, || descriptors(far.daemon().pid()) <= before + 4);
    goes_on(&mut far);
    drop(silent);
}

/// A client of TLS that is let in, and then sends a program's bytes of HTTP/2.
fn intruder(far: &Far, program: &str) -> Running {
    let program = format!("{HTTP2}{program}");
    let mut python = python(&program);
    python.args([Net::ADDRESS, &PORT.to_string()]);
    python.arg(far.path("laptop-7.pem")).arg(far.path("identity/ca.pem"));
    far.spawn(&mut python)
}

const HTTP2: &str = r"
import socket, ssl, struct, sys
def connected():
    context = ssl.create_default_context(cafile=sys.argv[4])
    context.load_cert_chain(sys.argv[3])
    context.set_alpn_protocols(['h2'])
    plain = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    peer = context.wrap_socket(plain, server_hostname=sys.argv[1])
    peer.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(4, 0, 0, b''))
    return peer
def frame(kind, flags, stream, payload):
    length = struct.pack('>I', len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack('>I', stream) + payload
def text(name, value):
    return b'\x00' + bytes([len(name)]) + name + bytes([len(value)]) + value
def headers(stream, path):
    block = b''.join(text(*pair) for pair in (
        (b':method', b'POST'), (b':scheme', b'https'), (b':path', path), (b':authority', b'far'),
        (b'content-type', b'application/grpc'), (b'te', b'trailers')))
    return frame(1, 4, stream, block)
LIST = b'/pcapfs.control.v1.Control/List'
def read_all(peer):
    got = b''
    try:
        while bytes := peer.recv(65536):
            got += bytes
    except (OSError, ssl.SSLError):
        pass
    return got
";

#[test]
fn a_client_with_a_certificate_cannot_fill_the_memory() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root();
    goes_on(&mut far);
    let memory = anonymous_memory(far.daemon().pid());
    // A message of 1 GiB is announced; then bytes come as long as they are taken.
    let mut announced = intruder(
        &far,
        r"
peer = connected()
peer.settimeout(3)
peer.sendall(headers(1, LIST) + frame(0, 0, 1, b'\x00' + struct.pack('>I', 1 << 30) + bytes(1000)))
got = read_all(peer)
assert b'grpc-status' in got or got, got
print('answered', len(got))
",
    );
    assert!(announced.wait(30).success(), "{}", announced.stderr());
    // Messages that never end, on every stream that a connection may have, over many connections.
    let filling = intruder(
        &far,
        r"
peers = []
for _ in range(40):
    peer = connected()
    peer.settimeout(0.2)
    try:
        for stream in range(1, 200, 2):
            peer.sendall(headers(stream, LIST))
            peer.sendall(frame(0, 0, stream, b'\x00' + struct.pack('>I', 60000)))
            for _ in range(8):
                peer.sendall(frame(0, 0, stream, bytes(8192)))
    except (OSError, ssl.SSLError):
        pass
    peers.append(peer)
print('filled', flush=True)
import time
time.sleep(60)
",
    );
    filling.wait_stdout("it has sent what was taken", 60, |bytes| bytes.starts_with(b"filled"));
    let grown = anonymous_memory(far.daemon().pid()).saturating_sub(memory);
    // 256 KiB of each connection, and what TLS and HTTP/2 keep for it.
    assert!(grown < 40 * (512 << 10), "{grown} bytes");
    drop(filling);
    goes_on(&mut far);
}
