//! Turns the command line into captures. It opens no source and no ring, so that every mistake can
//! be tested.

use std::path::Path;

use capture::flow;
use capture::pipeline::{Spec, is_alias};
use capture::ring::{Geometry, Permissions};
use capture::source::SourceName;
use protocol::time::Precision;

use super::options::MountArguments;
use crate::fs::captures::RESERVED;
use crate::fs::group_id;
use crate::settings::{CaptureSettings, LEAST_FLOW_MEMORY, default_permissions, flow_limits};
use crate::sources;

/// The captures to make.
#[derive(Debug)]
pub(super) struct CapturePlan {
    /// The default settings of captures.
    pub(super) settings: CaptureSettings,
    /// Captures, in the order of the command line.
    pub(super) captures: Vec<Spec>,
    /// Other names: each with the alias of its capture.
    pub(super) links: Vec<(String, String)>,
}

/// Makes a plan from the options of `pcapfs mount`; ring files go to `ring_dir`. With a
/// configuration, the command line need not have captures.
///
/// # Errors
/// The mistake on the command line, for people.
pub(super) fn plan(
    options: &MountArguments,
    ring_dir: &Path,
    has_config: bool,
) -> Result<CapturePlan, String> {
    let settings = settings(options)?;
    let spec = |alias: &str, source, filter| settings.spec(alias, source, filter, ring_dir);
    let mut plan =
        CapturePlan { settings: settings.clone(), captures: Vec::new(), links: Vec::new() };
    for text in &options.captures {
        let (alias, capture) = text
            .split_once('=')
            .ok_or_else(|| format!("-c {text}: write it as ALIAS='SOURCE [FILTER]'"))?;
        let (source, filter) =
            source_and_filter(capture).map_err(|wrong| format!("-c {text}: {wrong}"))?;
        plan.add(spec(alias, source, filter), true)?;
    }
    if let Some(capture) = &options.unnamed {
        let (source, filter) = source_and_filter(capture)?;
        plan.add(spec(&source.default_alias(), source, filter), false)?;
    }
    let (interface_filter, file_filter) = match options.interface {
        Some(_) => (options.filter.as_deref(), None),
        None => (None, options.filter.as_deref()),
    };
    if let Some(interface) = &options.interface {
        let source = sources::parse(interface).map_err(|wrong| format!("-i {wrong}"))?;
        if !source.is_interface() {
            return Err(format!("-i {interface}: not an interface (use -c ALIAS={interface})"));
        }
        let alias = options.alias.clone().unwrap_or_else(|| source.default_alias());
        plan.add(spec(&alias, source, interface_filter), options.alias.is_some())?;
    } else if options.alias.is_some() && options.read.len() != 1 {
        return Err("--alias names the capture of -i, or of the only -r".to_owned());
    } else if options.filter.is_some() && options.read.is_empty() {
        return Err("-f belongs to -i or -r; with -c, put the filter behind the source".to_owned());
    }
    for path in &options.read {
        // As for tcpdump. A file of this name is written ./-
        let source = if path.as_os_str() == "-" {
            SourceName::Stdin
        } else {
            absolute(SourceName::savefile(path))
        };
        let given = options.alias.as_ref().filter(|_| options.interface.is_none());
        let alias = given.cloned().unwrap_or_else(|| source.default_alias());
        plan.add(spec(&alias, source, file_filter), given.is_some())?;
    }
    if plan.captures.iter().any(|spec| spec.source.savefile_path().is_none()) {
        Geometry::new(settings.ring_size(), options.snaplen)
            .map_err(|bad| format!("--ring: {bad}"))?;
    }
    let of_stdin = |spec: &&Spec| spec.source.is_of_command_line();
    if plan.captures.iter().filter(of_stdin).count() > 1 {
        return Err("standard input can be the source of one capture only".to_owned());
    }
    // With a socket, captures can be made through it, and a configuration may have some.
    if plan.captures.is_empty() && options.socket.is_none() && !has_config {
        return Err("nothing to capture: name an interface (-i eth0), a savefile (-r trace.pcap) \
                    or a capture (-c web='eth0 port 80')"
            .to_owned());
    }
    Ok(plan)
}

/// The default settings of captures.
///
/// # Errors
/// The same as of [`plan`].
pub(super) fn settings(options: &MountArguments) -> Result<CaptureSettings, String> {
    Ok(CaptureSettings {
        snaplen: options.snaplen,
        promiscuous: !options.no_promiscuous,
        precision: Precision::Nano,
        ring: options.ring,
        kernel_buffer: options.kernel_buffer,
        backend: options.backend,
        workers: options.workers,
        inject_speed: options.inject_speed,
        export_keys: true,
        flows: flow_options(options)?,
        permissions: permissions(options)?,
    })
}

