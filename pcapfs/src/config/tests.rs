//! Configurations, and the errors for wrong ones.

use capture::source::{InterfaceBackend, Workers};
use protocol::tcp::{Policy, Urgent};
use protocol::time::Precision;

use super::*;

fn base() -> CaptureSettings {
    CaptureSettings {
        snaplen: 262_144,
        promiscuous: true,
        precision: Precision::Nano,
        ring: None,
        kernel_buffer: None,
        inject_speed: capture::injection::InjectSpeed::default(),
        backend: InterfaceBackend::default(),
        workers: Workers::ONE,
        export_keys: true,
        flows: flow::FlowOptions::default(),
        permissions: Permissions { uid: 0, gid: 0, mode: 0o750 },
    }
}

fn read(text: &str) -> Result<Config, String> {
    let rings = RingDir::Default(Path::new("/rings"));
    Config::parse(Path::new("f.toml"), text, &base(), rings).map_err(|error| error.to_string())
}

#[test]
fn the_service_for_other_machines_is_read() {
    use super::remote::{ClientChoice, IdentityFiles, IdentityPaths};
    assert_eq!(read("").unwrap().remote, None);
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!(
        "[remote]\nlisten = \"192.0.2.1\"\n[[remote.client]]\nname = \"laptop-7\"\nuser = \"root\"\n\
         [[remote.client]]\nsha256 = \"{sha256}\"\nuser = 0\n"
    );
    let remote = read(&text).unwrap().remote.unwrap();
    assert_eq!(remote.listen.to_string(), "192.0.2.1:2020");
    let directory = PathBuf::from("/etc/pcapfs/identity");
    assert_eq!(remote.files, IdentityFiles { directory, paths: None });
    let [named, pinned] = &remote.clients[..] else { panic!("{remote:#?}") };
    assert_eq!(named.choice, ClientChoice::Name("laptop-7".to_owned()));
    assert_eq!(pinned.choice, ClientChoice::Fingerprint(sha256.parse().unwrap()));
    assert_eq!((named.user.as_str(), pinned.user.as_str()), ("root", "root"));
    let paths = "listen = \"::\"\ncertificate = \"/c\"\nkey = \"/k\"\nauthority = \"/a\"\n";
    let remote = read(&format!("[remote]\n{paths}")).unwrap().remote.unwrap();
    let (certificate, key, authority) = ("/c".into(), "/k".into(), "/a".into());
    let wanted = IdentityPaths { certificate, key, authority, revoked: None };
    assert_eq!(remote.files.paths, Some(wanted));
    for (text, said) in [
        ("", "1: [remote] without an address (write listen = "),
        ("listen = \"eth0\"", "2: listen: 'eth0' is no address of this machine"),
        ("listen = \"::\"\nidentity = \"x\"", "3: x: write the whole path, from /"),
        ("listen = \"::\"\nkey = \"/k\"", "1: certificate, key and authority belong together"),
        ("listen = \"::\"\nrevoked = \"/r\"", "3: revoked: belongs to certificate, key and"),
        ("listen = \"::\"\nport = 3", "3: unknown field `port`"),
        (
            "listen = \"::\"\n[[remote.client]]\nuser = \"root\"",
            "3: a client has a name, or the sha256",
        ),
        ("listen = \"::\"\n[[remote.client]]\nname = \"x\"", "3: a client without a user"),
        (
            "listen = \"::\"\n[[remote.client]]\nname = \"x\"\nuser = \"no-such-user\"",
            "5: no such user: 'no-such-user' (make it with: useradd no-such-user)",
        ),
        (
            "listen = \"::\"\n[[remote.client]]\nsha256 = \"12\"\nuser = \"root\"",
            "4: '12' is no SHA-256",
        ),
    ] {
        let error = read(&format!("[remote]\n{text}\n")).unwrap_err();
        assert!(error.contains(said), "{said:?} is not in {error:?}");
    }
    let both = format!("[remote]\n{paths}identity = \"/i\"\n");
    assert!(read(&both).unwrap_err().contains("6: identity: either this, or certificate"));
}

