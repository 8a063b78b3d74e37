//! Packets with which pcapfs carries packets are not in captures, and those of others are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::{Uid, setfsuid};
use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{
    Daemon, Fed, Fifo, Mount, Net, Running, User, binary, matching, run, skip_unless, tool,
    wait_for, wait_until,
};

/// A user without rights.
const USER: User = User { id: 54_321, group: 54_321, groups: &[] };

/// Bytes that a connection carries.
const LEN: usize = 2 << 20;

/// Addresses of the two ends of the wire, also of IPv6.
const ADDRESSES: [[&str; 2]; 2] = [["10.77.0.1", "10.77.0.2"], ["fd77::1", "fd77::2"]];

/// A wire with IPv6.
fn net() -> Net {
    let net = Net::new();
    for (end, namespace, device) in [(0, &net.a, Net::DEVICE), (1, &net.b, Net::PEER)] {
        namespace.run(|| {
            for which in ["all", "default", device] {
                let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                fs::write(path, "0").unwrap();
            }
        });
        let address = format!("{}/64", ADDRESSES[1][end]);
        ip(&["-n", namespace.name(), "address", "add", &address, "dev", device, "nodad"]);
    }
    net
}

/// Frames to TCP port `port` of the daemon's machine: in a VLAN, in two, and in two fragments.
fn tagged_and_in_fragments(port: u16) -> Vec<Vec<u8>> {
    let (from, to) = ([10, 77, 0, 2], [10, 77, 0, 1]);
    let segment = frames::tcp((from, 40_000).into(), (to, port).into(), [1, 1], 0x10, &[7; 60]);
    let packet = frames::ipv4((from, to), frames::TCP, &segment);
    let (first, second) = segment.split_at(40);
    let fragment = |place, payload| {
        let packet = frames::ipv4_fragment((from, to), frames::TCP, place, port, payload);
        frames::ethernet(&[], frames::IPV4, &packet)
    };
    vec![
        frames::ethernet(&[(0x8100, 5)], frames::IPV4, &packet),
        frames::ethernet(&[(0x88a8, 5), (0x8100, 6)], frames::IPV4, &packet),
        fragment(0x2000, first),
        fragment(5, second),
    ]
}

/// Sends back what it receives, connection by connection, until one sends nothing.
fn echo(listener: TcpListener) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        loop {
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            if bytes.is_empty() {
                return;
            }
            stream.write_all(&bytes).unwrap();
        }
    })
}

fn exchange(mut stream: TcpStream, len: usize) {
    let mut received = Vec::new();
    let mut sender = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            sender.write_all(&vec![7; len]).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut received).unwrap();
    });
    assert_eq!(received.len(), len);
}

