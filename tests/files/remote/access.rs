//! Who is let in: users, permission bits, revoked certificates, sessions that are not resumed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pcapfs_tests::{ALIAS, Mount, Net, skip_unless, tool, wait_until};

use crate::support::{Far, PORT, says};

/// `daemon` is a user of Debian with the group `daemon`.
const MEMBER: &str = "[[remote.client]]\nname = \"laptop-7\"\nuser = \"daemon\"\n";

#[test]
fn a_certificate_maps_to_a_user_and_the_bits_of_the_tree_decide() {
    skip_unless!(root, "ip");
    let mut far = Far::new(MEMBER);
    far.add("far", "laptop-7");
    let text = far.refused(["replay", "far:web", "-w", "/dev/null"]);
    says(&text, &["far: permission denied: ", "on web is missing"]);
    let directory = far.daemon().path(ALIAS);
    // The group of the user.
    chown(&directory, None, Some(1)).unwrap();
    let _ = far.verb(["replay", "far:web", "-w", "/dev/null"]);
    says(&far.refused(["stop", "far:web"]), &["permission denied: the group's w on web"]);
    fs::set_permissions(&directory, Permissions::from_mode(0o770)).unwrap();
    let _ = far.verb(["stop", "far:web"]);
    far.daemon().wait_state(ALIAS, "stopped");
    let _ = far.verb(["start", "far:web"]);
    says(&far.refused(["init", "far:lo"]), &["permission denied: "]);
    far.fed.feed = far.fed.fifo.connect();
}

#[test]
fn a_certificate_that_maps_to_no_user_is_refused_by_name() {
    skip_unless!(root, "ip");
    let far = Far::new(MEMBER);
    far.add("far", "laptop-9");
    let text = far.refused(["list", "far:"]);
    says(&text, &["far: not allowed: ", "'laptop-9' maps to no user", "[[remote.client]]"]);
    far.wait_log("refused: certificate of 'laptop-9': ");
    // The configuration is read again.
    far.reload(&format!("{MEMBER}[[remote.client]]\nname = \"laptop-9\"\nuser = \"root\"\n"));
    says(&far.verb(["list", "far:"]), &["far:web"]);
}

#[test]
fn a_revoked_client_is_gone_within_a_second() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root();
    far.add("other", "laptop-8");
    far.reload(
        "[[remote.client]]\nname = \"laptop-7\"\nuser = \"root\"\n\
         [[remote.client]]\nname = \"laptop-8\"\nuser = \"root\"\n",
    );
    let mut revoked = far.spawn(&mut far.command(["listen", "far:web"]));
    let mut other = far.spawn(&mut far.command(["listen", "other:web"]));
    wait_until("both are readers there", 10, || far.daemon().readers(ALIAS).len() == 2);
    far.fed.send(10);
    let begun = Instant::now();
    let _ = far.identity(&["revoke", "laptop-7"]);
    wait_until("the revoked one is no reader", 5, || far.daemon().readers(ALIAS).len() == 1);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!revoked.wait(5).success());
    says(&revoked.stderr(), &["far: not allowed: ", "is revoked", "pcapfs identity issue"]);
    far.wait_log("connection of 'laptop-7' closed: its certificate is revoked");
    says(&far.refused(["list", "far:"]), &["is revoked"]);
    far.wait_log("refused: certificate of 'laptop-7': its certificate is revoked");
    assert!(other.try_wait().is_none(), "the other one goes on");
    says(&far.verb(["list", "other:"]), &["other:web"]);
}

#[test]
fn a_client_without_an_entry_any_more_is_gone_too() {
    skip_unless!(root, "ip");
    let far = Far::with_root();
    let mut listen = far.spawn(&mut far.command(["listen", "far:web"]));
    wait_until("it is a reader there", 10, || far.daemon().readers(ALIAS).len() == 1);
    far.reload(MEMBER.replace("laptop-7", "laptop-8").as_str());
    assert!(!listen.wait(5).success());
    says(&listen.stderr(), &["not allowed: ", "maps to no user"]);
}