#[test]
fn every_setting_is_read() {
    let config = read(
        "socket = \"/run/p.sock\"\nring_dir = \"/r\"\nstate = \"/s\"\n\
         [defaults]\nworkers = 2\nring = \"4M\"\nmode = \"0700\"\nmax_flows = 100\n\
         [[capture]]\nalias = \"web\"\nsource = \"eth0\"\nfilter = \"tcp port 80\"\n\
         snaplen = 100\npromiscuous = false\nring = 1048576\nkernel_buffer = \"3M\"\nbackend = \"libpcap\"\nworkers = \"3:cpu\"\ninject_speed = 2.5\nexport_keys = false\n\
         precision = \"micro\"\nowner = 7\ngroup = \"root\"\n\
         mode = 0o770\nflow_memory = \"8M\"\ntunnels = false\nvlan_flows = false\noverlap = \"last\"\nurgent = \"inline\"\n\
         [[capture]]\nsource = \"\"\n[[capture]]\nsource = \"file:/t.pcap\"\n",
    )
    .unwrap();
    assert_eq!(config.socket.as_deref(), Some(Path::new("/run/p.sock")));
    assert_eq!(config.state.as_deref(), Some(Path::new("/s")));
    let [web, any, file] = &config.captures[..] else { panic!("{config:#?}") };
    let spec = &web.spec;
    assert_eq!((spec.alias.as_str(), spec.filter.as_deref()), ("web", Some("tcp port 80")));
    assert_eq!((spec.snaplen, spec.ring_size), (100, 1 << 20));
    assert!(!spec.promiscuous && any.spec.promiscuous);
    assert_eq!((spec.kernel_buffer, any.spec.kernel_buffer), (Some(3 << 20), None));
    let speeds = [spec.inject_speed, any.spec.inject_speed].map(|speed| speed.to_string());
    assert_eq!(speeds, ["2.5", "1.0"]);
    let workers = [spec.workers, any.spec.workers].map(|workers| workers.to_string());
    assert_eq!(workers, ["3:cpu", "2"]);
    let backends = [spec.backend, any.spec.backend];
    assert_eq!(backends, [InterfaceBackend::Libpcap, InterfaceBackend::AfPacket]);
    assert_eq!((spec.precision, &spec.ring_dir), (Precision::Micro, &PathBuf::from("/r")));
    assert_eq!(web.permissions, Permissions { uid: 7, gid: 0, mode: 0o770 });
    let limits = spec.flows.limits;
    assert_eq!((limits.flows, limits.open, limits.memory), (100, 100, 8 << 20));
    assert_eq!((spec.flows.outer, spec.flows.policy), (true, Policy::Last));
    assert!(spec.flows.any_vlan && !any.spec.flows.any_vlan);
    let urgent = [spec.flows.urgent, any.spec.flows.urgent];
    assert_eq!(urgent, [Urgent::Inline, Urgent::OutOfBand]);
    assert!(!spec.export_keys && any.spec.export_keys);
    assert_eq!((any.spec.alias.as_str(), any.spec.ring_size, any.line), ("any", 4 << 20, 30));
    assert_eq!((any.permissions.mode, any.is_explicit), (0o700, true));
    assert_eq!(file.spec.alias, "t");
    assert!(!read("[[capture]]\nsource = \"lo\"").unwrap().captures[0].is_explicit);
    assert!(read("").unwrap().captures.is_empty());
}

#[test]
fn the_command_line_decides_where_rings_are() {
    let text = "ring_dir = \"/r\"\n[[capture]]\nsource = \"lo\"\n";
    let given = RingDir::Given(Path::new("/given"));
    let config = Config::parse(Path::new("f"), text, &base(), given).unwrap();
    assert_eq!(config.captures[0].spec.ring_dir, Path::new("/given"));
}

