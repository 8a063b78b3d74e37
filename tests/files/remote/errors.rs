//! Each reason why a remote cannot be used has words of its own, and says what to do.

use std::fs;

use pcapfs_tests::{Net, skip_unless, tool};

use crate::support::{Far, pcapfs, says};

#[test]
fn every_reason_is_told_apart() {
    skip_unless!(root, "ip", "openssl");
    let far = Far::with_root();
    let own = far.path("laptop-7.pem");
    let reason = |name: &str, url: &str, parts: &[&str]| {
        far.add_url(name, url, &own);
        let text = far.refused(["list", &format!("{name}:")]);
        assert!(text.starts_with(&format!("pcapfs: {name}: ")), "{text}");
        says(&text, parts);
    };
    let text = far.refused(["list", "nowhere:web"]);
    says(&text, &["nowhere: no such remote (have: far; ", "pcapfs remote add"]);
    reason(
        "unresolved",
        "pcap://no-such-host.invalid",
        &["no-such-host.invalid does not resolve: "],
    );
    let closed = format!("pcap://{}:2021", Net::ADDRESS);
    reason("closed", &closed, &["10.77.0.1:2021: connection refused", "listen in [remote]"]);
    // The same machine under an address that its certificate does not have.
    let mut add = tool("ip");
    add.args(["-n", far.net.a.name(), "address", "add", "10.77.0.3/24", "dev", Net::DEVICE]);
    let _ = far.run(&mut add).success();
    let mut forward = pcapfs_tests::python(FORWARD);
    forward.args(["10.77.0.3", Net::ADDRESS]);
    let forward = far.net.a.run(|| pcapfs_tests::Running::spawn(&mut forward));
    forward.wait_stdout("it listens", 10, |bytes| bytes.starts_with(b"listening"));
    let parts = ["certificate is not for this name", "far.example", "identity init --name"];
    reason("misnamed", "pcap://10.77.0.3", &parts);

    // Another authority, which does not know this one either.
    let other = far.path("other");
    let mut init = pcapfs();
    let _ = far.run(init.args(["identity", "init", "--dir"]).arg(&other)).success();
    let stranger = far.path("stranger.pem");
    let mut issue = pcapfs();
    issue.args(["identity", "issue", "laptop-7", "--dir"]).arg(&other).arg("-o").arg(&stranger);
    let _ = far.run(&mut issue).success();
    far.add_url("strange", &format!("pcap://{}", Net::ADDRESS), &stranger);
    let text = far.refused(["list", "strange:"]);
    says(&text, &["its certificate is of another authority", "pcapfs identity issue"]);
    // It believes the far machine, but that one does not believe it.
    let mixed = far.path("mixed.pem");
    let text = fs::read_to_string(&stranger).unwrap();
    let end = "-----END PRIVATE KEY-----\n";
    let place = text.find(end).unwrap() + end.len();
    let authority = fs::read_to_string(far.path("identity/ca.pem")).unwrap();
    private(&mixed, &(text[..place].to_owned() + &authority));
    far.add_url("mixed", &format!("pcap://{}", Net::ADDRESS), &mixed);
    let text = far.refused(["list", "mixed:"]);
    says(&text, &["not allowed: ", "does not know the authority of the certificate in"]);

    // Expired: found here before anybody is asked.
    let expired = far.path("expired.pem");
    private(&expired, &expired_certificate(&far, "laptop-7"));
    far.add_url("expired", &format!("pcap://{}", Net::ADDRESS), &expired);
    let text = far.refused(["list", "expired:"]);
    says(&text, &["expired.pem has expired on 2", "pcapfs identity issue"]);
    drop(forward);

    // The certificate of the far machine: said there too.
    let text = expired_certificate(&far, "far.example");
    let key = text.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let (certificate, rest) = text.split_at(key);
    let end = rest.find("-----END PRIVATE KEY-----\n").unwrap();
    fs::write(far.path("identity/machine.pem"), certificate).unwrap();
    fs::write(far.path("identity/machine.key"), &rest[..end + 26]).unwrap();
    far.reload("[[remote.client]]\nname = \"laptop-7\"\nuser = \"root\"\n");
    let text = far.refused(["list", "far:"]);
    says(&text, &["far: 10.77.0.1:2020: its certificate has expired", "pcapfs identity show"]);
    let status = far.daemon().status("");
    let warning = status["remote"]["certificate"]["warning"].as_str().unwrap();
    says(warning, &["the certificate of this machine has expired on 2020-02-01"]);
    far.wait_log(warning);
}

#[test]
fn a_service_that_cannot_listen_is_said_at_the_start() {
    skip_unless!(root, "ip");
    let far = Far::with_root();
    // The same configuration again: the port is taken.
    let fifo = pcapfs_tests::Fifo::new();
    let mount = || {
        pcapfs_tests::Mount::new()
            .inside(&far.net.a)
            .capture("web", &fifo.source())
            .arg("--config")
            .arg(far.path("pcapfs.toml"))
    };
    let refused = mount().try_start().expect_err("the port is taken");
    says(&refused.stderr, &["remote: 10.77.0.1:2020: ", "choose another port: listen in [remote]"]);
    assert!(!refused.left_mounted);
    fs::remove_file(far.path("identity/machine.key")).unwrap();
    let refused = mount().try_start().expect_err("there is no key");
    says(&refused.stderr, &["remote: ", "machine.key: No such file"]);
}

fn private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A certificate of the far authority that ended years ago, with its key and the authority.
fn expired_certificate(far: &Far, name: &str) -> String {
    let script = "set -e; cd \"$1\"; mkdir -p old; : > old/index; echo 01 > old/serial
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj \"/CN=$2\" -keyout old/key -out old/request 2> /dev/null
        printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=old/index\\nserial=old/serial\\n\
            new_certs_dir=old\\ndefault_md=sha256\\npolicy=p\\n[p]\\ncommonName=supplied\\n\
            [e]\\nextendedKeyUsage=clientAuth,serverAuth\\nsubjectAltName=IP:10.77.0.1\\n' > old/config
        openssl ca -batch -config old/config -extensions e -cert identity/ca.pem \
            -keyfile identity/ca.key -startdate 200101000000Z -enddate 200201000000Z \
            -in old/request -out old/certificate -notext 2> old/said || { cat old/said; exit 1; }
        cat old/certificate old/key identity/ca.pem";
    let mut make = tool("sh");
    make.args(["-c", script, "sh"]).arg(far.path("")).arg(name);
    far.run(&mut make).success().text().to_owned()
}

/// Passes connections at one address on to another, port 2020 both.
const FORWARD: &str = "
import socket, sys, threading
listener = socket.create_server((sys.argv[1], 2020))
print('listening', flush=True)
def copy(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
while True:
    near = listener.accept()[0]
    far = socket.create_connection((sys.argv[2], 2020))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
";
