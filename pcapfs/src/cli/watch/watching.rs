//! The loop of `pcapfs watch`: looks at the captures and their logs, gives events out, and saves the
//! place after them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use capture::clock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::delivery::Delivery;
use super::event::WatchEvent;
use crate::cli::outlet::daemon::CaptureView;
use crate::cli::outlet::event_kind::EventKind;
use crate::cli::outlet::expression::Expression;
use crate::cli::outlet::follower::{CaptureFollower, LogBeginning, LogSource};
use crate::cli::outlet::saved::SavedPositions;
use crate::cli::outlet::trouble::{Trouble, TroubleKind};
use crate::failure::Failure;
use crate::output;
use crate::output::counted;

/// The time between two looks for new lines.
const INTERVAL: Duration = Duration::from_millis(200);

/// The time between two looks at the captures.
const CAPTURES_INTERVAL: Duration = Duration::from_secs(1);

/// Looks in a row without a capture after which it is removed: a daemon that starts makes one after
/// the other.
const ABSENT_LOOKS: u32 = 3;

/// What is watched for.
#[derive(Debug)]
pub(super) struct WatchSettings {
    /// `None` for all.
    pub(super) capture: Option<String>,
    pub(super) kinds: Vec<EventKind>,
    pub(super) expression: Expression,
    /// Goes on after the saved places.
    pub(super) is_resumed: bool,
    /// Where it begins in a capture without a place.
    pub(super) beginning: LogBeginning,
}

/// The sums at the end.
#[derive(Debug, Default)]
pub(super) struct WatchSummary {
    events: u64,
    lost: u64,
    failed: u64,
}

impl fmt::Display for WatchSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, lost, failed } = self;
        write!(formatter, "{}, {} lost", counted(*events, "event"), counted(*lost, "line"))?;
        if *failed > 0 {
            write!(formatter, "; the command failed {}", counted(*failed, "time"))?;
        }
        Ok(())
    }
}

/// A capture that is watched.
#[derive(Debug)]
struct WatchedCapture {
    follower: CaptureFollower,
    /// As the daemon showed it last.
    view: Option<CaptureView>,
    /// Looks in a row without it.
    absent: u32,
    /// Why its logs cannot be read, as it was said.
    trouble: Option<String>,
}

/// Nobody reads the events any more, or the order came to end.
struct Over;

/// The result of a step: an error ends the command.
type Step = Result<Result<(), Over>, Failure>;

/// A run of the command.
#[derive(Debug)]
pub(super) struct Watching {
    settings: WatchSettings,
    source: Arc<LogSource>,
    saved: SavedPositions,
    delivery: Delivery,
    stopping: watch::Receiver<bool>,
    captures: BTreeMap<String, WatchedCapture>,
    /// The captures were seen once, so that another one is new.
    has_looked: bool,
    /// Why the daemon does not answer, as it was said.
    trouble: Option<String>,
    summary: WatchSummary,
}

