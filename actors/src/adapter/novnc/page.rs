//! The page, and who may have it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State, WebSocketUpgrade},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use include_dir::{Dir, include_dir};

use super::{Shared, screen};

/// The client, as its authors wrote it.
static NOVNC: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/novnc");
const INDEX: &str = include_str!("index.html");
const APP: &str = include_str!("app.js");

/// Largest message of a viewer: keys, and text that is pasted.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Nothing from elsewhere runs in the page, nothing frames it, and its address goes nowhere.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'none'",
        ),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/{token}/", get(index))
        .route("/{token}/app.js", get(app))
        .route("/{token}/socket", get(socket))
        .route("/{token}/novnc/{*path}", get(file))
        .layer(from_fn_with_state(shared.clone(), admit))
        .with_state(shared)
}

/// Lets in who names this host and has the token. A page of another site that had its own name
/// point here (DNS rebinding) would name that.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !names_this_host(&shared, headers) {
        let said = format!("this is {}, and nothing else\n", shared.hosts[0]);
        return (StatusCode::MISDIRECTED_REQUEST, said).into_response();
    }
    if !is_of_this_origin(&shared, headers) {
        return (StatusCode::FORBIDDEN, "only its own page may use it\n").into_response();
    }
    let token = request.uri().path().split('/').nth(1).unwrap_or_default();
    if !same(token.as_bytes(), shared.token.as_bytes()) {
        return (StatusCode::NOT_FOUND, "there is nothing here\n").into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().extend(HEADERS);
    response
}

fn names_this_host(shared: &Shared, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next().map(HeaderValue::as_bytes), hosts.next()) {
        (Some(host), None) => shared.hosts.iter().any(|own| own.as_bytes() == host),
        _ => false,
    }
}

/// A browser says which page a request is from, always where it opens a WebSocket.
fn is_of_this_origin(shared: &Shared, headers: &HeaderMap) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let host = origin.as_bytes().strip_prefix(b"http://");
        host.is_some_and(|host| shared.hosts.iter().any(|own| own.as_bytes() == host))
    })
}

/// Takes as long wherever the difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

async fn index(State(shared): State<Arc<Shared>>) -> Response {
    let page = INDEX.replace("{{title}}", &escaped(&shared.title));
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

async fn app() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], APP).into_response()
}

async fn file(Path((_token, path)): Path<(String, String)>) -> Response {
    match NOVNC.get_file(&path) {
        Some(file) => {
            let kind = match path.ends_with(".js") {
                true => "text/javascript; charset=utf-8",
                false => "text/plain; charset=utf-8",
            };
            ([(header::CONTENT_TYPE, kind)], file.contents()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "the client has no such file\n").into_response(),
    }
}

async fn socket(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "a browser says which page it is for\n").into_response();
    }
    let Ok(permit) = shared.room.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many look at it already\n").into_response();
    };
    upgrade.max_message_size(MESSAGE_BYTES_MAX).on_upgrade(async move |socket| {
        let stop = shared.stop.clone();
        stop.run_until_cancelled(screen::show(&shared, socket)).await;
        drop(permit);
    })
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}
