//! Slots: the maximum of things of a kind at a time, in all and for each client.
//!
//! A client without a slot gets an error at once, and can try again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::access::Visitor;

/// The slots for things of one kind.
#[derive(Debug)]
pub(super) struct Slots {
    total: usize,
    each: usize,
    taken: Mutex<HashMap<Visitor, usize>>,
}

/// A slot, free again once this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    visitor: Visitor,
}

impl Slots {
    /// This many in all, and for each client.
    pub(super) fn new(total: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { total, each, taken: Mutex::default() })
    }

    /// A slot for this client; `None` if all are taken.
    pub(super) fn take(self: &Arc<Self>, visitor: &Visitor) -> Option<Slot> {
        let mut taken = self.taken.lock();
        let own = taken.get(visitor).copied().unwrap_or(0);
        if own >= self.each || taken.values().sum::<usize>() >= self.total {
            return None;
        }
        taken.insert(visitor.clone(), own + 1);
        Some(Slot { slots: Arc::clone(self), visitor: visitor.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        if let Some(own) = taken.get_mut(&self.visitor) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.visitor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_share_and_all_get_the_total() {
        let slots = Slots::new(3, 2);
        let (one, other) = (Visitor::User(1), Visitor::User(2));
        let first = slots.take(&one).unwrap();
        let _second = slots.take(&one).unwrap();
        assert!(slots.take(&one).is_none(), "its share is taken");
        let _third = slots.take(&other).unwrap();
        assert!(slots.take(&other).is_none(), "all are taken");
        drop(first);
        assert!(slots.take(&other).is_some());
        assert_eq!(slots.taken.lock().len(), 2);
    }
}
