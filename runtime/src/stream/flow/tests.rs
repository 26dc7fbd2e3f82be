//! Two ends over a channel that loses, repeats and reorders: every byte arrives once, in order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Far more than what a test leaves in the writers can take.
const MESSAGES_MAX: usize = 20_000;

/// What may happen between two ends. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u16),
    Item(usize, u16),
    Read(usize, u16),
    Speak(usize),
    Deliver(usize, u8),
    Lose(usize, u8),
    Repeat(usize, u8),
    Tick(usize),
    Widen(usize, u8),
    Finish(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..2_usize;
    prop_oneof![
        4 => (end.clone(), any::<u16>()).prop_map(|(end, n)| Step::Write(end, n)),
        1 => (end.clone(), any::<u16>()).prop_map(|(end, n)| Step::Item(end, n)),
        3 => (end.clone(), any::<u16>()).prop_map(|(end, n)| Step::Read(end, n)),
        6 => end.clone().prop_map(Step::Speak),
        8 => (end.clone(), any::<u8>()).prop_map(|(end, n)| Step::Deliver(end, n)),
        2 => (end.clone(), any::<u8>()).prop_map(|(end, n)| Step::Lose(end, n)),
        1 => (end.clone(), any::<u8>()).prop_map(|(end, n)| Step::Repeat(end, n)),
        2 => end.clone().prop_map(Step::Tick),
        1 => (end.clone(), any::<u8>()).prop_map(|(end, n)| Step::Widen(end, n)),
        1 => end.prop_map(Step::Finish),
    ]
}

#[derive(Clone, Debug)]
enum Message {
    Data(Bytes),
    Ack(Ack),
}

/// One end, what its user wrote and read, and what is on its way to it.
struct Side {
    flow: Flow,
    wrote: Vec<u8>,
    read: Vec<u8>,
    coming: VecDeque<Message>,
}

struct Pair([Side; 2]);

impl Pair {
    fn new(windows: [u64; 2]) -> Self {
        let side = |own: u64, peer: u64| Side {
            flow: Flow::new(own, peer),
            wrote: Vec::new(),
            read: Vec::new(),
            coming: VecDeque::new(),
        };
        Self([side(windows[0], windows[1]), side(windows[1], windows[0])])
    }

    fn take(&mut self, step: &Step) -> Result<(), Violation> {
        match *step {
            Step::Write(end, n) => self.0[end].write(usize::from(n)),
            Step::Item(end, n) => self.0[end].write_item(usize::from(n % 700)),
            Step::Read(end, n) => self.0[end].read(usize::from(n)),
            Step::Speak(end) => drop(self.speak(end)),
            Step::Deliver(end, n) => return self.deliver(end, usize::from(n)),
            Step::Lose(end, n) => drop(self.0[end].pick(usize::from(n))),
            Step::Repeat(end, n) => {
                let coming = &mut self.0[end].coming;
                if !coming.is_empty() {
                    coming.push_back(coming[usize::from(n) % coming.len()].clone());
                }
            }
            Step::Tick(end) => self.tick(end),
            Step::Widen(end, n) => self.0[end].flow.widen(u64::from(n)),
            Step::Finish(end) => self.0[end].flow.finish(None, None),
        }
        Ok(())
    }

    /// Sends one message, as the pump does: what is to be said first, then data.
    fn speak(&mut self, end: usize) -> bool {
        let flow = &mut self.0[end].flow;
        let message = match flow.next_ack() {
            Some(ack) => Message::Ack(ack),
            None => match flow.next_chunk() {
                Some(chunk) => Message::Data(chunk.message),
                None => return false,
            },
        };
        self.0[1 - end].coming.push_back(message);
        true
    }

    fn deliver(&mut self, end: usize, at: usize) -> Result<(), Violation> {
        match self.0[end].pick(at) {
            None => Ok(()),
            Some(Message::Ack(ack)) => self.0[end].flow.on_ack(ack),
            Some(Message::Data(bytes)) => {
                let data = Data::decode(&bytes).expect("what an end sends can be read");
                self.0[end].flow.on_data(data)
            }
        }
    }

    fn tick(&mut self, end: usize) {
        let flow = &mut self.0[end].flow;
        if flow.is_behind() {
            flow.ask_again();
        }
        let ack = flow.ack();
        self.0[1 - end].coming.push_back(Message::Ack(ack));
    }

    /// Delivers all there is and all that follows from it; says how many messages that took.
    fn settle(&mut self) -> Result<usize, Violation> {
        let mut count = 0;
        loop {
            let mut moved = false;
            for end in [0, 1] {
                moved |= self.speak(end);
                while !self.0[end].coming.is_empty() {
                    self.deliver(end, 0)?;
                    count += 1;
                    moved = true;
                }
            }
            if !moved || count > MESSAGES_MAX {
                return Ok(count);
            }
        }
    }