/// The initial permissions of captures.
fn permissions(options: &MountArguments) -> Result<Permissions, String> {
    let default = default_permissions();
    let gid = match &options.group {
        Some(name) => group_id(name).ok_or_else(|| format!("--group {name}: no such group"))?,
        None => default.gid,
    };
    Ok(Permissions { gid, mode: options.mode, ..default })
}

/// The options of flows.
fn flow_options(options: &MountArguments) -> Result<flow::FlowOptions, String> {
    let defaults = flow::FlowLimits::default();
    let memory = match options.flow_memory {
        Some(given) if given < LEAST_FLOW_MEMORY => {
            return Err(format!("--flow-memory: {given} bytes are not enough (at least 1M)"));
        }
        Some(given) => usize::try_from(given).unwrap_or(usize::MAX),
        None => defaults.memory,
    };
    let flows = usize::try_from(options.max_flows).unwrap_or(usize::MAX);
    let limits = flow_limits(flows, memory);
    Ok(flow::FlowOptions {
        limits,
        outer: options.no_tunnels,
        any_vlan: options.no_vlan_flows,
        policy: options.overlap,
        urgent: options.urgent,
    })
}

impl CapturePlan {
    /// Adds a capture, or another name for an equal one. A given name must be free; a derived one
    /// gets a number if necessary.
    fn add(&mut self, mut spec: Spec, given: bool) -> Result<(), String> {
        let alias = &spec.alias;
        if !is_alias(alias) {
            return Err(format!(
                "'{alias}' is no alias: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
            ));
        }
        let is_free = |name: &str| !RESERVED.contains(&name) && self.holder(name).is_none();
        if given && RESERVED.contains(&alias.as_str()) {
            return Err(format!("'{alias}' is no alias: the tree has a file of this name"));
        }
        if !given {
            let free = (1..).map(|n| if n == 1 { alias.clone() } else { format!("{alias}-{n}") });
            if let Some(name) = free.into_iter().find(|name| is_free(name)) {
                spec.alias = name;
            }
        } else if let Some(holder) = self.holder(alias) {
            return Err(format!("alias '{alias}' is taken (by {holder}); choose another"));
        }
        match self.captures.iter().find(|known| known.is_same_capture(&spec)) {
            Some(known) => self.links.push((spec.alias, known.alias.clone())),
            None => self.captures.push(spec),
        }
        Ok(())
    }

    /// The capture or link that has this name already.
    fn holder(&self, name: &str) -> Option<String> {
        let capture = self.captures.iter().find(|spec| spec.alias == name);
        capture.map(|spec| spec.source.to_string()).or_else(|| {
            let link = self.links.iter().find(|(alias, _)| alias == name);
            link.map(|(_, target)| format!("a link to {target}"))
        })
    }
}

/// The source and the filter of a capture, which are one argument.
fn source_and_filter(capture: &str) -> Result<(SourceName, Option<&str>), String> {
    let capture = capture.trim();
    let (source, filter) = capture
        .split_once(char::is_whitespace)
        .map_or((capture, None), |(source, filter)| (source, Some(filter)));
    // `web='"" port 80'`: an empty source that leaves room for a filter.
    let source = if source == "\"\"" || source == "''" { "" } else { source };
    Ok((absolute(sources::parse(source)?), filter))
}

