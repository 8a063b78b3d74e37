//! Flows of a daemon that recovers a ring.

use std::fs;

use pcapfs_tests::conversation::{EPOCH, merged, records};
use pcapfs_tests::flows::{everything, flow, lines, names, wait_flow};
use pcapfs_tests::{ALIAS, Daemon, Fifo, Mount, Server, skip_unless, wait_until};
use tempfile::TempDir;

use crate::support::{exchange, sundry, talk, wait_settled};

#[test]
fn flows_are_there_again_after_a_crash() {
    skip_unless!(mount);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let mounts = TempDir::new().unwrap();
    let fifo = Fifo::new();
    let mount = || {
        let mount = Mount::new().ring_dir(rings.path()).mountpoint(mounts.path());
        mount.capture(ALIAS, &fifo.source()).start()
    };
    let daemon = mount();
    let mut pipe = fifo.connect();
    let mut talks = sundry();
    let mut open = talk(77).at(EPOCH + 1_234);
    open.open();
    exchange(&mut open, "/open", b"still open");
    talks.push(open.clone());
    let packets = merged(talks);
    pipe.write(&records(&packets));
    daemon.wait_stored(ALIAS, packets.len() as u64);
    wait_settled(&daemon);
    // Waits first until flows no longer change as time passes.
    let look = |daemon: &Daemon| {
        for id in [1, 3, 5] {
            wait_flow(daemon, id, "closed");
        }
        wait_flow(daemon, 2, "reset");
        wait_until("the transaction of the open one is recorded", 5, || {
            let log = flow(daemon, 6).join("http.jsonl");
            fs::metadata(log).is_ok_and(|found| found.len() > 0)
        });
        everything(&daemon.path("web/flows"))
    };
    let before = look(&daemon);
    assert_eq!(names(&daemon).len(), 6);
    daemon.crash();
    drop(pipe);

    let daemon = mount();
    let after = look(&daemon);
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is, "{} is not what it was", was.0.display());
    }
    assert_eq!(before.len(), after.len());

    // The open flow goes on.
    let mut pipe = fifo.connect();
    let from = open.packets.len();
    exchange(&mut open, "/later", b"and on");
    pipe.write(&records(&open.packets[from..]));
    wait_until("both transactions are recorded", 10, || {
        lines(&flow(&daemon, 6).join("http.jsonl")).len() == 2
    });
    assert_eq!(fs::read(flow(&daemon, 6).join("server.bin")).unwrap(), open.stream(Server));
}
