//! Compares the assembler with a simple model: a list with one entry for each byte.
//!
//! Streams are short and bytes are `a` or `b`, so that everything collides all the time.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers of tests are small"
)]

use std::ops::Range;

use proptest::prelude::*;
use protocol::extent::Extent;
use protocol::tcp::assembler::{Absence, Assembler, AssemblerLimits, Bytes, Inserted, Policy};

/// Bytes of one test's stream.
const SPAN: u64 = 48;

/// The captured data of all packets, so that packet and offset identify a byte.
struct Packets(Vec<Vec<u8>>);

impl Bytes for Packets {
    fn get(&self, extent: Extent) -> Option<&[u8]> {
        let data = &self.0[extent.packet as usize];
        // A packet with an 'x' in it is gone.
        if data.contains(&b'x') {
            return None;
        }
        Some(&data[extent.offset as usize..][..extent.len as usize])
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Nothing,
    Byte(u64, u32),
    Missing,
}

/// The state of each byte of the stream.
struct Model {
    slots: Vec<Slot>,
    end: usize,
    limit: usize,
    oldest: u64,
}

impl Model {
    fn insert(
        &mut self,
        start: u64,
        extent: Extent,
        policy: Policy,
        packets: &Packets,
    ) -> Inserted {
        let mut inserted = Inserted::default();
        for index in 0..extent.len {
            let at = start as usize + index as usize;
            let new = Slot::Byte(extent.packet, extent.offset + index);
            match self.slots[at] {
                Slot::Nothing => {
                    inserted.new += 1;
                    inserted.first_new.get_or_insert(at as u64);
                    self.slots[at] = new;
                }
                Slot::Missing => inserted.late += 1,
                Slot::Byte(packet, offset) => {
                    inserted.seen += 1;
                    let one = |packet, offset| packets.get(Extent { packet, offset, len: 1 });
                    let is_retained = at >= self.end || packet >= self.oldest;
                    let is_same = new == self.slots[at] && is_retained;
                    match (one(packet, offset), one(extent.packet, extent.offset + index)) {
                        _ if is_same => {}
                        (Some(old), Some(new)) if is_retained => {
                            inserted.conflicting += u64::from(old != new);
                        }
                        _ => inserted.unverified += 1,
                    }
                    if policy == Policy::Last && at >= self.end {
                        self.slots[at] = new;
                    }
                }
            }
        }
        self.settle();
        inserted
    }

    fn settle(&mut self) {
        while self.end < self.limit.min(self.slots.len()) && self.slots[self.end] != Slot::Nothing {
            self.end += 1;
        }
    }

    fn skip(&mut self, to: usize) {
        while self.end < to && self.slots[self.end] == Slot::Nothing {
            self.slots[self.end] = Slot::Missing;
            self.end += 1;
        }
        self.settle();
    }

    fn holes_waiting(&self) -> usize {
        let waiting = &self.slots[self.end..];
        waiting.windows(2).filter(|two| two[0] == Slot::Nothing && two[1] != Slot::Nothing).count()
    }

