//! The machine and the programs of a benchmark.

use std::fs;
use std::process::{Command, Stdio};

use pcapfs_tests::binary;

use crate::cores;

/// Machine, date and versions, by name.
pub(crate) fn describe() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |path: &str, name: &str| {
        let text = read(path);
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    let memory: u64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let pcapfs = binary("pcapfs");
    vec![
        ("date", first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("CPU", field("/proc/cpuinfo", "model name")),
        ("cores", cores::count().to_string()),
        ("memory", format!("{} MiB", memory >> 10)),
        ("pcapfs", first_line(Command::new(&pcapfs).arg("--version"))),
        ("commit", first_line(Command::new("git").args(["describe", "--always", "--dirty"]))),
        ("tcpdump", first_line(Command::new("tcpdump").arg("--version"))),
        ("dumpcap", first_line(Command::new("dumpcap").arg("--version"))),
        ("trafgen", first_line(Command::new("trafgen").arg("--version"))),
        ("tshark", first_line(Command::new("tshark").arg("--version").stderr(Stdio::null()))),
        ("tcpflow", first_line(Command::new("tcpflow").arg("--version").stderr(Stdio::null()))),
        ("tcpreplay", first_line(Command::new("tcpreplay").arg("--version"))),
        ("dd", first_line(Command::new("dd").arg("--version"))),
    ]
}

/// The first line that a command prints on either output.
fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "none".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
