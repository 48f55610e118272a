//! Answers requests over `wasi:http/incoming-handler`, well and badly: the path says how.

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Responder;

wasip2::http::proxy::export!(Responder);

impl Guest for Responder {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let whole = request.path_with_query().unwrap_or_default();
        let (path, query) = whole.split_once('?').unwrap_or((&whole, ""));
        let number = || query.parse::<u64>().unwrap_or(0);
        match path {
            "/head" => tell(out, 200, &described(&request)),
            "/echo" => echo(request, out, number()),
            "/splice" => splice(request, out),
            "/sink" => {
                let size = drain(&request, number());
                tell(out, 200, &size);
            }
            "/source" => source(out, number()),
            "/fields" => tell(out, 200, &tried(query)),
            "/powers" => powers(out),
            "/status" => {
                let response = OutgoingResponse::new(Fields::new());
                let word = match response.set_status_code(number() as u16) {
                    Ok(()) => "taken",
                    Err(()) => "refused",
                };
                answer(out, response, word.as_bytes());
            }
            "/length" => length(out, query),
            "/trailers" => trailers(out),
            "/error" => ResponseOutparam::set(out, Err(code(query))),
            "/trap" => panic!("the secret word of a panic"),
            "/never" => {}
            "/twice" => twice(out),
            "/wait" => loop {
                subscribe_duration(1_000_000).block();
            },
            "/spin" => loop {
                std::hint::black_box(0);
            },
            "/half" | "/half-trap" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().unwrap();
                let _ = put(&stream, b"only half of what was meant");
                drop(stream);
                if path == "/half-trap" {
                    panic!("the secret word of a late panic");
                }
                drop(body);
            }
            "/silent" => {
                // Nothing more is said, and nothing is ended, until time is over.
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().unwrap();
                let _ = put(&stream, b"then silence");
                loop {
                    subscribe_duration(1_000_000).block();
                }
            }
            _ => tell(out, 404, "no such path"),
        }
    }
}

fn tell(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).unwrap();
    answer(out, response, text.as_bytes());
}

fn answer(out: ResponseOutparam, response: OutgoingResponse, data: &[u8]) {
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let _ = put(&stream, data);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// As much at a time as the host permits.
fn put(stream: &OutputStream, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        let permitted = stream.check_write()? as usize;
        if permitted == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, later) = data.split_at(permitted.min(data.len()));
        stream.write(now)?;
        data = later;
    }
    stream.blocking_flush()
}

fn described(request: &IncomingRequest) -> String {
    let mut text = format!(
        "method {:?}\nscheme {:?}\nauthority {:?}\npath {:?}\n",
        request.method(),
        request.scheme(),
        request.authority(),
        request.path_with_query()
    );
    for (name, value) in request.headers().entries() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
    }
    text
}

fn read_body(request: &IncomingRequest, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
    let body = request.consume().unwrap();
    let stream: InputStream = body.stream().unwrap();
    let outcome = loop {
        match stream.blocking_read(64 * 1024) {
            Ok(data) => {
                if !each(&data) {
                    break Ok(());
                }
            }
            Err(StreamError::Closed) => break Ok(()),
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                break Err(format!("{code:?}"));
            }
        }
    };
    drop(stream);
    let trailers = IncomingBody::finish(body);
    if outcome.is_ok() {
        trailers.subscribe().block();
        assert!(matches!(trailers.get(), Some(Ok(Ok(None)))));
    }
    outcome
}

/// How many bytes came; with a pause after each piece, if there is to be one.
fn drain(request: &IncomingRequest, pause_ms: u64) -> String {
    let mut size = 0;
    let outcome = read_body(request, |data| {
        size += data.len();
        if pause_ms > 0 {
            subscribe_duration(pause_ms * 1_000_000).block();
        }
        true
    });
    match outcome {
        Ok(()) => format!("{size} bytes"),
        Err(code) => format!("{size} bytes, then {code}"),
    }
}

fn echo(request: IncomingRequest, out: ResponseOutparam, status: u64) {
    let headers = Fields::new();
    for value in request.headers().get("content-type") {
        headers.append("content-type", &value).unwrap();
    }
    let response = OutgoingResponse::new(headers);
    if status > 0 {
        response.set_status_code(status as u16).unwrap();
    }
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let whole = read_body(&request, |data| put(&stream, data).is_ok());
    drop(stream);
    if whole.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

fn splice(request: IncomingRequest, out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    while stream.blocking_splice(&input, 64 * 1024).is_ok() {}
    drop((stream, input));
    let _ = OutgoingBody::finish(body, None);
}

fn source(out: ResponseOutparam, size: u64) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let mut left = size as usize;
    while left > 0 {
        let now = left.min(piece.len());
        if put(&stream, &piece[..now]).is_err() {
            return;
        }
        left -= now;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// What becomes of one header, `name=value`, where `%n` is a line's end.
fn tried(query: &str) -> String {
    let (name, value) = query.split_once('=').unwrap_or((query, ""));
    let value = value.replace("%n", "\r\n");
    let outcome = Fields::new().append(name, value.as_bytes());
    format!("{outcome:?}")
}

/// Headers that would act on more than this answer.
fn powers(out: ResponseOutparam) {
    let headers = Fields::new();
    for (name, value) in [
        ("set-cookie", "session=mine"),
        ("x-accel-redirect", "/internal/secret"),
        ("x-sendfile", "/etc/passwd"),
        ("clear-site-data", "\"*\""),
        ("service-worker-allowed", "/"),
        ("x-own", "kept"),
    ] {
        headers.append(name, value.as_bytes()).unwrap();
    }
    answer(out, OutgoingResponse::new(headers), b"done");
}

/// `stated,written`.
fn length(out: ResponseOutparam, query: &str) {
    let (stated, written) = query.split_once(',').unwrap();
    let headers = Fields::new();
    headers.append("content-length", stated.as_bytes()).unwrap();
    let response = OutgoingResponse::new(headers);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let data = vec![b'y'; written.parse().unwrap()];
    let _ = put(&stream, &data);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn trailers(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let _ = put(&stream, b"body");
    drop(stream);
    let last = Fields::new();
    last.append("x-checksum", b"42").unwrap();
    last.append("set-cookie", b"session=mine").unwrap();
    let _ = OutgoingBody::finish(body, Some(last));
}

fn code(word: &str) -> ErrorCode {
    match word {
        "denied" => ErrorCode::HttpRequestDenied,
        "size" => ErrorCode::HttpRequestBodySize(Some(1)),
        "timeout" => ErrorCode::HttpResponseTimeout,
        _ => ErrorCode::InternalError(Some("the secret word of an error".to_string())),
    }
}

/// The bindings let nobody do so; the number of a handle does.
fn twice(out: ResponseOutparam) {
    let again = unsafe { ResponseOutparam::from_handle(out.handle()) };
    let response = OutgoingResponse::new(Fields::new());
    ResponseOutparam::set(out, Ok(response));
    ResponseOutparam::set(again, Ok(OutgoingResponse::new(Fields::new())));
}
