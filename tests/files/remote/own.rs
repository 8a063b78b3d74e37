//! The connections between two machines are in no capture of either.

use std::io::{Read, Write};
use std::net::TcpStream;

use pcapfs_tests::{Mount, Net, matching, skip_unless, wait_until};

use crate::support::{Far, PORT};

#[test]
fn its_connection_is_in_no_capture_of_either_side() {
    const COUNT: u64 = 40_000;
    skip_unless!(root, "ip", "tcpdump");
    let captures = Mount::new().capture("any", "any").capture("wire", Net::DEVICE);
    let mut far = Far::with_root_mounted(captures);
    let near = Mount::new().inside(&far.net.b).env("XDG_CONFIG_HOME", far.path("config"));
    let near = near.capture("any", "any").capture("wire", Net::PEER);
    let near = near.capture("web", "remote:far/web").start();
    far.fed.feed.send(COUNT / 2, 1000);
    // Another program connects to the same port.
    let address = format!("{}:{PORT}", Net::ADDRESS);
    let mut other = far.net.b.run(|| TcpStream::connect(&address).unwrap());
    let port = other.local_addr().unwrap().port();
    other.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let _ = other.read_to_end(&mut Vec::new());
    drop(other);
    far.fed.feed.send(COUNT / 2, 1000);
    near.wait_stored("web", COUNT);
    let foreign = format!("tcp port {PORT} and port {port}");
    let own = format!("tcp port {PORT} and not port {port}");
    for alias in ["any", "wire"] {
        wait_until("the last packet of the other program is there", 5, || {
            matching(&near, alias, &foreign) >= 6
        });
        for daemon in [&near, far.daemon()] {
            let excluded = daemon.count(alias, "/packets/excluded");
            assert!(excluded > COUNT / 64, "{excluded} of {alias}");
            assert_eq!(matching(daemon, alias, &own), 0, "{alias}");
        }
        // There it is a connection of the service, too.
        assert_eq!(matching(far.daemon(), alias, &foreign), 0, "{alias}");
    }
    let tuples = near.status("any")["excluded"].take();
    assert_eq!(tuples[0]["remote"], address, "{tuples:#}");
    let tuples = far.daemon().status("wire")["excluded"].take();
    assert_eq!((&tuples[0]["local"], &tuples[0]["state"]), (&address.into(), &"listening".into()));
}
