//! Sources of the form `remote:NAME/*`: captures that are made when the remote has them.

use super::{Planned, Refusal, Registry};
use crate::mirror::{MirrorPattern, Watch};
use crate::output::say;

impl Registry {
    /// Begins to look for the captures of each pattern among `planned`. Returns the others, and the
    /// index that each of them had. On failure, returns the index of the pattern and the reason.
    pub(super) fn without_patterns(
        &self,
        planned: Vec<Planned>,
    ) -> Result<(Vec<Planned>, Vec<usize>), (usize, Refusal)> {
        let (mut others, mut indexes) = (Vec::new(), Vec::new());
        for (index, planned) in planned.into_iter().enumerate() {
            match MirrorPattern::of(&planned.spec.source) {
                Some(pattern) => {
                    self.watch(pattern, planned).map_err(|refusal| (index, refusal))?;
                }
                None => {
                    others.push(planned);
                    indexes.push(index);
                }
            }
        }
        Ok((others, indexes))
    }

    /// Makes a capture like `planned` for each capture of a remote, now and later.
    pub(super) fn watch(&self, pattern: MirrorPattern, planned: Planned) -> Result<(), Refusal> {
        let registry = self.own.clone();
        let alias = planned.spec.alias.clone();
        let found = {
            let pattern = pattern.clone();
            move |capture: &str| {
                if let Some(registry) = registry.upgrade() {
                    registry.found(&pattern, &planned, capture);
                }
            }
        };
        let watch = Watch::start(&pattern, found);
        let watch = watch.map_err(|error| Refusal::Capture(error.into()))?;
        self.watches.lock().insert(alias, watch);
        Ok(())
    }

    /// Looks no longer for the captures of the pattern with this alias. Returns whether it did. The
    /// captures that were made stay.
    pub(super) fn unwatch(&self, alias: &str) -> bool {
        self.watches.lock().remove(alias).is_some()
    }

    /// Makes the capture that follows one of a remote. If that is not possible, it is reported.
    fn found(&self, pattern: &MirrorPattern, like: &Planned, capture: &str) {
        let made = pattern.capture(capture).and_then(|(source, alias)| {
            if let Ok(there) = self.find(&alias)
                && there.capture.spec().source == source
            {
                return Ok(());
            }
            let mut planned = like.clone();
            (planned.spec.source, planned.spec.alias) = (source, alias);
            planned.waits = true;
            self.add_all(vec![planned]).map_err(|(_, refusal)| refusal.to_string())
        });
        if let Err(why) = made {
            say(format_args!("{}: {capture} is not here: {why}", like.spec.source));
        }
    }
}
