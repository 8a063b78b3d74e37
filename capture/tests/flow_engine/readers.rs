//! Readers of all files while flows come and go.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use capture::flow::{Application, File, FlowReadError, Flows, Log, Seek};
use capture::store::Store;
use protocol::http::direction::MessageRole;
use serde_json::Value;

use crate::scene::*;

/// The server's answer to the request of connection `number` in turn `turn`.
fn answer(number: u32, turn: u32) -> Vec<u8> {
    let seed = number.wrapping_mul(31).wrapping_add(turn);
    (0..500 + seed % 1_500).map(|at| 1 + ((at ^ seed) % 200) as u8).collect()
}

const TURNS: u32 = 8;

/// All bytes that connection `number` will have sent in the end, for each side.
fn truth(number: u32) -> [Vec<u8>; 2] {
    let asks = (0..TURNS).flat_map(|turn| get(&target(number, turn))).collect();
    let answers = (0..TURNS).flat_map(|turn| ok(&answer(number, turn))).collect();
    [asks, answers]
}

/// The beginnings and sizes of files that all readers together have seen.
#[derive(Default)]
struct Told(Mutex<HashMap<(u64, File), (u64, u64)>>);

impl Told {
    /// Asks for size and beginning of a file. Neither may go back.
    fn ask(&self, flows: &Flows, id: u64, file: File) -> Option<(u64, u64)> {
        let before = self.0.lock().unwrap().get(&(id, file)).copied();
        let stat = flows.stat(id, file)?;
        if let Some((beginning, size)) = before {
            assert!(stat.beginning >= beginning, "{file:?} of {id} begins earlier");
            let is_same = stat.beginning == beginning;
            assert!(
                !is_same || stat.size >= size,
                "{file:?} of {id} has shrunk from {size}: {stat:?}"
            );
        }
        assert!(stat.present <= stat.size);
        let told = (stat.beginning, stat.size);
        let mut all = self.0.lock().unwrap();
        let newest = all.entry((id, file)).or_insert(told);
        *newest = told.max(*newest);
        Some(told)
    }
}

/// Checks that each byte is correct, or no longer retained.
#[track_caller]
fn agrees(bytes: &[u8], truth: &[u8]) {
    assert!(bytes.len() <= truth.len());
    let wrong = bytes.iter().zip(truth).position(|(is, was)| is != was && *is != 0);
    assert_eq!(wrong, None, "the first byte that is wrong");
}

/// Reads a file of a flow to its end; `None` if it is gone.
fn look(flows: &Flows, told: &Told, id: u64, number: u32, file: File) -> Option<()> {
    let is_made = matches!(file, File::Meta | File::HttpOpen | File::Har);
    let (beginning, size) = if is_made { (0, 0) } else { told.ask(flows, id, file)? };
    let mut reading = flows.open(id, file, beginning).ok()?;
    let mut bytes = Vec::new();
    loop {
        match reading.read(bytes.len() as u64, 3_000) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => bytes.extend(part),
            Err(error) => {
                assert_eq!(error, FlowReadError::Expired, "{file:?} of {id}");
                // The records of packets are dropped one by one. For any other file, an error comes
                // only after its flow has left: for a text in every case, and for a stream if the
                // flow left because of a limit while some of its packets were retained.
                let has_left = flows.flow(id).is_none();
                assert!(file == File::Packets || has_left, "{file:?} of {id}");
                return None;
            }
        }
    }
    assert!(bytes.len() as u64 >= size, "{file:?} of {id}: {} of {size}", bytes.len());
    let [asks, answers] = truth(number);
    match file {
        File::Client => agrees(&bytes, &asks),
        File::Server => agrees(&bytes, &answers),
        File::Body { index, direction } => {
            assert_eq!(direction, MessageRole::Response);
            agrees(&bytes, &answer(number, u32::try_from(index - 1).unwrap()));
        }
        File::Packets => {
            let mut rest = &bytes[24..];
            while !rest.is_empty() {
                let len = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
                rest = &rest[16 + len..];
            }
        }
        File::Meta | File::Har => {
            serde_json::from_slice::<Value>(&bytes).unwrap();
        }
        File::Lines(_) | File::HttpOpen => {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let is_cut = flows.flow(id).is_none();
                assert!(is_cut || serde_json::from_slice::<Value>(line).is_ok());
            }
        }
        File::Transcript => {}
    }
    for to in [Seek::Data, Seek::Hole] {
        let offset = size / 2;
        assert!(reading.seek(offset, to).is_none_or(|at| at >= offset));
    }
    Some(())
}

