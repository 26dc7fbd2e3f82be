use std::{
    os::unix::fs::symlink,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn said(at: u64, ms: u64, data: &'static [u8]) -> Next {
    Next::Bytes { at, time: UNIX_EPOCH + Duration::from_millis(ms), data: Bytes::from_static(data) }
}

fn note(at: u64, ms: u64, text: &str) -> Next {
    Next::Note { at, time: UNIX_EPOCH + Duration::from_millis(ms), text: text.to_owned() }
}

/// All that is kept from a place on.
fn all(archive: &Archive, mut at: u64) -> Vec<Next> {
    let (mut got, mut place) = (Vec::new(), None);
    loop {
        let (next, then) = archive.read(place, at, u64::MAX).unwrap();
        place = then;
        match &next {
            Next::Nothing => return got,
            Next::Bytes { data, .. } => at += data.len() as u64,
            Next::Lost(lost) => at += lost,
            Next::Note { .. } => {}
        }
        got.push(next);
    }
}

#[test]
fn any_place_is_found_with_its_time() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("uart.log");
    let archive = Archive::open(path.clone(), 1 << 20)?;
    for next in
        [said(0, 1000, b"U-Boot "), said(7, 1002, b"2023"), note(11, 1500, "port lost: gone")]
    {
        archive.append(&next)?;
    }
    archive.append(&said(11, 2000, b"=> "))?;

    assert_eq!(archive.reach(), (Some(0), 14));
    let wanted = [said(3, 1000, b"oot 2023"), note(11, 1500, "port lost: gone")];
    assert_eq!(all(&archive, 3), [&wanted[..], &[said(11, 2000, b"=> ")]].concat());
    assert_eq!(all(&archive, 12), [said(12, 2000, b"> ")]);
    assert_eq!(all(&archive, 14), []);
    let text = fs::read_to_string(&path)?;
    assert_eq!(text, "U-Boot 2023\r\n[port lost: gone]\r\n=> ", "people read it, too");
    Ok(())
}

#[test]
fn places_go_on_after_a_restart_and_what_is_missing_is_counted() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("uart.log");
    Archive::open(path.clone(), 1 << 20)?.append(&said(0, 1, b"before"))?;
    let archive = Archive::open(path, 1 << 20)?;
    assert_eq!(archive.reach(), (Some(0), 6));
    archive.append(&said(6, 2, b"after"))?;
    archive.append(&said(100, 3, b"the disk was full"))?;
    // What came close together shares a time.
    let wanted = [said(0, 1, b"beforeafter"), Next::Lost(89), said(100, 3, b"the disk was full")];
    assert_eq!(all(&archive, 0), wanted);
    Ok(())
}

#[test]
fn two_ports_cannot_share_a_file() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("uart.log");
    let _one = Archive::open(path.clone(), 1 << 20)?;
    let error = Archive::open(path, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("another port writes this file"), "{error}");
    Ok(())
}

#[test]
fn a_file_of_another_kind_is_put_aside() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("uart.log");
    fs::write(&path, "from another program")?;
    let archive = Archive::open(path.clone(), 1 << 20)?;
    assert_eq!(archive.reach(), (None, 0));
    archive.append(&said(0, 1, b"new"))?;
    assert_eq!(fs::read_to_string(older_path(&path))?, "from another program");
    assert_eq!(all(&archive, 0), [said(0, 1, b"new")]);
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_and_writing_goes_on_when_it_has_room() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("uart.log");
    symlink("/dev/full", &path)?;
    let archive = Archive::open(path.clone(), 1 << 20)?;
    let error = archive.append(&said(0, 1, b"nowhere")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(archive.reach(), (None, 0));
    fs::remove_file(&path)?;
    archive.open_again()?;
    archive.append(&said(0, 1, b"somewhere"))?;
    assert_eq!(all(&archive, 0), [said(0, 1, b"somewhere")]);
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Say {
        len: u64,
        after_ms: u64,
    },
    Lose(u64),
    Note,
    /// The exporter is restarted, or killed with so many bytes not written yet.
    Restart {
        unwritten: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..3000u64, 0..30u64).prop_map(|(len, after_ms)| Step::Say { len, after_ms }),
        1 => (1..500u64).prop_map(Step::Lose),
        1 => Just(Step::Note),
        1 => (0..50u64).prop_map(|unwritten| Step::Restart { unwritten }),
    ]
}

fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    file.set_len(file.metadata()?.len().saturating_sub(bytes))
}

/// The byte at a place.
fn byte(at: u64) -> u8 {
    b'a' + (at % 26) as u8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is read is what was said there, nothing is read twice, and the disk is not filled.
    #[test]
    fn what_is_read_was_said_there(steps in prop::collection::vec(step(), 1..60), from in 0..20_000u64) {
        const BYTES_MAX: u64 = 8192;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uart.log");
        let mut archive = Archive::open(path.clone(), BYTES_MAX).unwrap();
        let mut at = 0;
        let mut ms = 0;
        for step in steps {
            match step {
                Step::Say { len, after_ms } => {
                    ms += after_ms;
                    let data: Vec<u8> = (at..at + len).map(byte).collect();
                    let time = UNIX_EPOCH + Duration::from_millis(ms);
                    archive.append(&Next::Bytes { at, time, data: data.into() }).unwrap();
                    at += len;
                }
                Step::Lose(lost) => at += lost,
                Step::Note => archive.append(&note(at, ms, "port lost: x")).unwrap(),
                Step::Restart { unwritten } => {
                    drop(archive);
                    cut(&path, unwritten).unwrap();
                    archive = Archive::open(path.clone(), BYTES_MAX).unwrap();
                    prop_assert!(archive.reach().1 <= at);
                    at = archive.reach().1;
                }
            }
        }
        let mut read = from.min(at);
        for next in all(&archive, read) {
            match next {
                Next::Bytes { at, data, .. } => {
                    prop_assert_eq!(at, read);
                    prop_assert!(data.iter().zip(at..).all(|(said, at)| *said == byte(at)));
                    read += data.len() as u64;
                }
                Next::Lost(lost) => read += lost,
                Next::Note { at, text, .. } => {
                    prop_assert_eq!(at, read);
                    prop_assert!("port lost: x".starts_with(&text), "{}", text);
                }
                Next::Nothing => unreachable!(),
            }
        }
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        for path in [path.clone(), older_path(&path)] {
            let bytes = size(&path) + size(&index_path(&path));
            prop_assert!(bytes <= BYTES_MAX + 3000 + 2 * ENTRY_BYTES, "{bytes}");
        }
    }
}
