use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push { after_us: u64, len: usize },
    Note,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5000u64, 0..9000usize).prop_map(|(after_us, len)| Step::Push { after_us, len }),
        1 => Just(Step::Note),
        3 => Just(Step::Read),
    ]
}

/// The byte at a place, so that a byte shows where it came from.
fn byte(at: u64) -> u8 {
    (at % 251) as u8
}

proptest! {
    #[test]
    fn a_reader_gets_every_byte_or_is_told_how_many_it_lost(
        steps in prop::collection::vec(step(), 1..80),
        cost_max in 4096..40_000usize,
    ) {
        let mut ring = Ring::new(cost_max, 0);
        let mut cursor = ring.live();
        let mut now = SystemTime::UNIX_EPOCH;
        let (mut read, mut notes_made, mut notes_read) = (0, 0, 0);
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Read, 2000)) {
            match step {
                Step::Push { after_us, len } => {
                    now += Duration::from_micros(after_us);
                    let bytes: Vec<_> = (ring.end()..).take(len).map(byte).collect();
                    let end = ring.end();
                    ring.push(now, &bytes);
                    prop_assert_eq!(ring.end(), end + len as u64);
                }
                Step::Note => {
                    ring.note(now, format!("at {}", ring.end()));
                    notes_made += 1;
                }
                Step::Read => match ring.next(&mut cursor) {
                    Next::Lost(lost) => {
                        prop_assert!(lost > 0);
                        read += lost;
                        prop_assert!(read <= ring.start());
                    }
                    Next::Note { text, .. } => {
                        prop_assert_eq!(text, format!("at {read}"));
                        notes_read += 1;
                    }
                    Next::Bytes { at, time, data } => {
                        prop_assert_eq!(at, read);
                        prop_assert!(!data.is_empty() && time <= now);
                        for (place, got) in (read..).zip(&data) {
                            prop_assert_eq!(*got, byte(place));
                        }
                        read += data.len() as u64;
                    }
                    Next::Nothing => prop_assert_eq!(read, ring.end()),
                },
            }
            prop_assert_eq!(cursor.at, read);
            let kept: usize = ring.chunks.iter().map(|c| c.bytes.len() + CHUNK_COST).sum();
            prop_assert_eq!(kept, ring.cost);
            prop_assert!(kept <= cost_max.max(CHUNK_BYTES_MAX + CHUNK_COST));
        }
        prop_assert_eq!(read, ring.end());
        prop_assert!(notes_read == notes_made || notes_made > NOTES_MAX);
    }

    #[test]
    fn every_place_can_be_asked_for(
        pushes in prop::collection::vec((0..5000u64, 1..3000usize), 1..30),
        from in 0..100_000u64,
    ) {
        let mut ring = Ring::new(16 << 10, 0);
        let mut now = SystemTime::UNIX_EPOCH;
        let mut times = Vec::new();
        for (after_us, len) in pushes {
            now += Duration::from_micros(after_us);
            let bytes: Vec<_> = (ring.end()..).take(len).map(byte).collect();
            ring.push(now, &bytes);
            times.push((ring.end(), now));
        }
        let mut cursor = ring.cursor(from);
        match ring.next(&mut cursor) {
            Next::Lost(lost) => prop_assert_eq!(from + lost, ring.start()),
            Next::Nothing => prop_assert!(from >= ring.end()),
            Next::Bytes { at, time, data } => {
                prop_assert_eq!((at, data[0]), (from, byte(from)));
                let came = times.iter().find(|(end, _)| *end > at).map(|(_, time)| *time);
                let late = came.and_then(|came| came.duration_since(time).ok());
                prop_assert!(late.is_some_and(|late| late < Duration::from_millis(1)), "{late:?}");
            }
            Next::Note { .. } => prop_assert!(false, "nobody made a note"),
        }
    }
}
