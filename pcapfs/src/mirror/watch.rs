//! The source `remote:NAME/*`: all captures of a remote, also those that come later.
//!
//! A thread asks the far daemon for its captures again and again, and reports each new one once.
//! Captures that are themselves of other machines are left out: two machines that follow all
//! captures of each other would make captures of captures without end.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use capture::source::{ReconnectPatience, SourceControl, SourceName};
use tonic::transport::Channel;

use super::connect;
use super::source::parse;
use super::written::{KIND, MirrorName};
use crate::control::messages::ListRequest;
use crate::control::messages::control_client::ControlClient;
use crate::output::say;

/// Time between two questions for the captures.
const INTERVAL: Duration = Duration::from_secs(2);

/// The maximum bytes of a list: a thousand captures take two million.
const MAX_LIST: usize = 16 << 20;

/// The maximum of captures of one remote that are followed.
const MAX_CAPTURES: usize = 1000;

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// All captures of a remote, as written.
#[derive(Clone, Debug)]
pub(crate) struct MirrorPattern(MirrorName);

impl MirrorPattern {
    /// The pattern in a source, if it is one.
    pub(crate) fn of(source: &SourceName) -> Option<Self> {
        let SourceName::External(source) = source else { return None };
        let name = MirrorName::parse(source.written()).ok()?;
        name.is_pattern().then_some(Self(name))
    }

    /// The source of one of the captures, and its name here.
    ///
    /// # Errors
    /// A name that cannot be that of a capture, for people.
    pub(crate) fn capture(&self, capture: &str) -> Result<(SourceName, String), String> {
        let source = parse(&self.0.of_capture(capture))?;
        let alias = source.default_alias();
        Ok((SourceName::External(source), alias))
    }
}

/// Looks for captures of a remote until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    control: Arc<SourceControl>,
}

impl Watch {
    /// Calls `found` on a thread with the name of each capture, once.
    ///
    /// # Errors
    /// Errors of starting a thread.
    pub(crate) fn start(
        pattern: &MirrorPattern,
        found: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let control = SourceControl::new()?;
        let mut looking = Looking {
            remote: pattern.0.remote.clone(),
            known: BTreeSet::new(),
            found: Box::new(found),
            said: None,
        };
        let orders = Arc::clone(&control);
        let builder = thread::Builder::new().name("remote-list".to_owned());
        builder.spawn(move || looking.run(&orders))?;
        Ok(Self { control })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its thread ends after the answer that it may be waiting for.
        self.control.stop();
    }
}

/// The thread of a watch.
struct Looking {
    remote: String,
    /// Captures that were found.
    known: BTreeSet<String>,
    found: Box<dyn FnMut(&str) + Send>,
    /// The trouble that was said last.
    said: Option<String>,
}

impl Looking {
    fn run(&mut self, control: &SourceControl) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let remote = &self.remote;
                return say(format_args!("{KIND}{remote}/*: no captures are looked for: {error}"));
            }
        };
        let mut away = None;
        let mut channel = None;
        while !control.must_stop() {
            match runtime.block_on(self.list(&mut channel, control)) {
                Ok(()) => {
                    (away, self.said) = (None, None);
                    let _ = control.sleep(INTERVAL);
                }
                Err(why) => {
                    channel = None;
                    if self.said.as_ref() != Some(&why) {
                        say(format_args!("{KIND}{}/*: {why}", self.remote));
                        self.said = Some(why);
                    }
                    let patience = away.get_or_insert_with(ReconnectPatience::begin);
                    let _ = patience.wait(control);
                }
            }
        }
        runtime.shutdown_background();
    }

    /// Asks for the captures, over a connection that is made if there is none.
    async fn list(
        &mut self,
        channel: &mut Option<Channel>,
        control: &SourceControl,
    ) -> Result<(), String> {
        let no_answer = |_| "no answer in time".to_owned();
        let channel = match channel {
            Some(channel) => channel,
            None => {
                connect::attempt(&self.remote)?;
                let connected = tokio::time::timeout(ANSWER, connect::channel(&self.remote));
                channel.insert(connected.await.map_err(no_answer)??)
            }
        };
        let mut client = ControlClient::new(channel.clone()).max_decoding_message_size(MAX_LIST);
        let answer = client.list(ListRequest { capture: String::new() });
        let answer = tokio::time::timeout(ANSWER, answer).await.map_err(no_answer)?;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        for capture in answer.captures {
            if control.must_stop() || self.known.len() >= MAX_CAPTURES {
                break;
            }
            if !capture.source.starts_with(KIND) && self.known.insert(capture.alias.clone()) {
                (self.found)(&capture.alias);
            }
        }
        Ok(())
    }
}
