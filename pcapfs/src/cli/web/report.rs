//! Messages of the server to the user who runs it: lines for people, or JSON for programs.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// Writes the messages.
#[derive(Debug)]
pub(super) struct Reporter {
    is_json: bool,
    /// Address of the page, with a slash at its end.
    url: String,
    has_warned: AtomicBool,
}

/// A line of JSON.
#[derive(Serialize)]
struct Report<'a> {
    event: &'static str,
    url: &'a str,
    /// Address for the next login; null if the token of a file is used.
    login: Option<String>,
    /// Address of the client that has logged in.
    client: Option<String>,
}

impl Reporter {
    pub(super) const fn new(is_json: bool, url: String) -> Self {
        Self { is_json, url, has_warned: AtomicBool::new(false) }
    }

    /// Reports that the server listens. `token` is for the first login.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn ready(&self, token: Option<&str>) -> Result<(), Failure> {
        let login = token.map(|token| self.login(token));
        if self.is_json {
            let report = Report { event: "ready", url: &self.url, login, client: None };
            return print(&report).map_err(Failure::Output);
        }
        output::say(format_args!("serving at {}", self.url));
        if let Some(login) = login {
            output::say(format_args!("a browser of another user logs in with: {login}"));
        }
        Ok(())
    }

    /// Reports a login, and the token for the next one.
    pub(super) fn logged_in(&self, client: SocketAddr, next: Option<&str>) {
        let login = next.map(|token| self.login(token));
        if self.is_json {
            let client = Some(client.to_string());
            // A closed standard output is no reason to end.
            let _ = print(&Report { event: "login", url: &self.url, login, client });
            return;
        }
        let next = login.map_or_else(String::new, |login| format!("; the next one: {login}"));
        output::say(format_args!("{client}: logged in{next}"));
    }

    /// Reports once that the kernel does not say who connects.
    pub(super) fn no_kernel(&self, error: &io::Error) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            output::say(format_args!(
                "warning: the kernel does not say who connects ({error}); everybody has to log in"
            ));
        }
    }

    fn login(&self, token: &str) -> String {
        format!("{}?token={token}", self.url)
    }
}

fn print(report: &Report<'_>) -> io::Result<()> {
    let text = serde_json::to_string(report).unwrap_or_default();
    output::print(&(text + "\n"))
}
