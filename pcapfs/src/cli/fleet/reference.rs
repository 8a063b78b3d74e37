//! References to flows of other machines: `HOST/CAPTURE/FLOW`, as `find` and `tail` print them.
//!
//! A flow has its number and both ends, so that after a restart of its daemon no other flow is taken
//! for it.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A flow of a capture of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowReference {
    pub(super) host: String,
    pub(super) capture: String,
    /// The number of the flow.
    pub(super) flow: u64,
    /// Both ends, such as `10.0.0.1.43512`.
    pub(super) ends: [String; 2],
}

impl FlowReference {
    /// The flow of a published line; `None` if the line is about none.
    pub(super) fn of_line(host: &str, capture: &str, line: &Value) -> Option<Self> {
        let end = |side: &str| {
            let end = line.get(side)?;
            let address = end.get("address")?.as_str()?.replace(':', "_");
            Some(format!("{address}.{}", end.get("port")?.as_u64()?))
        };
        let (host, capture) = (host.to_owned(), capture.to_owned());
        let flow = line.get("flow")?.as_u64()?;
        Some(Self { host, capture, flow, ends: [end("client")?, end("server")?] })
    }
}

impl fmt::Display for FlowReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, capture, flow, ends: [client, server] } = self;
        write!(formatter, "{host}/{capture}/{flow}-{client}-{server}")
    }
}

impl FromStr for FlowReference {
    type Err = String;

    /// Reads `HOST/CAPTURE/FLOW`. FLOW may also be the name of a flow's directory, which has its
    /// protocol after the number.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no reference to a flow (write HOST/CAPTURE/FLOW as pcapfs fleet find \
                 prints it, such as hall/web/42-10.0.0.1.43512-10.0.0.2.80)"
            )
        };
        let mut parts = text.rsplitn(3, '/');
        let (flow, capture, host) = (parts.next(), parts.next(), parts.next());
        let (Some(flow), Some(capture), Some(host)) = (flow, capture, host) else {
            return Err(wrong());
        };
        let words: Vec<&str> = flow.split('-').collect();
        let (number, client, server) = match words[..] {
            [number, client, server] | [number, _, client, server] => (number, client, server),
            _ => return Err(wrong()),
        };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        if [host, capture, client, server].contains(&"") {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            capture: capture.to_owned(),
            flow: number,
            ends: [client.to_owned(), server.to_owned()],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_printed_and_read() {
        let line = json!({
            "flow": 42, "client": {"address": "fd00::1", "port": 4},
            "server": {"address": "10.0.0.2", "port": 80},
        });
        let reference = FlowReference::of_line("hall.example", "web", &line).unwrap();
        let text = reference.to_string();
        assert_eq!(text, "hall.example/web/42-fd00__1.4-10.0.0.2.80");
        assert_eq!(text.parse(), Ok(reference.clone()));
        let directory = "hall.example/web/000042-tcp-fd00__1.4-10.0.0.2.80";
        assert_eq!(directory.parse(), Ok(reference));
        for wrong in
            ["", "hall", "hall/web/42", "web/42-a-b", "/web/1-a-b", "h/c/+1-a-b", "h/c/1--b"]
        {
            let why = wrong.parse::<FlowReference>().unwrap_err();
            assert!(why.contains("HOST/CAPTURE/FLOW"), "{why}");
        }
        assert_eq!(FlowReference::of_line("h", "c", &json!({"flow": 1})), None);
    }
}
