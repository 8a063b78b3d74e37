//! The meaning of command lines, without running anything.

use super::*;

fn request(arguments: &[&str]) -> Result<MountRequest, UsageError> {
    MountRequest::from_arguments(arguments.iter().map(OsString::from))
}

fn plan(arguments: &[&str]) -> MountPlan {
    match request(arguments) {
        Ok(MountRequest::Mount(plan)) => *plan,
        other => panic!("{arguments:?} gave {other:?}"),
    }
}

fn refusal(arguments: &[&str]) -> String {
    request(arguments).unwrap_err().to_string()
}

/// The arguments of the daemon, without the parts that are always the same.
fn daemon(arguments: &[&str]) -> Vec<String> {
    let all = plan(arguments).daemon_arguments();
    let mut all: Vec<_> = all.into_iter().map(|word| word.into_string().unwrap()).collect();
    assert_eq!(all[..2], ["mount", "/captures"]);
    all.split_off(2)
}

#[test]
fn the_least_there_can_be() {
    assert_eq!(daemon(&["eth0", "/captures"]), ["--unnamed=eth0"]);
}

#[test]
fn as_mount_8_calls_it() {
    let options = "rw,alias=web,filter=tcp port 80,ring=256M,kernel_buffer=4M,backend=libpcap,workers=2,inject_speed=max,snaplen=128,_netdev,nofail,user";
    let arguments = ["eth0", "/captures", "-s", "-n", "-v", "-o", options];
    assert_eq!(
        daemon(&arguments),
        [
            "--capture=web=eth0 tcp port 80",
            "--ring=256M",
            "--kernel-buffer=4M",
            "--backend=libpcap",
            "--workers=2",
            "--inject-speed=max",
            "--snaplen=128"
        ]
    );
    assert!(plan(&arguments).verbose);
    assert!(!plan(&arguments).fake);
}