impl Watching {
    pub(super) const fn new(
        settings: WatchSettings,
        source: Arc<LogSource>,
        saved: SavedPositions,
        delivery: Delivery,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            settings,
            source,
            saved,
            delivery,
            stopping,
            captures: BTreeMap::new(),
            has_looked: false,
            trouble: None,
            summary: WatchSummary { events: 0, lost: 0, failed: 0 },
        }
    }

    /// Gives events out until the order comes to end, or nobody reads them.
    ///
    /// # Errors
    /// There is no such capture, or an event or a place cannot be written.
    pub(super) async fn run(mut self) -> Result<WatchSummary, Failure> {
        let end = self.watch().await;
        // The place counts whatever the end.
        self.save_all();
        self.saved.save()?;
        end?;
        Ok(WatchSummary { failed: self.delivery.failed(), ..self.summary })
    }

    async fn watch(&mut self) -> Result<(), Failure> {
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_look {
                if self.look().await?.is_err() {
                    return Ok(());
                }
                next_look = Instant::now() + CAPTURES_INTERVAL;
            }
            if self.follow_all().await?.is_err() {
                return Ok(());
            }
            self.save_all();
            self.saved.save_if_due()?;
            tokio::select! {
                // An error means that the signals are gone, with the process.
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
                () = sleep(INTERVAL) => {}
            }
        }
    }

    fn save_all(&mut self) {
        for (name, capture) in &self.captures {
            self.saved.set(name, capture.follower.position());
        }
    }

    /// Looks at the captures that there are, and at their states.
    async fn look(&mut self) -> Step {
        let chosen = self.settings.capture.clone();
        let views = match self.source.daemon.captures(chosen.as_deref().unwrap_or_default()).await {
            Ok(views) => views,
            Err(trouble) if trouble.kind == TroubleKind::Missing && chosen.is_some() => {
                if !self.has_looked && self.saved.captures().count() == 0 {
                    return Err(Failure::Answer(trouble.text));
                }
                Vec::new()
            }
            Err(trouble) if trouble.kind == TroubleKind::Denied && !self.has_looked => {
                return Err(Failure::Answer(trouble.text));
            }
            Err(trouble) => {
                self.away(&trouble)?;
                return Ok(Ok(()));
            }
        };
        self.back()?;
        for capture in self.captures.values_mut() {
            capture.view = None;
        }
        for view in views {
            if self.look_at(view).await?.is_err() {
                return Ok(Err(Over));
            }
        }
        if !self.has_looked && self.settings.is_resumed {
            let earlier: Vec<String> = self.saved.captures().map(str::to_owned).collect();
            for name in earlier {
                self.enter(&name);
            }
        }
        self.has_looked = true;
        self.remove_absent().await
    }

    /// Begins to watch a capture.
    fn enter(&mut self, name: &str) -> &mut WatchedCapture {
        let Self { settings, saved, captures, has_looked, .. } = self;
        captures.entry(name.to_owned()).or_insert_with(|| {
            let position = saved.position(name).filter(|_| settings.is_resumed).cloned();
            // All events of a capture that has just been made are new.
            let beginning = if *has_looked { LogBeginning::Oldest } else { settings.beginning };
            let follower = CaptureFollower::new(&settings.kinds, beginning, position);
            WatchedCapture { follower, view: None, absent: 0, trouble: None }
        })
    }

    /// Looks at a capture; gives its state out if it has changed.
    async fn look_at(&mut self, view: CaptureView) -> Step {
        let name = view.name.clone();
        let is_first_look = !self.has_looked;
        let capture = self.enter(&name);
        capture.absent = 0;
        let previous = capture.follower.position().state.clone();
        let state = view.state.to_owned();
        let is_silent = previous.is_none()
            && is_first_look
            && capture.follower.beginning() == LogBeginning::Now;
        capture.view = Some(view.clone());
        if previous.as_ref() == Some(&state) {
            return Ok(Ok(()));
        }
        if !is_silent && self.give_state(&view, previous.as_deref(), &state).await?.is_err() {
            return Ok(Err(Over));
        }
        self.enter(&name).follower.set_state(&state);
        Ok(Ok(()))
    }

    async fn give_state(
        &mut self,
        view: &CaptureView,
        previous: Option<&str>,
        state: &str,
    ) -> Step {
        let fields = json!({
            "capture": view.name, "state": state, "previous": previous, "error": view.error,
            "source": view.source, "time": clock::now().to_rfc3339(),
        });
        self.give_state_of(fields).await
    }

    async fn give_state_of(&mut self, fields: Value) -> Step {
        let fields: Map<String, Value> = fields.as_object().cloned().unwrap_or_default();
        if !self.settings.kinds.contains(&EventKind::State) {
            return Ok(Ok(()));
        }
        self.give(&WatchEvent::of_state(&fields)).await
    }

    /// Gives out that captures are gone.
    async fn remove_absent(&mut self) -> Step {
        let mut gone = Vec::new();
        for (name, capture) in self.captures.iter_mut().filter(|(_, one)| one.view.is_none()) {
            capture.absent += 1;
            if capture.absent >= ABSENT_LOOKS {
                gone.push((name.clone(), capture.follower.position().state.clone()));
            }
        }
        for (name, previous) in gone {
            let fields = json!({
                "capture": name, "state": "removed", "previous": previous, "error": null,
                "source": null, "time": clock::now().to_rfc3339(),
            });
            if self.give_state_of(fields).await?.is_err() {
                return Ok(Err(Over));
            }
            self.captures.remove(&name);
            self.saved.forget(&name);
        }
        Ok(Ok(()))
    }

    /// Gives out the lines of all captures that have come.
    async fn follow_all(&mut self) -> Step {
        let names: Vec<String> = self.captures.keys().cloned().collect();
        for name in names {
            if self.follow(&name).await?.is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(Ok(()))
    }

    async fn follow(&mut self, name: &str) -> Step {
        if !self.settings.kinds.iter().any(|kind| kind.log().is_some()) {
            return Ok(Ok(()));
        }
        loop {
            let Some(capture) = self.captures.get_mut(name) else { return Ok(Ok(())) };
            let Some(view) = &capture.view else { return Ok(Ok(())) };
            let taken = match capture.follower.take(&self.source, view).await {
                Ok(taken) => taken,
                Err(trouble) => {
                    if capture.trouble.as_ref() != Some(&trouble.text) {
                        output::say(format_args!("{name}: {trouble}; it is tried again"));
                        capture.trouble = Some(trouble.text);
                    }
                    return Ok(Ok(()));
                }
            };
            if capture.trouble.take().is_some() {
                output::say(format_args!("{name}: its logs can be read again"));
            }
            if taken.is_restarted {
                self.report(&json!({"what": "restarted", "capture": name}), || {
                    format!("{name}: the logs begin anew, with the packets that are retained")
                })?;
            }
            for (kind, lines) in taken.lost {
                self.summary.lost += lines;
                let lost =
                    json!({"what": "lost", "capture": name, "of": kind.name(), "lines": lines});
                self.report(&lost, || {
                    format!("{name}: {} of {kind} had left the log", counted(lines, "line"))
                })?;
            }
            for line in taken.lines {
                if *self.stopping.borrow() {
                    return Ok(Err(Over));
                }
                let (kind, number) = (line.kind, line.number);
                let Some(capture) = self.captures.get(name) else { return Ok(Ok(())) };
                let position = capture.follower.position().of_line(kind, number);
                if let Some(event) = WatchEvent::of_line(kind, position, line.text)
                    && self.is_wanted(&event)
                    && self.give(&event).await?.is_err()
                {
                    return Ok(Err(Over));
                }
                if let Some(capture) = self.captures.get_mut(name) {
                    capture.follower.delivered(kind, number);
                    self.saved.set(name, capture.follower.position());
                }
                self.saved.save_if_due()?;
            }
            if taken.is_all {
                return Ok(Ok(()));
            }
        }
    }

    /// True if the event meets the expression. A flow counts when it has ended, unless the
    /// expression is about that.
    fn is_wanted(&self, event: &WatchEvent) -> bool {
        let expression = &self.settings.expression;
        let has_ended = event.fields().get("event").is_none_or(|event| event == "ended");
        let is_due = event.kind != EventKind::Flows || has_ended || expression.mentions("event");
        is_due && expression.holds_for(event.fields())
    }

    async fn give(&mut self, event: &WatchEvent) -> Step {
        if event.kind == EventKind::State && !self.settings.expression.holds_for(event.fields()) {
            return Ok(Ok(()));
        }
        let name = event.fields().get("capture").and_then(Value::as_str).unwrap_or_default();
        let directory = self.source.tree.known();
        // Without the slash at the end.
        let directory = directory.map(|tree| tree.capture(name).path("").components().collect());
        let directory: Option<PathBuf> = directory;
        let lost = self.summary.lost;
        if !self.delivery.give(event, lost, directory.as_deref()).await? {
            return Ok(Err(Over));
        }
        self.summary.events += 1;
        Ok(Ok(()))
    }

    /// Says once that the daemon is away.
    fn away(&mut self, trouble: &Trouble) -> Result<(), Failure> {
        if self.trouble.is_some() {
            return Ok(());
        }
        self.trouble = Some(trouble.text.clone());
        let report = json!({"what": "daemon", "state": "away", "error": trouble.text});
        self.report(&report, || format!("{trouble}; waiting for it"))
    }

    /// Says that the daemon is back.
    fn back(&mut self) -> Result<(), Failure> {
        if self.trouble.take().is_none() {
            return Ok(());
        }
        let report = json!({"what": "daemon", "state": "back", "error": null});
        self.report(&report, || "the daemon is back".to_owned())
    }

    /// Reports something about this run: with `--json` as a line there, otherwise as text on standard
    /// error.
    fn report(
        &self,
        report: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.delivery.is_json() {
            output::say(text());
            return Ok(());
        }
        // A reader that has gone away is noticed with the next event.
        output::write(&protocol::json::line(report)).map_err(Failure::Output)
    }
}