    fn readable(&self, at: usize) -> Result<(u64, u32), Absence> {
        match self.slots[at] {
            Slot::Byte(packet, _) if packet < self.oldest => Err(Absence::Expired),
            Slot::Byte(packet, offset) => Ok((packet, offset)),
            Slot::Missing => Err(Absence::Missing),
            Slot::Nothing => unreachable!("nothing is decided about {at}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert {
        start: u64,
        data: Vec<u8>,
        cut: usize,
    },
    /// Inserts the very first extent again, at the same place.
    Again,
    Skip(u64),
    Limit(u64),
    Expire(u64),
    GiveWay,
    Cut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let data = prop_oneof![
        8 => prop::collection::vec(prop::sample::select(vec![b'a', b'b']), 1..10),
        4 => prop::collection::vec(Just(b'a'), 1..20),
        1 => prop::collection::vec(Just(b'x'), 1..10),
    ];
    prop_oneof![
        24 => (0..SPAN - 20, data, 0..20_usize)
            .prop_map(|(start, data, cut)| Op::Insert { start, data, cut }),
        1 => Just(Op::Again),
        3 => (0..SPAN).prop_map(Op::Skip),
        3 => (0..SPAN).prop_map(Op::Limit),
        2 => (0..20_u64).prop_map(Op::Expire),
        1 => Just(Op::GiveWay),
        1 => (0..SPAN).prop_map(Op::Cut),
    ]
}

fn check(assembler: &Assembler, model: &Model) {
    assert_eq!(assembler.end(), model.end as u64);
    assert_eq!(assembler.holes_waiting(), model.holes_waiting());
    let ranges = [0..SPAN, 0..1, 3..17, model.end as u64 / 2..SPAN, 5..6];
    for range in ranges {
        let mut at = range.start;
        for chunk in assembler.chunks(range.clone()) {
            assert_eq!(chunk.range.start, at);
            assert!(!chunk.range.is_empty());
            for (index, at) in chunk.range.clone().enumerate() {
                let got = chunk.content.map(|extent| (extent.packet, extent.offset + index as u32));
                assert_eq!(got, model.readable(at as usize), "byte {at}");
            }
            if let Ok(extent) = chunk.content {
                assert_eq!(u64::from(extent.len), chunk.range.end - chunk.range.start);
            }
            at = chunk.range.end;
        }
        assert_eq!(at.max(range.start), range.end.min(model.end as u64).max(range.start));
    }
    let mut holes: Vec<(Range<u64>, Absence)> = Vec::new();
    for at in 0..model.end {
        if let Err(kind) = model.readable(at) {
            let at = at as u64;
            match holes.last_mut() {
                Some((range, last)) if range.end == at && *last == kind => range.end += 1,
                _ => holes.push((at..at + 1, kind)),
            }
        }
    }
    assert_eq!(assembler.holes(), holes);
}

/// Runs the assembler and the model side by side.
fn run(ops: Vec<Op>, policy: Policy, limits: AssemblerLimits) {
    let mut packets = Packets(vec![Vec::new()]);
    let mut assembler = Assembler::new();
    let slots = vec![Slot::Nothing; SPAN as usize];
    let mut model = Model { slots, end: 0, limit: usize::MAX, oldest: 0 };
    let mut first = None;
    let mut announced = 0;
    for op in ops {
        match op {
            Op::Insert { start, data, cut } => {
                let packet = packets.0.len() as u64;
                let (len, cut) = (data.len() as u32, cut.min(data.len()) as u32);
                packets.0.push(data);
                let whole = Extent { packet, offset: 0, len };
                first = first.or(Some((start, whole)));
                for part in [whole.part(0, cut.into()), whole.part(cut.into(), u64::MAX)] {
                    let start = start + u64::from(part.offset);
                    let got = assembler.insert(start, part, policy, &packets);
                    assert_eq!(got, model.insert(start, part, policy, &packets));
                }
            }
            Op::Again => {
                if let Some((start, extent)) = first {
                    let got = assembler.insert(start, extent, policy, &packets);
                    assert_eq!(got, model.insert(start, extent, policy, &packets));
                }
            }
            Op::Skip(to) => {
                if let Some(range) = assembler.take() {
                    assert_eq!(range.start, announced);
                    announced = range.end;
                }
                let gap = assembler.skip(to);
                model.skip(to as usize);
                if let Some(gap) = gap {
                    assert_eq!(gap.start, announced);
                    announced = gap.end;
                }
            }
            Op::Limit(limit) => {
                assembler.set_limit(limit);
                model.limit = limit as usize;
                model.settle();
            }
            Op::Expire(packet) => {
                assembler.expire(packet);
                model.oldest = model.oldest.max(packet);
            }
            Op::GiveWay => {
                announced = assembler.take().map_or(announced, |range| range.end);
                let first = assembler.first_pending();
                let gap = assembler.give_way();
                announced = gap.map_or(announced, |gap| gap.end);
                if let Some(first) = first {
                    let limit = std::mem::replace(&mut model.limit, usize::MAX);
                    model.skip(first as usize);
                    model.settle();
                    model.limit = limit;
                }
            }
            Op::Cut(offset) => {
                assembler.cut_pending(offset);
                for at in model.end.max(offset as usize)..SPAN as usize {
                    model.slots[at] = Slot::Nothing;
                }
            }
        }
        while assembler.is_overfull(&limits) {
            announced = assembler.take().map_or(announced, |range| range.end);
            let first = assembler.first_pending().unwrap();
            announced = assembler.give_way().map_or(announced, |gap| gap.end);
            let limit = std::mem::replace(&mut model.limit, usize::MAX);
            model.skip(first as usize);
            model.settle();
            model.limit = limit;
        }
        assert!(assembler.pending() <= limits.pending);
        assert!(assembler.holes_waiting() <= limits.holes);
        check(&assembler, &model);
        if let Some(range) = assembler.take() {
            assert_eq!(range.start, announced);
            announced = range.end;
        }
        assert_eq!(announced, assembler.end());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn first_agrees_with_a_list_of_bytes(ops in prop::collection::vec(op(), 1..40)) {
        run(ops, Policy::First, AssemblerLimits::default());
    }

    #[test]
    fn last_agrees_with_a_list_of_bytes(ops in prop::collection::vec(op(), 1..40)) {
        run(ops, Policy::Last, AssemblerLimits::default());
    }

    #[test]
    fn bounds_hold_and_agree(ops in prop::collection::vec(op(), 1..40), holes in 0..4_usize, pending in 2..8_usize) {
        run(ops, Policy::First, AssemblerLimits { holes, pending, ..AssemblerLimits::default() });
    }
}

/// The limit of gaps forgets the older half, the limit of extents the oldest.
#[test]
fn forgotten_bytes_expire() {
    let limits = AssemblerLimits { extents: 6, gaps: 4, ..AssemblerLimits::default() };
    let mut assembler = Assembler::new();
    for index in 0..5_u64 {
        let extent = Extent { packet: index + 1, offset: 0, len: 1 };
        assembler.insert(index * 2 + 1, extent, Policy::First, &protocol::tcp::NoBytes);
        assert!(assembler.skip(index * 2 + 1).is_some());
        assembler.trim(&limits);
    }
    let missing = |start| (start..start + 1, Absence::Missing);
    assert_eq!(assembler.holes(), [(0..5, Absence::Expired), missing(6), missing(8)]);
    assert_eq!(assembler.bites().extents, 2);
    for index in 5..10_u64 {
        let extent = Extent { packet: index + 1, offset: 0, len: 1 };
        assembler.insert(index + 5, extent, Policy::First, &protocol::tcp::NoBytes);
        assembler.trim(&limits);
    }
    assert_eq!(assembler.extents(), 6);
    assert_eq!(
        assembler.holes(),
        [(0..6, Absence::Expired), missing(6), (7..8, Absence::Expired), missing(8)]
    );
}