/// Paths that are valid in every directory: the daemon may change its own.
fn absolute(source: SourceName) -> SourceName {
    source.with_path(|path| std::path::absolute(&path).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use capture::source::InterfaceBackend;
    use protocol::tcp::{Policy, Urgent};

    use super::*;

    fn options() -> MountArguments {
        MountArguments {
            mountpoint: "/captures".into(),
            captures: Vec::new(),
            unnamed: None,
            interface: None,
            filter: None,
            alias: None,
            read: Vec::new(),
            ring: None,
            ring_dir: None,
            kernel_buffer: None,
            inject_speed: capture::injection::InjectSpeed::default(),
            backend: InterfaceBackend::default(),
            workers: capture::source::Workers::ONE,
            socket: None,
            state: None,
            fresh: false,
            config: None,
            snaplen: 262_144,
            no_promiscuous: false,
            flow_memory: None,
            max_flows: 1 << 21,
            no_tunnels: false,
            no_vlan_flows: false,
            overlap: Policy::First,
            urgent: Urgent::OutOfBand,
            group: None,
            mode: 0o750,
            options: Vec::new(),
            no_wait: false,
            background: false,
            detached: false,
            handoff: None,
        }
    }

    fn made(options: &MountArguments) -> Result<CapturePlan, String> {
        plan(options, Path::new("/rings"), false)
    }

    #[test]
    fn captures_are_read_as_typed() {
        let captures =
            ["web=eth0 tcp port 80", "all=", "x='' udp", "f=file:/t.pcap", "in=-", "s=stream:/f"];
        let options =
            MountArguments { captures: captures.map(str::to_owned).to_vec(), ..options() };
        let plan = made(&options).unwrap();
        let seen: Vec<_> = plan
            .captures
            .iter()
            .map(|spec| (spec.alias.as_str(), spec.source.to_string(), spec.filter.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("web", "eth0".to_owned(), Some("tcp port 80")),
                ("all", "any".to_owned(), None),
                ("x", "any".to_owned(), Some("udp")),
                ("f", "file:/t.pcap".to_owned(), None),
                ("in", "-".to_owned(), None),
                ("s", "stream:/f".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_savefile_named_by_a_hyphen_is_the_standard_input() {
        let read = vec!["-".into()];
        let plan = made(&MountArguments { read, filter: Some("udp".into()), ..options() }).unwrap();
        let spec = &plan.captures[0];
        assert_eq!((spec.alias.as_str(), &spec.source), ("stdin", &SourceName::Stdin));
        assert_eq!(spec.filter.as_deref(), Some("udp"));
        let read = vec!["./-".into()];
        let plan = made(&MountArguments { read, ..options() }).unwrap();
        assert!(plan.captures[0].source.savefile_path().is_some());
    }

    #[test]
    fn flows_are_made_as_asked_for() {
        let of = |options| made(&options).unwrap().captures[0].flows;
        let lo = || MountArguments { interface: Some("lo".into()), ..options() };
        assert_eq!(of(lo()), flow::FlowOptions::default());
        let flows = of(MountArguments {
            flow_memory: Some(64 << 20),
            max_flows: 5,
            no_tunnels: true,
            no_vlan_flows: true,
            overlap: Policy::Last,
            urgent: Urgent::Inline,
            ..lo()
        });
        let limits = flow::FlowLimits { flows: 5, open: 5, memory: 64 << 20, log: (64 << 20) / 6 };
        let wanted = flow::FlowOptions {
            limits,
            outer: true,
            any_vlan: true,
            policy: Policy::Last,
            urgent: Urgent::Inline,
        };
        assert_eq!(flows, wanted);
    }

    #[test]
    fn the_same_capture_again_is_a_link() {
        let captures = ["web=eth0 port 80", "www=eth0  port 80 ", "other=eth0 port 81"];
        let plan =
            made(&MountArguments { captures: captures.map(str::to_owned).to_vec(), ..options() })
                .unwrap();
        assert_eq!(plan.captures.len(), 2);
        assert_eq!(plan.links, [("www".to_owned(), "web".to_owned())]);
    }

    #[test]
    fn made_up_names_give_way_and_given_ones_do_not() {
        let read = ["/a/t.pcap", "/b/t.pcap", "/c/t.pcapng", "/README.pcap"];
        let read = read.map(PathBuf::from).to_vec();
        let plan = made(&MountArguments { read, ..options() }).unwrap();
        let names: Vec<_> = plan.captures.iter().map(|spec| spec.alias.as_str()).collect();
        assert_eq!(names, ["t", "t-2", "t-3", "README-2"]);
        for (source, name) in
            [("file:/a/t.pcap port 80", "t"), ("tcp:sensor:57012", "sensor_57012")]
        {
            let unnamed = Some(source.to_owned());
            let plan = made(&MountArguments { unnamed, ..options() }).unwrap();
            assert_eq!(plan.captures[0].alias, name);
        }
        let captures = vec!["web=eth0".to_owned(), "web=eth1".to_owned()];
        let error = made(&MountArguments { captures, ..options() }).unwrap_err();
        assert_eq!(error, "alias 'web' is taken (by eth0); choose another");
    }

    #[test]
    fn mistakes_are_named() {
        for (options, part) in [
            (options(), "nothing to capture"),
            (
                MountArguments { captures: vec!["eth0".into()], ..options() },
                "ALIAS='SOURCE [FILTER]'",
            ),
            (MountArguments { captures: vec![".x=eth0".into()], ..options() }, "'.x' is no alias"),
            (
                MountArguments { captures: vec!["a/b=eth0".into()], ..options() },
                "'a/b' is no alias",
            ),
            (
                MountArguments { captures: vec!["README=eth0".into()], ..options() },
                "file of this name",
            ),
            (MountArguments { interface: Some("-".into()), ..options() }, "not an interface"),
            (MountArguments { filter: Some("tcp".into()), ..options() }, "-f belongs to"),
            (MountArguments { alias: Some("x".into()), ..options() }, "--alias names"),
            (
                MountArguments { captures: vec!["a=-".into(), "b=- tcp".into()], ..options() },
                "one capture only",
            ),
            (
                MountArguments { interface: Some("lo".into()), ring: Some(1), ..options() },
                "--ring: a ring of 1",
            ),
            (
                MountArguments { interface: Some("lo".into()), flow_memory: Some(9), ..options() },
                "--flow-memory",
            ),
        ] {
            let error = made(&options).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