    fn is_over(&self) -> bool {
        let over = |side: &Side| side.flow.is_acknowledged() && side.flow.end_of_input().is_some();
        self.0.iter().all(over)
    }
}

impl Side {
    fn pick(&mut self, at: usize) -> Option<Message> {
        let len = self.coming.len();
        (len > 0).then(|| self.coming.remove(at % len)).flatten()
    }

    /// Bytes that tell where they belong.
    fn next_bytes(&self, len: usize) -> Vec<u8> {
        (self.wrote.len()..self.wrote.len() + len).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    fn write(&mut self, len: usize) {
        let bytes = self.next_bytes(len);
        let taken = self.flow.write(&bytes);
        self.wrote.extend_from_slice(&bytes[..taken]);
    }

    fn write_item(&mut self, len: usize) {
        if self.flow.room() > 0 {
            let item = self.next_bytes(len);
            self.flow.write_item(&item);
            match u8::try_from(len) {
                Ok(len) => self.wrote.extend_from_slice(&[0xc4, len]),
                Err(_) => {
                    self.wrote.push(0xc6);
                    self.wrote.extend_from_slice(&(len as u32).to_be_bytes());
                }
            }
            self.wrote.extend_from_slice(&item);
        }
    }

    fn read(&mut self, len: usize) {
        let mut into = vec![0; len];
        let read = self.flow.read(&mut into);
        self.read.extend_from_slice(&into[..read]);
    }
}

fn windows() -> impl Strategy<Value = [u64; 2]> {
    let window = || prop_oneof![8..40_u64, 40..5000_u64, Just(16 << 10)];
    [window(), window()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order_over_a_bad_channel(
        windows in windows(),
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut pair = Pair::new(windows);
        for step in &steps {
            prop_assert_eq!(pair.take(step), Ok(()), "{:?}", step);
            for end in [0, 1] {
                prop_assert!(pair.0[1 - end].wrote.starts_with(&pair.0[end].read));
            }
        }
        for end in [0, 1] {
            pair.0[end].flow.finish(None, None);
        }
        // Nothing is lost any more, so a timer and a reader at each end are enough to end it.
        for _round in 0..5_000 {
            if pair.is_over() {
                break;
            }
            for end in [0, 1] {
                pair.tick(end);
                pair.0[end].read(usize::MAX >> 48);
            }
            prop_assert!(pair.settle().unwrap() < MESSAGES_MAX, "messages without end");
        }
        prop_assert!(pair.is_over(), "both ends know that it is over");
        for end in [0, 1] {
            let (wrote, read) = (&pair.0[1 - end].wrote, &pair.0[end].read);
            prop_assert_eq!(wrote, read);
            let theirs = pair.0[end].flow.end_of_input().unwrap();
            prop_assert_eq!(theirs.bytes, wrote.len() as u64);
        }
    }

    #[test]
    fn two_ends_fall_silent_when_nothing_happens(
        windows in windows(),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut pair = Pair::new(windows);
        for step in &steps {
            pair.take(step).unwrap();
        }
        prop_assert!(pair.settle().unwrap() < MESSAGES_MAX, "messages without end");
    }

    #[test]
    fn a_writer_is_never_more_than_its_window_and_a_few_chunks_ahead_of_a_reader(
        windows in windows(),
        writes in prop::collection::vec(any::<u16>(), 1..200),
    ) {
        let mut pair = Pair::new(windows);
        for len in writes {
            pair.0[0].write(usize::from(len));
            pair.settle().unwrap();
        }
        let window = windows[1];
        let ahead = pair.0[0].wrote.len() as u64;
        let chunks = (CHUNKS_WAITING_MAX as u64 + 1) * (window / 2).clamp(1, CHUNK_BYTES_MAX as u64);
        prop_assert!(ahead <= window + chunks, "{} past a window of {}", ahead, window);
    }
}

#[test]
fn what_a_peer_may_not_do_is_noticed() {
    let data = |at, len: usize, end| Data { at, data: vec![0; len].into(), begin: None, end };
    let end = |bytes| Some(End { bytes, items: 0, fault: None, recorded: None });
    let flow = || Flow::new(10, 10);

    assert_eq!(flow().on_data(data(0, 11, None)), Err(Violation::PastCredit));
    assert_eq!(flow().on_data(data(u64::MAX, 1, None)), Err(Violation::PastCredit));
    assert_eq!(flow().on_data(data(0, 3, end(4))), Err(Violation::WrongTotal));
    let mut ended = flow();
    ended.on_data(data(0, 3, end(3))).unwrap();
    assert_eq!(ended.on_data(data(3, 1, None)), Err(Violation::AfterEnd));
    let ack = Ack { received: 1, limit: 10, ..Ack::default() };
    assert_eq!(flow().on_ack(ack), Err(Violation::UnsentAcknowledged));
}
