//! The service in a daemon that mount.pcapfs has started: another user, few rights, a filter of
//! system calls.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};

use pcapfs_tests::{Fed, Finished, Host, Mount, run, skip_unless, wait_until};

use crate::support::{pcapfs, says};

#[test]
fn a_confined_daemon_serves_other_machines() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let identity = host.path("identity");
    let on_host = |words: &[&str]| {
        run(host.command("pcapfs").args(words).arg("--dir").arg(&identity), 20).success()
    };
    let _ = on_host(&["identity", "init"]);
    // The daemon can read its own key, and not that of the authority.
    let owner = |name: &str| fs::metadata(identity.join(name)).unwrap().uid();
    assert_eq!((owner("machine.key"), owner("ca.key")), (Host::USER, 0));
    let pem = host.path("laptop-7.pem");
    let _ = on_host(&["identity", "issue", "laptop-7", "-o", pem.to_str().unwrap()]);
    let config = host.path("pcapfs.toml");
    let text = format!(
        "[remote]\nlisten = \"127.0.0.1:{port}\"\nidentity = \"{}\"\n\
         [[remote.client]]\nname = \"laptop-7\"\nuser = \"pcapfs\"\n\
         [[capture]]\nalias = \"web\"\nsource = \"lo\"\nfilter = \"udp port 9\"\n",
        identity.display()
    );
    fs::write(&config, text).unwrap();
    let options = format!("config={},{}", config.display(), host.ring_option());
    let _ = host.mount("none", &options).success();
    let near = |words: &[&str]| -> Finished {
        let mut command = pcapfs();
        command.args(words).env("XDG_CONFIG_HOME", host.path("config"));
        run(&mut command, 20)
    };
    let url = format!("pcap://localhost:{port}");
    let identity_file = pem.to_str().unwrap().to_owned();
    let _ = near(&["remote", "add", "far", &url, "--identity", &identity_file]).success();
    says(near(&["list", "far:"]).success().text(), &["far:web", "running"]);
    let _ = near(&["stop", "far:web"]).success();
    let _ = near(&["start", "far:web"]).success();
    let file = host.path("web.pcap");
    let _ = near(&["replay", "far:web", "-w", file.to_str().unwrap()]).success();
    assert_eq!(fs::metadata(&file).unwrap().len(), 24);
    let _ = on_host(&["identity", "revoke", "laptop-7"]);
    wait_until("the revoked client is refused", 10, || {
        near(&["list", "far:"]).stderr.contains("is revoked")
    });
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_confined_daemon_follows_other_machines() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    // A folder /etc of its own, with a file of remotes.
    let _ = run(host.command("sh").args(["-c", OWN_ETC, "sh"]).arg(host.path("etc")), 20).success();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (identity, config) = (host.path("identity"), host.path("far.toml"));
    let mut init = pcapfs();
    let _ = run(init.args(["identity", "init", "--dir"]).arg(&identity), 10).success();
    let pem = host.path("etc/pcapfs/near.pem");
    let mut issue = pcapfs();
    issue.args(["identity", "issue", "near", "--dir"]).arg(&identity).arg("-o").arg(&pem);
    let _ = run(&mut issue, 10).success();
    chown(&pem, Some(Host::USER), Some(Host::GROUP)).unwrap();
    let text = format!(
        "[remote]\nlisten = \"127.0.0.1:{port}\"\nidentity = \"{}\"\n\
         [[remote.client]]\nname = \"near\"\nuser = \"root\"\n",
        identity.display()
    );
    fs::write(&config, text).unwrap();
    let mut far = Fed::with(Mount::new().arg("--config").arg(&config));
    far.send(50);
    let remotes =
        format!("[far]\nurl = \"pcap://localhost:{port}\"\nidentity = \"/etc/pcapfs/near.pem\"\n");
    fs::write(host.path("etc/pcapfs/remotes.toml"), remotes).unwrap();

    let _ = host.mount("remote:far/web", "alias=web").success();
    let stored = || host.count("web", "/packets/stored");
    wait_until("the packets are here", 10, || stored() == 50);
    far.send(50);
    wait_until("the new ones too", 10, || stored() == 100);
    let replay = fs::read(host.file("web/replay.pcap")).unwrap();
    assert_eq!(replay[24..], Fed::records(100));
    let _ = host.umount().success();
    host.wait_gone();
}

/// Puts a copy of /etc, with a folder for pcapfs, in the place of /etc.
const OWN_ETC: &str = "
set -e
cp -a /etc \"$1\"
mkdir -p \"$1/pcapfs\"
mount --bind \"$1\" /etc
";
