//! Files, and what is lent, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{
    BlockPart, Coding, Lent, LentFrom, LentUrl, Manifest, Packing, Sha256, Sink, codec,
};
use bytes::Bytes;

use super::{STREAM, assert_wire, hex, text};
use crate::shown;

const DIGEST: Sha256 = Sha256([0xd1; 32]);

#[test]
fn a_manifest() {
    let manifest = Manifest {
        name: text("disk.img"),
        bytes: 5_000_000,
        sha256: Some(DIGEST),
        block_bytes: 4 << 20,
        blocks: [[0xd2; 32], Sha256::ZEROS.0].concat().into(),
        list: None,
    };
    assert!(manifest.check().is_ok());
    assert_wire(
        &manifest,
        "
            01 50 | version 1, manifest
            85 | map of 5
              a4 6e616d65  a8 6469736b2e696d67 | name: disk.img
              a5 6279746573  ce 004c4b40 | bytes: 5000000
              a6 736861323536 | sha256: d1d1d1d1…
                d940 64316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431
              ab 626c6f636b5f6279746573  ce 00400000 | block_bytes: 4194304
              a6 626c6f636b73  c440 | blocks: 64 byte(s), the second block is zeros
                d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2
                0000000000000000000000000000000000000000000000000000000000000000
        ",
    );
}

#[test]
fn a_manifest_whose_list_of_blocks_is_a_block() {
    let manifest = Manifest {
        name: text(""),
        bytes: 1 << 33,
        sha256: None,
        block_bytes: 4 << 20,
        blocks: Bytes::new(),
        list: Some(DIGEST),
    };
    assert!(manifest.check().is_ok());
    assert_wire(
        &manifest,
        "
            01 50 | version 1, manifest
            83 | map of 3
              a5 6279746573  cf 0000000200000000 | bytes: 8589934592
              ab 626c6f636b5f6279746573  ce 00400000 | block_bytes: 4194304
              a4 6c697374 | list: d1d1d1d1…
                d940 64316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431
        ",
    );
}

