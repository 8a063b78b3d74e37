//! All flows of a capture: by key, by id, and by the time since their last packet.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::apps::kept::FlowRecords;
use super::conversation::Flow;
use super::key::FlowKey;

/// Places of a block. Memory grows by whole blocks, so that flows never move.
const BLOCK: usize = 1_024;

/// The number of flows with HTTP transactions under way that can be looked at in a moment.
const MUCH_OPEN_HTTP: usize = 64;

/// The number that means no place.
const NONE: u32 = u32::MAX;

/// The place of a flow. Another flow may have the same slot later, with another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowPlace {
    slot: u32,
    generation: u32,
}

/// A flow's neighbours in a list that is ordered by the time of the last packet.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    behind: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { before: NONE, behind: NONE }
    }
}

#[derive(Debug, Default)]
struct FlowSlot {
    flow: Option<Flow>,
    generation: u32,
    /// Links in the list of all flows, and in the list of flows under way.
    links: [Link; 2],
    /// Whether it is in the list of flows under way.
    is_active: bool,
    /// Whether it is found by its key.
    is_keyed: bool,
    /// Whether it is about to be removed, and no longer counts.
    is_leaving: bool,
    /// Whether HTTP transactions of it are under way.
    has_open_http: bool,
    /// Bytes of it that `memory` includes.
    memory: usize,
    /// When the timer looks at it next, in nanoseconds.
    scheduled: u64,
}

impl FlowSlot {
    fn has_key(&self, key: &FlowKey) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.key == *key)
    }
}

/// Ends of a list.
#[derive(Clone, Copy, Debug)]
struct ListEnds {
    first: u32,
    last: u32,
}

const ALL: usize = 0;
const ACTIVE: usize = 1;

/// All flows of a capture; see the module's text.
#[derive(Debug)]
pub(super) struct FlowTable {
    blocks: Vec<Box<[FlowSlot]>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    hasher: RandomState,
    by_id: BTreeMap<u64, u32>,
    /// Flows with HTTP transactions under way.
    open_http: BTreeSet<u64>,
    lists: [ListEnds; 2],
    active: usize,
    /// Flows that are about to be removed.
    leaving: usize,
    next_id: u64,
    memory: usize,
}

impl Default for FlowTable {
    fn default() -> Self {
        let empty = ListEnds { first: NONE, last: NONE };
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: RandomState::new(),
            by_id: BTreeMap::new(),
            open_http: BTreeSet::new(),
            lists: [empty; 2],
            active: 0,
            leaving: 0,
            next_id: 1,
            memory: 0,
        }
    }
}

impl FlowTable {
    /// Flows in the tree, without those that are about to leave it.
    pub(super) fn len(&self) -> usize {
        self.by_id.len().saturating_sub(self.leaving)
    }

    /// Number of flows under way.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Bytes of memory of flows, and of the structures that find them; an estimate.
    pub(super) fn memory(&self) -> usize {
        // A BTreeMap is two thirds full on average; a hash table of numbers takes five bytes a
        // place.
        let ids = self.by_id.len().saturating_add(self.open_http.len()).saturating_mul(20);
        let keys = self.by_key.capacity().saturating_mul(6);
        let slots = self.len().saturating_mul(size_of::<FlowSlot>());
        self.memory.saturating_add(ids).saturating_add(keys).saturating_add(slots)
    }