#[test]
fn a_pinned_certificate_needs_no_authority() {
    skip_unless!(root, "ip", "openssl");
    let far = Far::new(MEMBER);
    let (pem, key, certificate) = (far.path("own.pem"), far.path("own.key"), far.path("own.crt"));
    let mut make = tool("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    make.args(["-nodes", "-subj", "/CN=stranger", "-days", "2", "-keyout"]).arg(&key);
    let _ = far.run(make.arg("-out").arg(&certificate)).success();
    let text = fs::read_to_string(&certificate).unwrap() + &fs::read_to_string(&key).unwrap();
    fs::write(&pem, text).unwrap();
    fs::set_permissions(&pem, Permissions::from_mode(0o600)).unwrap();
    let fingerprint = |file: &std::path::Path| {
        let mut print = tool("openssl");
        print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(file);
        let text = far.run(&mut print).success().text().trim().to_owned();
        text.rsplit('=').next().unwrap().to_owned()
    };
    let machine = fingerprint(&far.path("identity/machine.pem"));
    let url = format!("pcap://{}", Net::ADDRESS);
    let mut add = far.command(["remote", "add", "far", &url, "--sha256", &machine, "--identity"]);
    let _ = far.run(add.arg(&pem)).success();
    says(&far.refused(["list", "far:"]), &["does not know the authority of the certificate in"]);
    let own = fingerprint(&certificate);
    far.reload(&format!("[[remote.client]]\nsha256 = \"{own}\"\nuser = \"root\"\n"));
    says(&far.verb(["list", "far:"]), &["far:web"]);
    // A remote whose certificate is another one.
    let mut add = far.command(["remote", "add", "false", &url, "--sha256", &own, "--identity"]);
    let _ = far.run(add.arg(&pem)).success();
    says(&far.refused(["list", "false:"]), &["its certificate is not the one with the SHA-256"]);
}

#[test]
fn a_slow_client_is_overtaken_and_told_what_it_lost() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root_mounted(Mount::new().ring("1M"));
    let file = far.path("slow.pcapng");
    let words = ["listen", "far:web", "--pcapng", "-w", file.to_str().unwrap()];
    let mut slow = far.spawn(&mut far.command(words));
    wait_until("it is a reader there", 10, || far.daemon().readers(ALIAS).len() == 1);
    slow.signal(Signal::SIGSTOP);
    // More than the ring, what may wait for one user, and what sockets and windows hold.
    let sent = 9_000;
    far.fed.feed.send(sent, 8_000);
    far.daemon().wait_stored(ALIAS, sent);
    slow.signal(Signal::SIGCONT);
    let reader = || far.daemon().reader(ALIAS, "live.pcapng", 0);
    wait_until("it has caught up", 20, || reader()["lag_packets"] == 0);
    let (delivered, lost) =
        (reader()["delivered_packets"].clone(), reader()["lost_packets"].clone());
    let (delivered, lost) = (delivered.as_u64().unwrap(), lost.as_u64().unwrap());
    assert!(lost > 0, "{delivered} delivered");
    assert_eq!(delivered + lost, sent);
    assert_eq!(far.daemon().count(ALIAS, "/packets/dropped_kernel"), 0);
    far.daemon().signal(Signal::SIGTERM);
    assert!(slow.wait(20).success(), "{}", slow.stderr());
    let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    assert!(text.contains("packets lost") || text.contains("lost"), "the comment of the lap");
}

#[test]
fn no_session_is_resumed() {
    skip_unless!(root, "ip", "openssl");
    let far = Far::with_root();
    let session = far.path("session.pem");
    let connect = |option: &str| {
        let mut client = tool("openssl");
        let place = format!("{}:{PORT}", Net::ADDRESS);
        client.args(["s_client", "-connect", &place, "-alpn", "h2", "-tls1_3", "-ign_eof"]);
        client.arg("-cert").arg(far.path("laptop-7.pem")).arg("-key");
        client.arg(far.path("laptop-7.pem")).arg("-CAfile").arg(far.path("identity/ca.pem"));
        client.args([option]).arg(&session);
        let mut running = far.spawn(&mut client);
        // The settings of HTTP/2 come when the client is let in.
        wait_until("openssl is let in or refused", 10, || {
            running.try_wait().is_some()
                || String::from_utf8_lossy(&running.stdout()).contains("Verify return code: 0")
        });
        running
    };
    let first = connect("-sess_out");
    let text = String::from_utf8_lossy(&first.stdout()).into_owned();
    says(&text, &["New, TLSv1.3", "Verify return code: 0"]);
    drop(first);
    assert!(!text.contains("Post-Handshake New Session Ticket"), "{text}");
    // No ticket came, so there is nothing to resume: openssl wrote no session that it could offer.
    if session.exists() {
        let second = connect("-sess_in");
        let text = String::from_utf8_lossy(&second.stdout()).into_owned();
        assert!(!text.contains("Reused, TLSv1.3"), "{text}");
    }
    let _ = far.identity(&["revoke", "laptop-7"]);
    let third = connect(if session.exists() { "-sess_in" } else { "-sess_out" });
    let text = String::from_utf8_lossy(&third.stdout()).into_owned();
    assert!(!text.contains("Reused, TLSv1.3"), "{text}");
    far.wait_log("certificate of 'laptop-7': its certificate is revoked");
}