#[test]
fn a_part_of_a_block() {
    let part = BlockPart { parts: 2, bytes: 4 << 20, coding: Coding::Lz4, data: "hi".into() };
    assert!(part.check().is_ok());
    let bytes = hex("
            01 51 | version 1, block
            84 | map of 4
              a5 7061727473  02 | parts: 2
              a5 6279746573  ce 00400000 | bytes: 4194304
              a6 636f64696e67  a3 6c7a34 | coding: lz4
              a4 64617461  c600000002 6869 | data: 2 byte(s)
        ");
    assert_eq!(shown(&part.encode()), shown(&bytes));
    assert_eq!(BlockPart::decode(&bytes.into()).unwrap(), part);
    // {"data": "hi", "bytes": 2, "parts": 1}
    let short = hex("01 51 83 a4 64617461 c4 02 6869 a5 6279746573 02 a5 7061727473 01");
    let plain = BlockPart { parts: 1, bytes: 2, coding: Coding::Plain, data: "hi".into() };
    assert_eq!(BlockPart::decode(&short.into()).unwrap(), plain);
}

/// `lent` is this MessagePack, and this MessagePack is `lent`.
#[track_caller]
fn assert_lent(lent: &Lent, bytes: &str) {
    let bytes = hex(bytes);
    assert_eq!(shown(&rmp_serde::to_vec_named(lent).unwrap()), shown(&bytes));
    assert_eq!(&rmp_serde::from_slice::<Lent>(&bytes).unwrap(), lent);
}

#[test]
fn a_lent_file() {
    let lent = Lent {
        name: text("disk.img"),
        bytes: Some(5_000_000),
        sha256: Some(DIGEST),
        ..Lent::new(LentFrom::File(DIGEST))
    };
    assert_lent(
        &lent,
        "
            84 | map of 4
              a4 66726f6d 81 | from: map of 1
                a4 66696c65 | file: d1d1d1d1…
                  d940 64316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431
              a4 6e616d65  a8 6469736b2e696d67 | name: disk.img
              a5 6279746573  ce 004c4b40 | bytes: 5000000
              a6 736861323536 | sha256: d1d1d1d1…
                d940 64316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431643164316431
        ",
    );
}

#[test]
fn a_lent_file_that_is_being_stored() {
    let lent = Lent { bytes: Some(5_000_000), ..Lent::new(LentFrom::Storing(STREAM)) };
    assert_lent(
        &lent,
        "
            82 | map of 2
              a4 66726f6d 81 | from: map of 1
                a7 73746f72696e67 | storing: 00000000000000ab0000000000000001
                  d920 3030303030303030303030303030616230303030303030303030303030303031
              a5 6279746573  ce 004c4b40 | bytes: 5000000
        ",
    );
    assert!(lent.check().is_ok());
    for (bytes, problem) in [(None, "has a length"), (Some(u64::MAX), "is over")] {
        let said = Lent { bytes, ..lent.clone() }.check().unwrap_err();
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_lent_stream_and_a_lent_sink() {
    let stream = Lent { packing: Packing::Zstd, ..Lent::new(LentFrom::Stream(STREAM)) };
    assert_lent(
        &stream,
        "
            82 | map of 2
              a4 66726f6d 81 | from: map of 1
                a6 73747265616d | stream: 00000000000000ab0000000000000001
                  d920 3030303030303030303030303030616230303030303030303030303030303031
              a7 7061636b696e67  a4 7a737464 | packing: zstd
        ",
    );
    let sink = Lent::new(LentFrom::Sink(Sink { stream: STREAM, credit: 65_536 }));
    assert_lent(
        &sink,
        "
            81 | map of 1
              a4 66726f6d 81 | from: map of 1
                a4 73696e6b 82 | sink: map of 2
                  a6 73747265616d | stream: 00000000000000ab0000000000000001
                    d920 3030303030303030303030303030616230303030303030303030303030303031
                  a6 637265646974  ce 00010000 | credit: 65536
        ",
    );
}

#[test]
fn a_lent_url() {
    let headers = [(text("authorization"), text("Bearer x"))].into();
    let url = LentUrl { url: text("https://h/a"), headers };
    let lent = Lent { content_type: Some(text("text/plain")), ..Lent::new(LentFrom::Url(url)) };
    assert_lent(
        &lent,
        "
            82 | map of 2
              a4 66726f6d 81 | from: map of 1
                a3 75726c 82 | url: map of 2
                  a3 75726c  ab 68747470733a2f2f682f61 | url: https://h/a
                  a7 68656164657273 81 | headers: map of 1
                    ad 617574686f72697a6174696f6e  a8 4265617265722078 | authorization: Bearer x
              ac 636f6e74656e745f74797065
                aa 746578742f706c61696e | content_type: text/plain
        ",
    );
}

#[test]
fn a_packing_of_a_newer_version_is_kept_and_refused() {
    // {"from": {"stream": STREAM}, "packing": "lz9"}
    let mut lent = Lent::new(LentFrom::Stream(STREAM));
    lent.packing = Packing::Other(text("lz9"));
    let bytes = rmp_serde::to_vec_named(&lent).unwrap();
    let read: Lent = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(read, lent);
    let said = read.check().unwrap_err();
    assert!(said.contains("\"lz9\"") && said.contains("xz, bzip2, zstd"), "{said}");
}

#[test]
fn what_a_manifest_claims_is_checked() {
    let good = Manifest {
        name: text(""),
        bytes: 5 << 20,
        sha256: None,
        block_bytes: 4 << 20,
        blocks: vec![1; 64].into(),
        list: None,
    };
    assert!(good.check().is_ok());
    for (bad, problem) in [
        (Manifest { bytes: u64::MAX, ..good.clone() }, "is over"),
        (Manifest { block_bytes: 0, ..good.clone() }, "blocks of 0 bytes"),
        (Manifest { block_bytes: 1 << 30, ..good.clone() }, "blocks of 1073741824 bytes"),
        (Manifest { blocks: vec![1; 63].into(), ..good.clone() }, "63 bytes are no list of 2"),
        (Manifest { blocks: vec![1; 96].into(), ..good.clone() }, "96 bytes are no list of 2"),
        (Manifest { bytes: 1 << 33, ..good.clone() }, "2048 blocks need a list"),
        (Manifest { list: Some(DIGEST), ..good.clone() }, "there twice"),
        (Manifest { name: "n".repeat(9000), ..good.clone() }, "name is longer"),
    ] {
        let said = bad.check().unwrap_err();
        assert!(said.contains(problem), "{problem}: {said}");
        // What is refused can still be read: it is refused by name, not as garbage.
        assert_eq!(codec::decode::<Manifest>(&codec::encode(&bad)).unwrap(), bad);
    }
}

#[test]
fn a_lent_url_shows_no_secret() {
    let headers = [(text("authorization"), text("s3cret-1"))].into();
    let url = LentUrl { url: text("https://u:s3cret-2@host:1/a/b?sig=s3cret-3#s3cret-4"), headers };
    let lent = Lent::new(LentFrom::Url(url.clone()));
    let debug = format!("{lent:?}");
    assert!(!debug.contains("s3cret") && debug.contains("authorization"), "{debug}");
    assert_eq!(url.shown(), "https://host:1/a/b");
}

#[test]
fn a_lent_url_is_checked() {
    let headers = |name: &str, value: &str| [(text(name), text(value))].into();
    let url = |url: &str| LentUrl { url: text(url), headers: [].into() };
    for (bad, problem) in [
        (url("ftp://h/a"), "no http:// or https:// URL"),
        (url("file:///etc/passwd"), "no http:// or https:// URL"),
        (url(""), "no http:// or https:// URL"),
        (url("http://h/a\r\nx: y"), "space or control character"),
        (url(&format!("http://h/{}", "a".repeat(9000))), "longer than"),
        (LentUrl { headers: headers("a b", "x"), ..url("http://h") }, "no header"),
        (LentUrl { headers: headers("a", "x\r\ny: z"), ..url("http://h") }, "control character"),
    ] {
        let said = Lent::new(LentFrom::Url(bad)).check().unwrap_err();
        assert!(said.contains(problem), "{problem}: {said}");
    }
}