#[test]
fn mistakes_have_a_line_and_a_remedy() {
    let capture = |line: &str| format!("\n[[capture]]\nsource = \"lo\"\n{line}\n");
    for (text, parts) in [
        ("colour = 1".to_owned(), &["f.toml:1: ", "`colour`", "socket", "defaults"][..]),
        ("\n[default]\n".to_owned(), &["f.toml:2: ", "`default`"]),
        ("[defaults]\nalias = \"x\"".to_owned(), &["f.toml:2: ", "`alias`"]),
        (capture("snap = 5"), &["f.toml:4: ", "`snap`", "snaplen"]),
        (capture("snaplen = \"many\""), &["f.toml:4: ", "'many' is no size", "64M"]),
        (capture("snaplen = 0"), &["f.toml:4: ", "snaplen: 0", "262144"]),
        (capture("inject_speed = 0"), &["f.toml:4: ", "'0' is no speed", "0.001 to 1000000"]),
        (capture("inject_speed = \"fast\""), &["f.toml:4: ", "'fast' is no speed"]),
        (capture("ring = 1.5"), &["f.toml:4: ", "1.5 is no whole number"]),
        (capture("kernel_buffer = \"4G\""), &["f.toml:4: ", "kernel_buffer: 4294967296", "2047M"]),
        (capture("backend = \"xdp\""), &["f.toml:4: ", "'xdp'", "\"af_packet\" or \"libpcap\""]),
        (capture("workers = 0"), &["f.toml:4: ", "'0'", "1 to 64 or auto"]),
        (capture("workers = \"4:rss\""), &["f.toml:4: ", "'4:rss'", "4:cpu or 4:qm"]),
        (capture("snaplen = 262145"), &["f.toml:4: ", "262145"]),
        (capture("ring = \"64X\""), &["f.toml:4: ", "'64X' is no size"]),
        (capture("ring = -5"), &["f.toml:4: ", "-5 is below 0"]),
        (capture("ring = true"), &["f.toml:4: ", "a size, such as \"64M\""]),
        (capture("ring = 1"), &["f.toml:4: ", "ring: a ring of 1"]),
        (capture("precision = \"milli\""), &["f.toml:4: ", "'milli'", "\"nano\" or \"micro\""]),
        (capture("group = \"no-such-group\""), &["f.toml:4: ", "'no-such-group'", "groupadd"]),
        (capture("owner = \"no-such-user\""), &["f.toml:4: ", "'no-such-user'", "useradd"]),
        (capture("mode = \"0888\""), &["f.toml:4: ", "'0888'", "\"0750\""]),
        (capture("mode = 750"), &["f.toml:4: ", "750", "0o750"]),
        (capture("mode = \"01777\""), &["f.toml:4: ", "'01777'"]),
        (capture("flow_memory = 9"), &["f.toml:4: ", "flow_memory: 9", "1M"]),
        (capture("max_flows = 0"), &["f.toml:4: ", "max_flows"]),
        (capture("tunnels = \"yes\""), &["f.toml:4: ", "string \"yes\"", "boolean"]),
        (capture("overlap = \"none\""), &["f.toml:4: ", "'none'", "\"first\" or \"last\""]),
        (capture("filter = \"tcp prot 1\""), &["f.toml:4: ", "tcp prot 1", "syntax error"]),
        (capture("alias = \"a b\""), &["f.toml:4: ", "'a b' is no alias"]),
        (capture("alias = \"README\""), &["f.toml:4: ", "file of this name"]),
        (capture("alias = 5"), &["f.toml:4: ", "integer `5`", "string"]),
        (capture("[[capture]]\nsource = \"lo\""), &["f.toml:4: ", "'lo' is taken", "line 2"]),
        ("[[capture]]\nalias = \"x\"".to_owned(), &["f.toml:1: ", "without a source"]),
        ("[[capture]]\nsource = \"file:t\"".to_owned(), &["f.toml:2: ", "the whole path"]),
        ("[[capture]]\nsource = \"-\"".to_owned(), &["f.toml:2: ", "standard input"]),
        (
            "[[capture]]\nsource = \"file:/t\"\nprecision = \"nano\"".to_owned(),
            &["f.toml:3: ", "a savefile has its own"],
        ),
        ("socket = \"x\"".to_owned(), &["f.toml:1: ", "the whole path"]),
        ("[[capture]\n".to_owned(), &["f.toml:1: "]),
        (capture("ring = "), &["f.toml:4: "]),
        (capture("ring = 1\nring = 2"), &["f.toml:5: ", "duplicate"]),
    ] {
        let error = read(&text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}, of {text:?}");
        }
        assert!(!error.contains('\n'), "{error:?}");
    }
}

/// The words in backquotes in the error for an unknown key.
fn known_keys(text: &str) -> Vec<String> {
    let error = read(text).unwrap_err();
    let (_, known) = error.split_once("expected one of").expect("the keys there are");
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_manual_page_has_every_key_and_no_other() {
    let page = include_str!("../../../man/pcapfs.toml.5");
    let described: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ic "))
        .flat_map(|keys| keys.split(" , "))
        .collect();
    let settings = known_keys("[defaults]\nx = 1");
    let mut expected = known_keys("x = 1");
    expected.extend(known_keys("[[capture]]\nx = 1"));
    expected.extend(known_keys("[remote]\nx = 1"));
    // Its tables have a name of two parts.
    expected.retain(|key| key != "client");
    expected.push("remote.client".to_owned());
    expected.extend(known_keys("[[remote.client]]\nx = 1"));
    for key in &settings {
        assert!(expected.contains(key), "{key} is for a capture too");
    }
    let mut described: Vec<String> =
        described.iter().map(|key| key.trim_matches(['[', ']']).to_owned()).collect();
    described.sort();
    expected.sort();
    assert_eq!(described, expected);
}