#[test]
fn flags_stand_anywhere_and_together() {
    let expected = plan(&["eth0", "/captures", "-f", "-v", "-o", "ro", "-o", "alias=a"]);
    for arguments in [
        &["-fvo", "ro,alias=a", "eth0", "/captures"][..],
        &["eth0", "-oro", "-fv", "/captures", "-oalias=a"],
        &["-vf", "-o", "ro", "-o", "alias=a", "--", "eth0", "/captures"],
    ] {
        assert_eq!(plan(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn properties_of_the_mount_are_passed_on() {
    let arguments = ["eth0", "/captures", "-o", "ro,noexec,nosuid,nodev,allow_other,relatime"];
    assert_eq!(daemon(&arguments), ["--unnamed=eth0"], "the daemon has nothing to do with them");
    let plan = plan(&arguments);
    assert_eq!(plan.mount_options, ["ro", "noexec", "nosuid", "nodev"]);
    let arguments = plan.own_mount_arguments();
    assert_eq!(arguments[3..], ["-o", "ro,noexec,nosuid,nodev", "--background"]);
}

#[test]
fn the_last_of_two_counts() {
    let arguments = ["eth0", "/captures", "-o", "ring=1M,alias=a", "-o", "ring=2M"];
    assert_eq!(daemon(&arguments), ["--capture=a=eth0", "--ring=2M"]);
}

#[test]
fn the_daemon_chooses_the_alias() {
    for (spec, source) in [("", "any"), ("any", "any"), ("tcp-listen:[::1]:5,senders=2", "")] {
        let source = if source.is_empty() { spec } else { source };
        assert_eq!(daemon(&[spec, "/captures"]), [format!("--unnamed={source}")]);
    }
}

#[test]
fn sources_that_cannot_work_are_refused() {
    for spec in ["none", "-", "file:/a b.pcap"] {
        let text = refusal(&[spec, "/captures", "-o", "alias=a"]);
        assert!(text.contains(spec), "{text}");
    }
}

#[test]
fn options_for_the_daemon_are_passed_on() {
    let options =
        "group=staff,mode=0770,socket=/run/s,config=/etc/c,user=sniffer,ring_dir=/r,state=/s";
    let arguments = ["eth0", "/captures", "-o", options];
    let expected = ["--config=/etc/c", "--ring-dir=/r", "--group=staff", "--mode=0770"];
    assert_eq!(daemon(&arguments)[1..5], expected);
    assert_eq!(daemon(&arguments)[5..], ["--socket=/run/s", "--state=/s"]);
    assert_eq!(plan(&arguments).user(), "sniffer");
    assert_eq!(plan(&["eth0", "/captures", "-o", "user,group"]).user(), "pcapfs");
}

#[test]
fn without_a_source_there_is_a_configuration() {
    let plan = plan(&["none", "/captures", "-o", "config=/etc/c"]);
    assert_eq!(plan.daemon_arguments(), ["mount", "/captures", "--config=/etc/c"]);
    assert_eq!(plan.spec, "none");
    if !Path::new(CONFIG).exists() {
        assert!(refusal(&["none", "/captures"]).contains("config=FILE"));
    }
    for option in ["alias=a", "filter=tcp"] {
        let text = refusal(&["none", "/captures", "-o", "config=/etc/c", "-o", option]);
        assert!(text.contains(option.split('=').next().unwrap()), "{text}");
    }
}

#[test]
fn paths_are_settled() {
    let mut plan = plan(&["file:a.pcap", "captures", "-o", "ring_dir=r,config=/c,socket=../s"]);
    plan.settle(Path::new("/home"));
    let expected =
        ["--unnamed=file:/home/a.pcap", "--config=/c", "--ring-dir=/home/r", "--socket=/home/../s"];
    assert_eq!(plan.daemon_arguments()[2..], expected);
    assert_eq!(plan.directory, Path::new("/home/captures"));
}

#[test]
fn where_a_process_stands() {
    let role = |flag: &[&str]| plan(&[flag, &["eth0", "/captures"]].concat()).role;
    assert_eq!(role(&[]), ProcessRole::Front);
    assert_eq!(role(&["--foreground"]), ProcessRole::Foreground);
    assert_eq!(role(&["--supervise"]), ProcessRole::Background);
    assert_eq!(plan(&["eth0", "--", "--supervise"]).directory, Path::new("./--supervise"));
}

#[test]
fn an_unknown_option_is_refused_unless_sloppy() {
    let text = refusal(&["eth0", "/captures", "-o", "fliter=tcp"]);
    assert_eq!(text, "-o fliter: unknown option (did you mean filter? -s ignores those)");
    let text = refusal(&["eth0", "/captures", "-o", "alais=web"]);
    assert!(text.contains("did you mean alias?"), "{text}");
    let text = refusal(&["eth0", "/captures", "-o", "colour=red"]);
    assert!(text.contains("have: alias, filter, ring, ring_dir"), "{text}");
    assert_eq!(daemon(&["eth0", "/captures", "-so", "fliter=tcp"]), ["--unnamed=eth0"]);
}

#[test]
fn values_are_checked() {
    for option in [
        "alias",
        "alias=",
        "alias=.x",
        "alias=a/b",
        "alias=a b",
        "ring=",
        "ring=0",
        "ring=+1",
        "ring=64X",
        "ring=M",
        "ring=1.5G",
        "snaplen=0",
        "snaplen=-1",
        "snaplen=4294967296",
        "ring_dir=",
        "filter",
        "mode=8",
        "mode=1777",
        "mode=rwx",
        "user=",
        "group=",
        "config",
        "socket=",
        "remount",
    ] {
        let text = refusal(&["eth0", "/captures", "-s", "-o", option]);
        assert!(text.starts_with("-o ") && text.contains(option), "{option}: {text}");
    }
    let long = format!("alias={}", "a".repeat(ALIAS_MAX));
    assert_eq!(plan(&["eth0", "/c", "-o", &long]).capture.unwrap().alias.unwrap().len(), ALIAS_MAX);
    assert!(request(&["eth0", "/c", "-o", &(long + "a")]).is_err());
    assert_eq!(daemon(&["eth0", "/captures", "-o", "filter="]), ["--unnamed=eth0"]);
}

#[test]
fn types_are_those_mount_8_knows_us_by() {
    for kind in ["pcapfs", "fuse.pcapfs"] {
        assert_eq!(daemon(&["eth0", "/captures", "-t", kind]), ["--unnamed=eth0"]);
    }
    assert_eq!(
        refusal(&["eth0", "/captures", "-t", "pcapfs.x"]),
        "pcapfs.x: no such type (have: pcapfs, fuse.pcapfs)"
    );
}

#[test]
fn a_namespace_is_a_path_or_a_process() {
    let namespace = |value| plan(&["eth0", "/captures", "-N", value]).namespace.unwrap();
    assert_eq!(namespace("42"), Path::new("/proc/42/ns/mnt"));
    assert_eq!(namespace("/run/ns/a"), Path::new("/run/ns/a"));
}

#[test]
fn wrong_calls_are_refused_with_a_reason() {
    for arguments in [&[][..], &["eth0"], &["eth0", "/a", "/b"]] {
        assert_eq!(request(arguments), Err(UsageError::Operands), "{arguments:?}");
    }
    assert_eq!(refusal(&["eth0", "/a", "-o"]), "-o: its value is missing");
    assert_eq!(
        refusal(&["eth0", "/a", "-sx"]),
        "-sx: neither a flag nor an operand of this program (try --help)"
    );
    assert_eq!(plan(&["eth0", "--", "-a"]).directory, Path::new("./-a"));
    assert_eq!(request(&["--help"]), Ok(MountRequest::Help));
    assert_eq!(request(&["-V"]), Ok(MountRequest::Version));
}

#[test]
fn text_that_is_not_utf_8_is_refused_and_not_changed() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![b'/', 0xff]);
    let of = |spec: OsString, directory: OsString| {
        MountRequest::from_arguments([spec, directory].into_iter())
    };
    assert_eq!(of(odd(), "/captures".into()), Err(UsageError::Encoding(odd())));
    let Ok(MountRequest::Mount(plan)) = of("eth0".into(), odd()) else { panic!("a directory may") };
    assert_eq!(plan.directory, Path::new(&odd()));
}
