//! `s3://`: images in a storage that speaks S3, as a small server of our own does.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use actors::{OpendalAdapter, open_operator};
use runtime::DriverRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

use crate::lab::{Lab, run};

const SECRET: &str = "t0p-s3cret-key";

/// What a bucket holds, and what was asked of it.
#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts of files that are not whole, by their upload.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    asked: Vec<String>,
    /// A part from which on the disk is full.
    full_at: Option<u32>,
}

/// A server of one bucket.
struct Bucket {
    at: SocketAddr,
    held: Arc<Mutex<Held>>,
    _connections: JoinSet<()>,
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Bucket {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, held) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Held::default())));
        let (mut connections, shared) = (JoinSet::new(), held.clone());
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let held = shared.clone();
                open.spawn(async move {
                    let mut tcp = BufReader::new(tcp);
                    while let Some(request) = Request::read(&mut tcp).await {
                        let answer = answer(&mut held.lock().unwrap(), &request);
                        if tcp.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { at, held, _connections: connections }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// The program, told of this storage as every tool for S3 is.
    fn command(&self, lab: &Lab, args: &[&str]) -> Command {
        let mut command = lab.command(args);
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.at)).env("AWS_REGION", "lab");
        command.env("AWS_ACCESS_KEY_ID", "lab").env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    fn adapter(&self, key: &str) -> OpendalAdapter {
        let settings = [
            ("bucket", "images"),
            ("endpoint", &format!("http://{}", self.at)),
            ("region", "lab"),
            ("access_key_id", "lab"),
            ("secret_access_key", SECRET),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        OpendalAdapter::new(open_operator("s3", settings.into()).unwrap(), key)
    }
}

impl Request {
    async fn read(tcp: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let (first, rest) = head.split_once("\r\n").unwrap();
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let headers: BTreeMap<_, _> = rest
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let bytes = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; bytes];
        tcp.read_exact(&mut body).await.ok()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Some(Self {
            method: method.to_owned(),
            key: path.strip_prefix("/images/").unwrap_or_default().to_owned(),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers,
            body,
        })
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn answer(held: &mut Held, request: &Request) -> Vec<u8> {
    let Request { method, key, query, headers, body } = request;
    let by_header = headers.get("authorization").is_some_and(|how| how.starts_with("AWS4-HMAC"));
    let by_url = query.contains_key("X-Amz-Signature");
    held.asked.push(format!("{method} {key} {}", if by_url { "presigned" } else { "signed" }));
    if by_header == by_url {
        return reply("403 Forbidden", "", b"");
    }
    match (method.as_str(), query.get("uploadId"), query.contains_key("uploads")) {
        ("HEAD", ..) => match held.objects.get(key) {
            Some(object) => {
                let len = object.len();
                format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes()
            }
            None => reply("404 Not Found", "", b""),
        },
        ("GET", ..) => match held.objects.get(key) {
            Some(object) => given(object, headers.get("range").map(String::as_str)),
            None => reply("404 Not Found", "", b""),
        },
        ("POST", None, true) => {
            held.uploads.insert("u1".to_owned(), BTreeMap::new());
            let id = "<InitiateMultipartUploadResult><UploadId>u1</UploadId>\
                      </InitiateMultipartUploadResult>";
            reply("200 OK", "", id.as_bytes())
        }
        ("PUT", Some(id), _) => {
            let part = query["partNumber"].parse().unwrap();
            if held.full_at.is_some_and(|full| part >= full) {
                let why = "<Error><Code>QuotaExceeded</Code><Message>the bucket is full</Message></Error>";
                return reply("400 Bad Request", "", why.as_bytes());
            }
            held.uploads.get_mut(id).unwrap().insert(part, body.clone());
            reply("200 OK", "ETag: \"p\"\r\n", b"")
        }
        ("POST", Some(id), _) => {
            let parts = held.uploads.remove(id).unwrap();
            held.objects.insert(key.clone(), parts.into_values().flatten().collect());
            let done = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag>\
                        </CompleteMultipartUploadResult>";
            reply("200 OK", "", done.as_bytes())
        }
        ("DELETE", Some(id), _) => {
            held.uploads.remove(id);
            reply("204 No Content", "", b"")
        }
        ("PUT", None, _) => {
            held.objects.insert(key.clone(), body.clone());
            reply("200 OK", "ETag: \"e\"\r\n", b"")
        }
        _ => reply("405 Method Not Allowed", "", b""),
    }
}

/// An object, or the part of it that a range names.
fn given(object: &[u8], range: Option<&str>) -> Vec<u8> {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return reply("200 OK", "", object);
    };
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(usize::MAX).min(object.len().saturating_sub(1));
    let headers = format!("Content-Range: bytes {first}-{last}/{}\r\n", object.len());
    reply("206 Partial Content", &headers, &object[first..=last])
}

fn image() -> Vec<u8> {
    (0..20_000_000_u32).map(|at| (at * 7 / 3) as u8).collect()
}

#[tokio::test]
async fn a_file_of_a_bucket_is_flashed_and_what_comes_back_goes_to_it() {
    let (lab, bucket) = (Lab::with_disks().await, Bucket::serve().await);
    bucket.held().objects.insert("rpi4/disk.img".to_owned(), image());
    let mut flash = bucket.command(&lab, &["flash", "local/disk", "s3://images/rpi4/disk.img"]);
    let out = run(&mut flash).await.ok();
    assert!(out.starts_with("local/disk  done  19.1 MiB"), "{out}");
    let dump = ["call", "local/disk", "dump", "@>s3://images/back.img"];
    assert_eq!(run(&mut bucket.command(&lab, &dump)).await.ok(), "20000000\n");
    assert!(bucket.held().objects["back.img"] == image(), "another image came back");
    // Nobody but the storage hears of the key.
    let missing = ["call", "local/disk", "flash", "@s3://images/none.img", "-vv"];
    let said = run(&mut bucket.command(&lab, &missing)).await.failed(1);
    assert!(said.contains("none.img: there is no such file"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    let mut nowhere = bucket.command(&lab, &["call", "local/disk", "flash", "@s3://images/a"]);
    nowhere.env_remove("AWS_REGION");
    let said = run(&mut nowhere).await.failed(1);
    assert!(said.contains("region is missing") && said.contains("AWS_REGION"), "{said}");
    lab.end().await;
}

#[tokio::test]
async fn what_the_bucket_does_not_take_leaves_nothing_in_it() {
    let (lab, bucket) = (Lab::with_disks().await, Bucket::serve().await);
    let path = lab.home.path().join("disk.img");
    std::fs::write(&path, image()).unwrap();
    lab.run(&["flash", "local/disk", path.to_str().unwrap()]).await.ok();
    bucket.held().full_at = Some(2);
    let dump = ["call", "local/disk", "dump", "@>s3://images/back.img"];
    let ran = run(&mut bucket.command(&lab, &dump)).await;
    assert!([Some(13), Some(14)].contains(&ran.code), "{ran:?}");
    assert!(ran.err.contains("back.img") && ran.err.contains("the bucket is full"), "{ran:?}");
    lab.end().await;
    let held = bucket.held();
    assert!(held.objects.is_empty() && held.uploads.is_empty(), "a half file was left");
}

#[tokio::test]
async fn the_exporter_fetches_from_the_storage_itself_with_a_presigned_request() {
    let (lab, bucket) = (Lab::with_disks().await, Bucket::serve().await);
    bucket.held().objects.insert("disk.img".to_owned(), image());
    let disk = actors::FlasherClient::<DriverRef>::new(lab.served.child("disk"));
    // It is asked whether the file is there; then the exporter asks, without our key.
    let lend = bucket.adapter("disk.img").fetched().source().await.unwrap();
    assert!(!format!("{lend:?}").contains("X-Amz"), "{lend:?}");
    assert_eq!(disk.flash(lend, None, false).await.unwrap().bytes, 20_000_000);
    assert_eq!(bucket.held().asked, ["HEAD disk.img signed", "GET disk.img presigned"]);
    bucket.held().asked.clear();
    // One whose address is this host's goes through this client, unless told otherwise.
    let lend = bucket.adapter("disk.img").source().await.unwrap();
    assert_eq!(disk.flash(lend, None, false).await.unwrap().bytes, 20_000_000);
    assert!(bucket.held().asked.iter().all(|asked| asked.ends_with(" signed")));
    lab.end().await;
}