/// Waits until a packet sent now is in the capture, and with it all before it. The kernel may drop
/// one after others that were sent at full speed, so it is sent again.
fn settle(net: &Net, daemon: &Daemon, aliases: &[&str], mark: u16) {
    let mut sender = net.sender_to(40, mark);
    for alias in aliases {
        wait_until("the last packet is stored", 5, || {
            sender.send(1);
            matching(daemon, alias, &format!("udp port {mark}")) > 0
        });
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// `pcapfs exclude`, when the daemon has agreed.
fn excluding(daemon: &Daemon, local: &str) -> Running {
    let running = Running::spawn(&mut daemon.command(["exclude", local]));
    wait_until("the daemon agrees", 5, || running.stderr().contains("left out of"));
    running
}

#[test]
fn an_outlet_is_left_out_on_all_links_and_others_stay() {
    skip_unless!(mount, root, "ip", "tcpdump", "python3");
    let net = net();
    let daemon = Mount::new()
        .ring("64M")
        .inside(&net.a)
        .capture("any", "any")
        .capture("wire", Net::DEVICE)
        .start();
    let outlet = net.a.run(|| TcpListener::bind("[::]:0").unwrap());
    let ours = port(&outlet);
    // Another program here and one there have the same port as the outlet's clients see.
    let far = net.b.run(|| TcpListener::bind(("::", ours)).unwrap());
    let (outlet, far) = (echo(outlet), echo(far));
    let mut exclude = excluding(&daemon, &format!("[::]:{ours}"));
    assert!(exclude.stderr().contains("left out of any, wire"), "{}", exclude.stderr());

    for [near_address, far_address] in ADDRESSES {
        let to = |address: &str| SocketAddr::new(address.parse().unwrap(), ours);
        net.b.run(|| exchange(TcpStream::connect(to(near_address)).unwrap(), LEN));
        net.a.run(|| exchange(TcpStream::connect(to(far_address)).unwrap(), 1000));
    }
    net.send_frames(&tagged_and_in_fragments(ours));
    net.send_frames(&tagged_and_in_fragments(ours ^ 1));
    settle(&net, &daemon, &["any", "wire"], 4001);
    for alias in ["any", "wire"] {
        for [near, far] in ADDRESSES {
            let [from, to] =
                ["src", "dst"].map(|way| format!("{way} host {near} and {way} port {ours}"));
            let outlet = format!("({from}) or ({to})");
            assert_eq!(matching(&daemon, alias, &outlet), 0, "{alias}: {outlet}");
            let other = format!("host {far} and port {ours}");
            assert!(matching(&daemon, alias, &other) >= 8, "{alias}: {other}");
        }
        // Four frames of each kind were sent.
        let fragments = format!("ip[4:2] = {ours} and ip[6:2] & 0x3fff != 0");
        assert_eq!(matching(&daemon, alias, &fragments), 0);
        assert_eq!(
            matching(&daemon, alias, &format!("ip[4:2] = {} and ip[6:2] & 0x3fff != 0", ours ^ 1)),
            2
        );
        if alias == "wire" {
            assert_eq!(matching(&daemon, alias, "vlan"), 2, "those of the other port");
        }
        let status = daemon.status(alias);
        let of = |name: &str| status["packets"][name].as_u64().unwrap();
        assert_eq!(of("seen"), of("stored") + of("excluded") + of("dropped_kernel"), "{status:#}");
        assert!(of("excluded") > 100, "{status:#}");
        let tuples = status["excluded"].as_array().unwrap();
        assert_eq!(tuples.len(), 2, "{status:#}");
        assert_eq!(tuples[0]["local"], format!("[::]:{ours}"));
        assert_eq!(tuples[0]["state"], "listening");
    }
    let root = daemon.json(["status", "--json"]);
    assert_eq!(root["excluded"], daemon.status("any")["excluded"]);

    // With the call, the exclusion ends.
    assert!(exclude.end_with(Signal::SIGINT).as_secs() < 5);
    wait_until("the daemon knows", 5, || daemon.status("any")["excluded"][0]["state"] == "closed");
    let to = |address: &str| SocketAddr::new(address.parse().unwrap(), ours);
    net.b.run(|| exchange(TcpStream::connect(to(ADDRESSES[0][0])).unwrap(), 1000));
    net.b.run(|| drop(TcpStream::connect(to(ADDRESSES[0][0])).unwrap()));
    net.a.run(|| drop(TcpStream::connect(to(ADDRESSES[0][1])).unwrap()));
    settle(&net, &daemon, &["any"], 4002);
    assert!(matching(&daemon, "any", &format!("dst host 10.77.0.1 and dst port {ours}")) >= 5);
    outlet.join().unwrap();
    far.join().unwrap();
}

/// A listening socket of the user.
fn of_user(net: &Net) -> TcpListener {
    net.a.run(|| {
        // Only of this thread, which ends.
        setfsuid(Uid::from_raw(USER.id));
        TcpListener::bind("10.77.0.1:0").unwrap()
    })
}

/// A command of the user.
fn as_user(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = USER.command(binary("pcapfs").to_str().unwrap());
    command.args(words).env("PCAPFS_SOCKET", daemon.socket());
    command
}

fn chmod(daemon: &Daemon, alias: &str, mode: u32) {
    fs::set_permissions(daemon.path(alias), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_user_excludes_sockets_of_the_user_where_w_allows_it() {
    skip_unless!(mount, root, "ip", "setpriv");
    let net = Net::new();
    let daemon =
        Mount::new().inside(&net.a).capture("any", "any").capture("wire", Net::DEVICE).start();
    let listener = of_user(&net);
    let port = port(&listener);
    let of_root = net.a.run(|| TcpListener::bind("10.77.0.1:0").unwrap());
    let local = format!("10.77.0.1:{port}");
    let exclude = |words: &[&str]| {
        let words: Vec<&str> = ["exclude"].iter().chain(words).copied().collect();
        as_user(&daemon, &words)
    };
    let refused = |words: &[&str], part: &str| {
        let finished = run(&mut exclude(words), 10);
        assert!(!finished.status.success() && finished.stderr.contains(part), "{finished:?}");
    };
    chmod(&daemon, "any", 0o755);
    chmod(&daemon, "wire", 0o755);
    refused(
        &[&local],
        "packets of your socket are stored: permission denied: the others' w on any is missing",
    );
    chmod(&daemon, "wire", 0o757);
    refused(&[&local, "--capture", "any"], "the others' w on any is missing");
    refused(&[&local, "--capture", "web"], "web: no such capture");
    let foreign = format!("10.77.0.1:{}", of_root.local_addr().unwrap().port());
    refused(&[&foreign], &format!("{foreign}: the socket belongs to root"));
    refused(&["10.77.0.1:9"], "no TCP socket listens at 10.77.0.1:9");
    refused(&[&local, "10.77.0.2:9"], &format!("no connection from {local} to 10.77.0.2:9"));
    assert_eq!(daemon.status("any")["excluded"].as_array().unwrap().len(), 0);

    let mut running = Running::spawn(&mut exclude(&[&local]));
    wait_until("the daemon agrees", 5, || running.stderr().contains("still stored by any"));
    assert!(running.stderr().contains(&format!("packets of {local} are left out of wire")));
    let tuples = |alias| daemon.status(alias)["excluded"].as_array().unwrap().len();
    assert_eq!((tuples("any"), tuples("wire")), (0, 1));
    net.b.run(|| drop(TcpStream::connect(local.as_str()).unwrap()));
    settle(&net, &daemon, &["any", "wire"], 4001);
    let filter = format!("tcp port {port}");
    assert!(matching(&daemon, "any", &filter) >= 3);
    assert_eq!(matching(&daemon, "wire", &filter), 0);

    // The right counts for as long as it is there.
    chmod(&daemon, "wire", 0o755);
    wait_until("the call has ended", 5, || running.try_wait().is_some());
    assert!(running.stderr().contains("the others' w on any is missing"), "{}", running.stderr());
    wait_until("so has the exclusion", 5, || {
        daemon.status("wire")["excluded"][0]["state"] == "closed"
    });
}

/// The own end of a connection that a capture leaves out, when the status shows it.
fn own_end(daemon: &Daemon, far: SocketAddr) -> String {
    let mut end = None;
    wait_until("the status shows the connection", 5, || {
        let status = daemon.status("any");
        let tuples = status["excluded"].as_array().unwrap();
        let found = tuples
            .iter()
            .find(|tuple| tuple["remote"] == far.to_string() && tuple["state"] == "open");
        end = found.map(|tuple| tuple["local"].as_str().unwrap().to_owned());
        end.as_ref().is_some_and(|end| !end.starts_with("0.0.0.0"))
    });
    end.unwrap()
}

#[test]
fn connections_of_pcap_over_ip_are_left_out_from_their_syn_on() {
    const COUNT: u64 = 30_000;
    skip_unless!(mount, root, "ip", "tcpdump");
    let net = net();
    let savefile = numbered(Format::default(), COUNT, 1000);
    let far = net.b.run(|| TcpListener::bind("10.77.0.2:0").unwrap());
    let address = far.local_addr().unwrap();
    let mut mount = Mount::new().ring("64M").inside(&net.a);
    let listening = net.a.run(|| TcpListener::bind("10.77.0.1:0").unwrap().local_addr().unwrap());
    for (alias, source) in [
        ("any", "any tcp or udp".to_owned()),
        ("wire", "wire-a tcp or udp".to_owned()),
        ("out", format!("tcp:{address}")),
        ("in", format!("tcp-listen:{listening}")),
    ] {
        mount = mount.capture(alias, &source);
    }
    let daemon = mount.start();
    // The capture connects, and so does another program.
    let own = far.accept().unwrap().0;
    let own_end = own_end(&daemon, address);
    assert_eq!(own.peer_addr().unwrap().to_string(), own_end);
    let mut other = net.a.run(|| TcpStream::connect(address).unwrap());
    let others = other.local_addr().unwrap().port();
    let foreign = far.accept().unwrap().0;
    let sender = net.b.run(|| TcpStream::connect(listening).unwrap());
    thread::scope(|scope| {
        for mut stream in [own, foreign, sender] {
            let savefile = &savefile;
            scope.spawn(move || stream.write_all(savefile).unwrap());
        }
        let mut received = Vec::new();
        other.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), savefile.len());
    });
    for alias in ["out", "in"] {
        daemon.wait_stored(alias, COUNT);
    }
    settle(&net, &daemon, &["any", "wire"], 4001);
    let own_port = own_end.rsplit_once(':').unwrap().1;
    for alias in ["any", "wire"] {
        for port in [own_port, &listening.port().to_string()] {
            assert_eq!(matching(&daemon, alias, &format!("tcp port {port}")), 0, "{alias}");
        }
        let status = daemon.status(alias);
        let of = |name: &str| status["packets"][name].as_u64().unwrap();
        assert_eq!(of("seen"), of("stored") + of("excluded") + of("dropped_kernel"), "{status:#}");
        // The kernel joins segments, up to 64 KiB.
        let own = of("excluded") + of("dropped_kernel");
        assert!(own >= 2 * savefile.len() as u64 / 65_536, "{status:#}");
        let opening = format!("tcp port {others} and tcp[tcpflags] & tcp-syn != 0");
        assert_eq!(matching(&daemon, alias, &opening), 2, "{alias}");
        if of("dropped_kernel") == 0 {
            let bytes = captured_payload(&daemon, alias, others);
            assert!(bytes >= savefile.len(), "{alias}: {bytes} bytes of another program");
        }
    }
}

#[test]
fn connections_over_tls_are_left_out_too() {
    const COUNT: u64 = 10_000;
    skip_unless!(mount, root, "ip", "tcpdump", "openssl");
    let net = net();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let identity = |words: &[&str]| {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        command.arg("identity").args(words).args(["--dir", &path("identity")]);
        let _ = run(&mut command, 10).success();
    };
    identity(&["init", "--name", "10.77.0.1,10.77.0.2"]);
    identity(&["issue", "laptop", "-o", &path("laptop.pem")]);
    let fed = Fed::with(Mount::new().ring("64M").inside(&net.b));
    let mut serve = fed.daemon.command(["serve", "web", "--from", "follow", "--listen"]);
    serve.args(["10.77.0.2:0", "--tls", "--identity", &path("identity")]);
    let serving = net.b.run(|| Running::spawn(&mut serve));
    let far: SocketAddr = wait_for("it serves", 10, || {
        let said = serving.stderr();
        said.split_once("serving web at ")?.1.split(' ').next()?.parse().ok()
    });
    let listening = net.a.run(|| TcpListener::bind("10.77.0.1:0").unwrap().local_addr().unwrap());
    let mut mount = Mount::new().ring("64M").inside(&net.a);
    for (alias, source) in [
        ("any", "any tcp or udp".to_owned()),
        ("wire", "wire-a tcp or udp".to_owned()),
        ("out", format!("tls:{far},identity={}", path("laptop.pem"))),
        ("in", format!("tls-listen:{listening},identity={}", path("identity"))),
    ] {
        mount = mount.capture(alias, &source);
    }
    let daemon = mount.start();
    let mut fed = fed;
    fed.feed.send(COUNT, 1000);
    daemon.wait_stored("out", COUNT);
    let savefile = folder.path().join("sent.pcap");
    fs::write(&savefile, numbered(Format::default(), COUNT, 1000)).unwrap();
    let mut send = tool("openssl");
    send.args(["s_client", "-quiet", "-connect", &listening.to_string()]);
    send.args(["-cert", &path("laptop.pem"), "-key", &path("laptop.pem")]);
    send.stdin(fs::File::open(&savefile).unwrap());
    let sending = net.b.run(|| Running::spawn(&mut send));
    daemon.wait_stored("in", COUNT);
    drop(sending);
    settle(&net, &daemon, &["any", "wire"], 4003);
    for alias in ["any", "wire"] {
        for port in [far.port(), listening.port()] {
            assert_eq!(matching(&daemon, alias, &format!("tcp port {port}")), 0, "{alias}");
        }
        // The kernel joins segments, up to 64 KiB.
        let status = daemon.status(alias);
        let of = |name: &str| status["packets"][name].as_u64().unwrap();
        assert_eq!(of("seen"), of("stored") + of("excluded") + of("dropped_kernel"), "{status:#}");
        let own = of("excluded") + of("dropped_kernel");
        assert!(own >= 2 * COUNT * 1000 / 65_536, "{status:#}");
    }
}

/// Bytes of payload to a port, in all captured segments.
fn captured_payload(daemon: &Daemon, alias: &str, port: u16) -> usize {
    let mut tcpdump = tool("tcpdump");
    tcpdump.args(["-n", "-q", "-r"]).arg(daemon.path(&format!("{alias}/replay.pcap")));
    let text = run(tcpdump.arg(format!("tcp dst port {port}")), 20).success();
    let lens =
        text.text().lines().filter_map(|line| line.rsplit_once("tcp ")?.1.parse::<usize>().ok());
    lens.sum()
}

/// `pcapfs serve` of `web`, and its address.
fn serving(net: &Net, command: &mut Command, address: &str) -> (Running, SocketAddr) {
    let listen = SocketAddr::new(address.parse().unwrap(), 0).to_string();
    command.args(["--listen", &listen, "--insecure", "--from", "replay"]);
    let running = net.a.run(|| Running::spawn(command));
    let address = wait_for("it serves", 10, || {
        let said = running.stderr();
        let (_, rest) = said.split_once("serving web at ")?;
        rest.split(' ').next()?.parse().ok()
    });
    (running, address)
}

#[test]
fn a_served_capture_is_left_out_at_full_speed() {
    const COUNT: u64 = 50_000;
    skip_unless!(mount, root, "ip", "tcpdump", "setpriv");
    let net = net();
    let fifo = Fifo::new();
    let mount = Mount::new().ring("64M").inside(&net.a);
    let mount = mount.capture("any", "any tcp or udp").capture("wire", "wire-a tcp or udp");
    let daemon = mount.capture("web", &fifo.source()).start();
    fifo.connect().send(COUNT, 1000);
    daemon.wait_stored("web", COUNT);
    for [near, _] in ADDRESSES {
        let (mut serving, address) = serving(&net, &mut daemon.command(["serve", "web"]), near);
        let mut bytes = Vec::new();
        net.b.run(|| TcpStream::connect(address).unwrap()).read_to_end(&mut bytes).unwrap();
        assert_eq!(check_prefix(&bytes).unwrap().whole().len() as u64, COUNT);
        assert!(!serving.stderr().contains("warning"), "{}", serving.stderr());
        assert!(serving.end_with(Signal::SIGINT).as_secs() < 5);
        settle(&net, &daemon, &["any", "wire"], address.port());
        for alias in ["any", "wire"] {
            let filter = format!("tcp port {}", address.port());
            assert_eq!(matching(&daemon, alias, &filter), 0, "{alias} {near}");
            assert!(daemon.count(alias, "/packets/excluded") > bytes.len() as u64 / 65_536);
        }
    }
    // A user without the right is warned, and the packets stay.
    chmod(&daemon, "web", 0o755);
    let mut serve = as_user(&daemon, &["serve", "web"]);
    let (serving, address) = serving(&net, &mut serve, "10.77.0.1");
    let expected = "warning: packets of your socket are stored: permission denied: the others' w";
    assert!(serving.stderr().contains(expected), "{}", serving.stderr());
    net.b.run(|| TcpStream::connect(address).unwrap()).read_to_end(&mut Vec::new()).unwrap();
    settle(&net, &daemon, &["any"], address.port());
    assert!(matching(&daemon, "any", &format!("tcp port {}", address.port())) > 50);
}

#[test]
fn a_socket_that_is_closed_ends_the_call() {
    skip_unless!(mount, root, "ip");
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).capture("wire", Net::DEVICE).start();
    let listener = net.a.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let local = listener.local_addr().unwrap().to_string();
    let mut exclude = excluding(&daemon, &local);
    drop(listener);
    assert!(!exclude.wait(5).success());
    assert!(exclude.stderr().contains(&format!("no TCP socket listens at {local}")));
    for (word, part) in [
        ("127.0.0.1:0", "is no address with a port"),
        ("localhost:80", "invalid value 'localhost:80'"),
    ] {
        let finished = run(&mut daemon.command(["exclude", word]), 10);
        assert!(finished.stderr.contains(part), "{finished:?}");
    }
    assert!(Path::new(daemon.mountpoint()).exists());
}