    /// The hasher for values that strangers choose.
    pub(super) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// The id of the next flow.
    pub(super) fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        id
    }

    /// The place of the flow with this key, if packets still go to it.
    pub(super) fn by_key(&self, key: &FlowKey) -> Option<FlowPlace> {
        // Packets of a flow often come one after the other.
        let newest = self.lists.get(ACTIVE).map_or(NONE, |list| list.last);
        if self.slot(newest).is_some_and(|slot| slot.is_keyed && slot.has_key(key)) {
            return Some(self.place(newest));
        }
        let hash = self.hasher.hash_one(key);
        let has_key = |slot: &u32| self.slot(*slot).is_some_and(|slot| slot.has_key(key));
        self.by_key.find(hash, has_key).map(|slot| self.place(*slot))
    }

    /// The flow with this id.
    pub(super) fn flow(&self, id: u64) -> Option<&Flow> {
        self.slot(*self.by_id.get(&id)?)?.flow.as_ref()
    }

    /// The flow with this id, to change. Call [`FlowTable::touched`] afterwards, so that memory
    /// accounting stays right.
    pub(super) fn flow_mut(&mut self, id: u64) -> Option<&mut Flow> {
        let slot = *self.by_id.get(&id)?;
        self.slot_mut(slot)?.flow.as_mut()
    }

    /// Flows from an id on, in order of ids.
    pub(super) fn from(&self, id: u64) -> impl Iterator<Item = &Flow> {
        self.by_id.range(id..).filter_map(|(_, slot)| self.slot(*slot)?.flow.as_ref())
    }

    /// The flow at a place, unless another flow has the slot now.
    pub(super) fn get(&mut self, place: FlowPlace) -> Option<&mut Flow> {
        self.at(place)?.flow.as_mut()
    }

    /// Adds a flow as the last in order. From now on it is found by its key.
    pub(super) fn insert(&mut self, flow: Flow) -> FlowPlace {
        let (id, key) = (flow.id, flow.key);
        let number = self.free.pop().unwrap_or_else(|| self.grow());
        if let Some(slot) = self.slot_mut(number) {
            slot.flow = Some(flow);
            slot.is_active = true;
            slot.is_keyed = true;
            slot.memory = 0;
            slot.scheduled = u64::MAX;
        }
        self.by_id.insert(id, number);
        let hash = self.hasher.hash_one(key);
        let Self { blocks, by_key, hasher, .. } = self;
        by_key.insert_unique(hash, number, |slot| hash_of(blocks, hasher, *slot));
        self.append(ALL, number);
        self.append(ACTIVE, number);
        self.active = self.active.saturating_add(1);
        self.place(number)
    }

    /// Makes the flow the last in order, because a packet of it was seen.
    pub(super) fn move_to_newest(&mut self, place: FlowPlace) {
        let Some(is_active) = self.at(place).map(|slot| slot.is_active) else { return };
        self.move_back(ALL, place.slot);
        if is_active {
            self.move_back(ACTIVE, place.slot);
        }
    }

    /// Updates the memory accounting of a flow.
    pub(super) fn touched(&mut self, place: FlowPlace) {
        let Some(slot) = slot_of_mut(&mut self.blocks, place.slot) else { return };
        if slot.generation != place.generation || slot.is_leaving {
            return;
        }
        let now = slot.flow.as_ref().map_or(0, Flow::memory);
        self.memory = self.memory.saturating_sub(slot.memory).saturating_add(now);
        slot.memory = now;
        let has_open_http = slot.flow.as_ref().is_some_and(|flow| flow.open_transactions() > 0);
        if slot.has_open_http != has_open_http
            && let Some(flow) = &slot.flow
        {
            slot.has_open_http = has_open_http;
            if has_open_http {
                self.open_http.insert(flow.id);
            } else {
                self.open_http.remove(&flow.id);
            }
        }
    }

    /// Returns `true` if more flows have HTTP transactions under way than can be looked at in a
    /// moment.
    pub(super) fn has_much_open_http(&self) -> bool {
        self.open_http.len() > MUCH_OPEN_HTTP
    }

    /// Flows with HTTP transactions under way, from an id on, in order of ids.
    pub(super) fn with_open_http(&self, id: u64) -> impl Iterator<Item = &Flow> {
        self.open_http.range(id..).filter_map(|id| self.flow(*id))
    }

    /// Adds a record to what a flow keeps, if it is still there.
    pub(super) fn keep(&mut self, id: u64, keep: impl FnOnce(&mut FlowRecords)) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        if let Some(flow) = self.slot_mut(slot).and_then(|slot| slot.flow.as_mut()) {
            keep(&mut flow.kept);
        }
        self.touched(self.place(slot));
    }

    /// Marks a flow as no longer under way.
    pub(super) fn deactivate(&mut self, place: FlowPlace) {
        if let Some(slot) = self.at(place)
            && std::mem::take(&mut slot.is_active)
        {
            self.unlink(ACTIVE, place.slot);
            self.active = self.active.saturating_sub(1);
        }
    }

    /// From now on, packets with this flow's key belong to another flow.
    pub(super) fn unkey(&mut self, place: FlowPlace) {
        let Some(slot) = self.at(place) else { return };
        if !std::mem::take(&mut slot.is_keyed) {
            return;
        }
        let Some(key) = slot.flow.as_ref().map(|flow| flow.key) else { return };
        let hash = self.hasher.hash_one(key);
        let Self { blocks, by_key, hasher, .. } = self;
        if let Ok(entry) = by_key.find_entry(hash, |slot| *slot == place.slot) {
            entry.remove();
        }
        if by_key.len() < by_key.capacity() / 8 {
            by_key.shrink_to(by_key.len().saturating_mul(2), |slot| hash_of(blocks, hasher, *slot));
        }
    }

    /// Stops counting a flow, which stays in the table until [`FlowTable::remove`]. Returns its id.
    pub(super) fn mark_leaving(&mut self, place: FlowPlace) -> Option<u64> {
        self.at(place).filter(|slot| !slot.is_leaving)?;
        self.deactivate(place);
        self.unkey(place);
        self.unlink(ALL, place.slot);
        self.leaving = self.leaving.saturating_add(1);
        let slot = slot_of_mut(&mut self.blocks, place.slot)?;
        self.memory = self.memory.saturating_sub(std::mem::take(&mut slot.memory));
        slot.is_leaving = true;
        slot.has_open_http = false;
        let id = slot.flow.as_ref().map(|flow| flow.id);
        if let Some(id) = id {
            self.open_http.remove(&id);
        }
        id
    }

    /// Removes a flow that was doomed.
    pub(super) fn remove(&mut self, id: u64) -> Option<Flow> {
        let number = self.by_id.remove(&id)?;
        self.leaving = self.leaving.saturating_sub(1);
        let slot = self.slot_mut(number)?;
        let flow = slot.flow.take();
        slot.generation = slot.generation.wrapping_add(1);
        slot.is_leaving = false;
        self.free.push(number);
        flow
    }

    /// The flow whose last packet is the oldest.
    pub(super) fn oldest(&self) -> Option<FlowPlace> {
        self.first(ALL)
    }

    /// The flow under way whose last packet is the oldest.
    pub(super) fn oldest_active(&self) -> Option<FlowPlace> {
        self.first(ACTIVE)
    }

    /// Flows under way, and when the timer looks at each of them next.
    pub(super) fn all_scheduled(&self) -> impl Iterator<Item = (FlowPlace, u64)> {
        let next = |number: u32| (number != NONE).then_some(number);
        let behind = move |number: &u32| next(self.slot(*number)?.links.get(ACTIVE)?.behind);
        let first = self.lists.get(ACTIVE).and_then(|list| next(list.first));
        let all = std::iter::successors(first, behind);
        all.filter_map(|number| Some((self.place(number), self.slot(number)?.scheduled)))
    }

    /// When the timer looks at the flow next, in nanoseconds.
    pub(super) fn scheduled(&mut self, place: FlowPlace) -> Option<&mut u64> {
        Some(&mut self.at(place)?.scheduled)
    }

    fn first(&self, list: usize) -> Option<FlowPlace> {
        let first = self.lists.get(list)?.first;
        (first != NONE).then(|| self.place(first))
    }

    /// The slot of a place, unless another flow has it now.
    fn at(&mut self, place: FlowPlace) -> Option<&mut FlowSlot> {
        self.slot_mut(place.slot).filter(|slot| slot.generation == place.generation)
    }

    fn place(&self, slot: u32) -> FlowPlace {
        FlowPlace { slot, generation: self.slot(slot).map_or(0, |slot| slot.generation) }
    }

    fn slot(&self, number: u32) -> Option<&FlowSlot> {
        slot_of(&self.blocks, number)
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut FlowSlot> {
        slot_of_mut(&mut self.blocks, number)
    }

    /// Adds a block, and returns the first of its places.
    fn grow(&mut self) -> u32 {
        let first = self.blocks.len().saturating_mul(BLOCK);
        let first = u32::try_from(first).unwrap_or(NONE);
        self.blocks.push((0..BLOCK).map(|_| FlowSlot::default()).collect());
        let places = u32::try_from(BLOCK).unwrap_or(1);
        self.free.extend((1..places).rev().map(|place| first.saturating_add(place)));
        first
    }

    /// Makes a member of a list the last one.
    fn move_back(&mut self, list: usize, number: u32) {
        if self.lists.get(list).is_some_and(|ends| ends.last != number) {
            self.unlink(list, number);
            self.append(list, number);
        }
    }

    fn append(&mut self, list: usize, number: u32) {
        let Some(ends) = self.lists.get_mut(list) else { return };
        let before = std::mem::replace(&mut ends.last, number);
        if before == NONE {
            ends.first = number;
        } else if let Some(link) = self.link(list, before) {
            link.behind = number;
        }
        if let Some(link) = self.link(list, number) {
            *link = Link { before, behind: NONE };
        }
    }

    fn unlink(&mut self, list: usize, number: u32) {
        let Some(Link { before, behind }) = self.link(list, number).copied() else { return };
        match self.link(list, before) {
            Some(link) => link.behind = behind,
            None => self.set_end(list, |ends| ends.first = behind),
        }
        match self.link(list, behind) {
            Some(link) => link.before = before,
            None => self.set_end(list, |ends| ends.last = before),
        }
    }

    fn set_end(&mut self, list: usize, set: impl FnOnce(&mut ListEnds)) {
        if let Some(ends) = self.lists.get_mut(list) {
            set(ends);
        }
    }

    fn link(&mut self, list: usize, number: u32) -> Option<&mut Link> {
        self.slot_mut(number)?.links.get_mut(list)
    }
}

/// Hash of the key of the flow in a slot.
fn hash_of(blocks: &[Box<[FlowSlot]>], hasher: &RandomState, number: u32) -> u64 {
    let flow = slot_of(blocks, number).and_then(|slot| slot.flow.as_ref());
    // Every slot in the table of keys has a flow.
    flow.map_or(0, |flow| hasher.hash_one(flow.key))
}

fn slot_of(blocks: &[Box<[FlowSlot]>], number: u32) -> Option<&FlowSlot> {
    let number = usize::try_from(number).ok()?;
    blocks.get(number / BLOCK)?.get(number % BLOCK)
}

fn slot_of_mut(blocks: &mut [Box<[FlowSlot]>], number: u32) -> Option<&mut FlowSlot> {
    let number = usize::try_from(number).ok()?;
    blocks.get_mut(number / BLOCK)?.get_mut(number % BLOCK)
}
