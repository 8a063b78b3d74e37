//! A cache of the long filters that were compiled last. Compiling hundreds of ports takes seconds,
//! and a configuration is checked right before its captures are created.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::linktype::LinkType;

use super::{Filter, Runner};

/// Minimum length of an expression, in bytes, that may take long to compile.
const LONG: usize = 256;

/// How long a filter is kept. Not longer, because a host name may resolve to another address.
const AGE: Duration = Duration::from_secs(60);

/// Maximum number of filters kept: programs of up to half a megabyte each.
const COUNT: usize = 8;

static RECENT: Mutex<VecDeque<RecentFilters>> = Mutex::new(VecDeque::new());

struct RecentFilters {
    filter: Filter,
    link_type: LinkType,
    runner: Runner,
    at: Instant,
}

/// The filter of an expression that was compiled a moment ago.
pub(super) fn take(expression: &str, link_type: LinkType, runner: Runner) -> Option<Filter> {
    if expression.len() < LONG {
        return None;
    }
    let mut recent = RECENT.lock();
    recent.retain(|one| one.at.elapsed() < AGE);
    let is_it = |one: &&RecentFilters| {
        one.filter.expression == expression && one.link_type == link_type && one.runner == runner
    };
    recent.iter().find(is_it).map(|one| one.filter.clone())
}

/// Keeps a filter for a while, if it may have taken long to compile.
pub(super) fn keep(filter: &Filter, link_type: LinkType, runner: Runner) {
    if filter.expression.len() < LONG {
        return;
    }
    let mut recent = RECENT.lock();
    recent.truncate(COUNT - 1);
    recent.push_front(RecentFilters {
        filter: filter.clone(),
        link_type,
        runner,
        at: Instant::now(),
    });
}