fn look_at_everything(flows: &Flows, told: &Told) {
    for id in ids(flows) {
        let Some(flow) = flows.flow(id) else { continue };
        if !flow.name.contains("-tcp-") {
            continue;
        }
        let number = number_of(&flow.name);
        for file in [
            File::Meta,
            File::Packets,
            File::Client,
            File::Server,
            File::Transcript,
            File::Lines(Application::Http),
            File::Har,
        ] {
            look(flows, told, id, number, file);
        }
        let mut bodies = Vec::new();
        flows.bodies(id, 1, &mut |body| {
            bodies.push(File::Body { index: body.index, direction: body.direction });
            ControlFlow::Continue(())
        });
        for file in bodies {
            look(flows, told, id, number, file);
        }
    }
    for log in [Log::Flows, Log::Lines(Application::Http)] {
        let beginning = flows.log_stat(log, None).beginning;
        let bytes = whole(&mut flows.open_log(log, beginning));
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            serde_json::from_slice::<Value>(line).unwrap();
        }
    }
    let counters = flows.counters();
    assert!(counters.engine_lost_packets == 0 && counters.undecodable == 0, "{counters:?}");
}

#[test]
fn readers_of_everything_while_flows_come_and_go() {
    const CONNECTIONS: u32 = 200;
    const AT_A_TIME: usize = 12;
    let options = limited(|limits| (limits.flows, limits.open) = (40, 20));
    let mut scene = Scene::new(options);
    let (told, is_over) = (Told::default(), AtomicBool::new(false));
    let flows = std::sync::Arc::clone(&scene.flows);
    let rounds = thread::scope(|scope| {
        let read = || {
            let mut rounds = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                look_at_everything(&flows, &told);
                rounds += 1;
            }
            rounds
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let mut next = 0;
        let mut talks: Vec<(Talk, u32)> = Vec::new();
        while next < CONNECTIONS || !talks.is_empty() {
            while next < CONNECTIONS && talks.len() < AT_A_TIME {
                let mut talk = Talk::new(next, 2_000);
                scene.send_all(talk.open());
                talks.push((talk, 0));
                next += 1;
            }
            for (talk, turn) in &mut talks {
                scene.send_all(talk.says(CLIENT, &get(&target(talk.client, *turn)), 40));
                scene.send_all(talk.says(SERVER, &ok(&answer(talk.client, *turn)), 700));
                *turn += 1;
                if *turn == TURNS {
                    scene.send_all(talk.close());
                }
            }
            talks.retain(|(_, turn)| *turn < TURNS);
            scene.settle();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>()
    });
    assert!(rounds > 3, "they read while packets came");
    assert!(scene.ring.bounds().oldest.number > 1, "and while others were overwritten");
    scene.end();
    look_at_everything(&scene.flows, &told);
    let counters = scene.counters();
    assert_eq!(counters.closed + counters.evicted, u64::from(CONNECTIONS), "{counters:?}");
    assert_eq!(
        scene.log(Log::Lines(Application::Http)).len() as u64,
        u64::from(CONNECTIONS * TURNS)
    );
}

/// Readers measure a transcript again and again while its transactions end.
#[test]
fn a_transcript_keeps_what_it_has_shown_while_transactions_end() {
    const CONNECTIONS: u32 = 100;
    let mut scene = Scene::new(limited(|_| {}));
    let (told, is_over) = (Told::default(), AtomicBool::new(false));
    let flows = std::sync::Arc::clone(&scene.flows);
    thread::scope(|scope| {
        let read = || {
            while !is_over.load(Ordering::Relaxed) {
                if let Some(id) = ids(&flows).last().copied() {
                    look(&flows, &told, id, 0, File::Transcript);
                }
            }
        };
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        for number in 0..CONNECTIONS {
            let mut talk = Talk::new(number, 2_000);
            scene.send_all(talk.open());
            for turn in 0..TURNS {
                scene.send_all(talk.says(CLIENT, &get(&target(number, turn)), 40));
                scene.settle();
                scene.send_all(talk.says(SERVER, &ok(&answer(number, turn)), 700));
            }
            scene.send_all(talk.close());
            scene.settle();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
