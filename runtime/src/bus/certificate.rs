//! A broker's certificate, as whoever connects gets to see it: until when it is good.
//!
//! async-nats does not show it, and refuses one that has ended. So a connection of its own goes as
//! far as the handshake; nothing is said on it.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::Settings;

/// A broker that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A greeting has some hundred bytes, and the addresses of a cluster's other brokers.
const GREETING_BYTES_MAX: u64 = 64 << 10;

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// From then …
    pub begins: SystemTime,
    /// … until then.
    pub ends: SystemTime,
}

/// Why a broker's certificate was not seen.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// No connection came about.
    #[error("cannot connect to the broker at {server}: {source}")]
    Connect {
        /// Its URL.
        server: String,
        /// What the system says.
        source: io::Error,
    },
    /// It shows something that cannot be read.
    #[error("the certificate of the broker at {server} cannot be read")]
    Unreadable {
        /// Its URL.
        server: String,
    },
}

impl Settings {
    /// Each server's certificate, whoever signed it; `None` if it does not encrypt.
    pub async fn certificates(&self) -> Vec<(String, Result<Option<Certificate>, Unseen>)> {
        let seen = self.servers.iter().map(async |server| {
            let shown = timeout(PATIENCE, self.shown_by(server)).await;
            let shown = shown.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let read = match shown {
                Err(source) => Err(Unseen::Connect { server: server.clone(), source }),
                Ok(None) => Ok(None),
                Ok(Some(der)) => match validity(&der) {
                    Some(certificate) => Ok(Some(certificate)),
                    None => Err(Unseen::Unreadable { server: server.clone() }),
                },
            };
            (server.clone(), read)
        });
        futures_util::future::join_all(seen).await
    }

    async fn shown_by(&self, server: &str) -> io::Result<Option<CertificateDer<'static>>> {
        let (host, port) = Settings::endpoint(server);
        let mut tcp = BufReader::new(TcpStream::connect((host, port)).await?);
        if !self.tls.first && !encrypts(&mut tcp).await? {
            return Ok(None);
        }
        let witness = Arc::new(Witness::default());
        let config = ClientConfig::builder_with_provider(witness.crypto.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(witness.clone())
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp.into_inner()).await;
        // A broker that asks for our own certificate has shown its own by then.
        match (witness.take(), shaken) {
            (None, Err(error)) => Err(error),
            (shown, _) => Ok(shown),
        }
    }
}

/// Whether the server goes on with TLS after its greeting.
async fn encrypts(tcp: &mut BufReader<TcpStream>) -> io::Result<bool> {
    let mut greeting = Vec::new();
    tcp.take(GREETING_BYTES_MAX).read_until(b'\n', &mut greeting).await?;
    let info = greeting.strip_prefix(b"INFO ").and_then(|info| serde_json::from_slice(info).ok());
    let info: serde_json::Value =
        info.ok_or_else(|| io::Error::other("what is there is no nats-server"))?;
    Ok(["tls_required", "tls_available"].iter().any(|key| info[key] == true))
}

/// Looks at a certificate and believes it, as nothing follows that anybody could believe.
struct Witness {
    crypto: Arc<CryptoProvider>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    fn take(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self { crypto: Arc::new(ring::default_provider()), seen: Mutex::default() }
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = Some(end_entity.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Reads the fifth field of a certificate (RFC 5280, §4.1) and nothing else.
fn validity(certificate: &[u8]) -> Option<Certificate> {
    let whole = Der(certificate).next_as(SEQUENCE)?;
    let mut fields = Der(whole).next_as(SEQUENCE).map(Der)?;
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    let (_serial, _algorithm, _issuer) = (fields.next()?, fields.next()?, fields.next()?);
    let mut times = Der(fields.next_as(SEQUENCE)?);
    let mut time = || times.next().and_then(|(tag, text)| point(tag, text));
    Some(Certificate { begins: time()?, ends: time()? })
}

/// Values of ASN.1, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match first {
            short @ ..=0x7f => (usize::from(*short), rest),
            // Longer numbers than four bytes are none of a certificate's.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }

    fn next_as(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, value)| value)
    }
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn point(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (short, rest) = text.split_at_checked(2)?;
            let century = if short < "50" { "20" } else { "19" };
            (format!("{century}{short}"), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    let digits = rest.strip_suffix('Z').filter(|rest| rest.len() == 10)?;
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| &digits[at..at + 2]);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    // What ended before 1970 has ended all the same.
    let parsed = humantime::parse_rfc3339(&text);
    if year.as_str() < "1970" { Some(UNIX_EPOCH) } else { parsed.ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(begins: (i32, u8, u8), ends: (i32, u8, u8)) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(begins.0, begins.1, begins.2);
        params.not_after = rcgen::date_time_ymd(ends.0, ends.1, ends.2);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_says_when_it_is_good() {
        let read = validity(&certificate((2024, 2, 29), (2051, 12, 31))).unwrap();
        let day = |at| humantime::format_rfc3339_seconds(at).to_string();
        assert_eq!(day(read.begins), "2024-02-29T00:00:00Z");
        assert_eq!(day(read.ends), "2051-12-31T00:00:00Z");
    }

    #[test]
    fn half_a_certificate_says_nothing() {
        let whole = certificate((2024, 1, 1), (2025, 1, 1));
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn damage_is_read_as_something_or_nothing(at in 0_usize..200, byte: u8) {
            let mut damaged = certificate((2024, 1, 1), (2025, 1, 1));
            damaged[at] = byte;
            let _ = validity(&damaged);
        }

        #[test]
        fn garbage_is_read_as_something_or_nothing(bytes: Vec<u8>) {
            let _ = validity(&bytes);
            let _ = point(UTC_TIME, &bytes);
        }
    }

    async fn seen_at(greeting: &'static [u8]) -> Result<Option<Certificate>, Unseen> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("nats://{}", listener.local_addr().unwrap());
        let settings = Settings { servers: vec![server], ..Settings::default() };
        let serving = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, greeting).await.unwrap();
        };
        let (seen, ()) = tokio::join!(settings.certificates(), serving);
        seen.into_iter().next().unwrap().1
    }

    #[tokio::test]
    async fn who_shows_none_is_said_to_show_none() {
        assert_eq!(seen_at(b"INFO {\"version\": \"2.11.0\"}\r\n").await.unwrap(), None);
        for greeting in [&b"220 mail\r\n"[..], b"INFO {", b""] {
            let error = seen_at(greeting).await.unwrap_err().to_string();
            assert!(error.ends_with("what is there is no nats-server"), "{error}");
        }
        let error = seen_at(b"INFO {\"tls_required\": true}\r\n").await.unwrap_err();
        assert!(matches!(error, Unseen::Connect { .. }), "{error}");
    }
}
