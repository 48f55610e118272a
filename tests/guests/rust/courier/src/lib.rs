//! Requests over HTTP by libraries that others publish, and by WASI's own functions; nothing of capwasm.

wit_bindgen::generate!({ world: "courier", path: "wit" });

use exports::courier::http::errands::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Courier;
export!(Courier);

type Answer = Result<(u16, Vec<u8>), String>;

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn request(method: Method, authority: &str, path: &str) -> OutgoingRequest {
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&method).unwrap();
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    request
}

fn response(future: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    future.subscribe().block();
    future.get().unwrap().unwrap().map_err(text)
}

/// The next piece, or None at the end; what failed, in the words of `error-code`.
fn piece(stream: &InputStream, most: u64) -> Result<Option<Vec<u8>>, String> {
    match stream.blocking_read(most) {
        Ok(data) => Ok(Some(data)),
        Err(StreamError::Closed) => Ok(None),
        Err(StreamError::LastOperationFailed(error)) => {
            Err(wasip2::http::types::http_error_code(&error).map_or_else(|| text(&error), text))
        }
    }
}

fn write(stream: &OutputStream, mut data: &[u8]) -> Result<(), String> {
    let ready = stream.subscribe();
    while !data.is_empty() {
        ready.block();
        let room = stream.check_write().map_err(text)? as usize;
        let (now, later) = data.split_at(room.min(data.len()));
        stream.write(now).map_err(text)?;
        data = later;
    }
    Ok(())
}

impl Guest for Courier {
    fn waki_get(url: String, headers: Vec<(String, String)>) -> Answer {
        let mut ask = waki::Client::new().get(&url);
        for (name, value) in headers {
            ask = ask.header(http::HeaderName::try_from(name).map_err(text)?, value);
        }
        let answer = ask.send().map_err(text)?;
        Ok((answer.status_code(), answer.body().map_err(text)?))
    }

    fn waki_post(url: String, body: Vec<u8>) -> Answer {
        let answer = waki::Client::new().post(&url).body(body).send().map_err(text)?;
        Ok((answer.status_code(), answer.body().map_err(text)?))
    }

    fn wstd_get(url: String) -> Answer {
        ask(wstd::http::Request::get(url).body(wstd::http::Body::empty()).map_err(text)?)
    }

    fn wstd_post(url: String, body: Vec<u8>) -> Answer {
        ask(wstd::http::Request::post(url).body(body.into()).map_err(text)?)
    }

    fn download(authority: String, path: String) -> Result<(u64, u64), String> {
        let future = outgoing_handler::handle(request(Method::Get, &authority, &path), None);
        let body = response(&future.map_err(text)?)?.consume().unwrap();
        let stream = body.stream().unwrap();
        let (mut count, mut sum) = (0u64, 0u64);
        while let Some(data) = piece(&stream, 65536)? {
            let first = (4096 - count as usize % 4096) % 4096;
            sum += data.iter().skip(first).step_by(4096).map(|&b| b as u64).sum::<u64>();
            count += data.len() as u64;
        }
        Ok((count, sum))
    }

    fn upload(authority: String, path: String, size: u64) -> Answer {
        let request = request(Method::Post, &authority, &path);
        let body = request.body().unwrap();
        let future = outgoing_handler::handle(request, None).map_err(text)?;
        let stream = body.write().unwrap();
        let block = vec![b'x'; 65536];
        let mut left = size;
        while left > 0 {
            let now = left.min(block.len() as u64);
            write(&stream, &block[..now as usize])?;
            left -= now;
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(text)?;
        let answer = response(&future)?;
        let status = answer.status();
        let body = answer.consume().unwrap();
        Ok((status, piece(&body.stream().unwrap(), 1024)?.unwrap_or_default()))
    }

    fn duplex(authority: String, path: String, pieces: u32) -> Result<u64, String> {
        let request = request(Method::Post, &authority, &path);
        let body = request.body().unwrap();
        let future = outgoing_handler::handle(request, None).map_err(text)?;
        let stream = body.write().unwrap();
        write(&stream, b"0")?;
        stream.blocking_flush().map_err(text)?;
        let answer = response(&future)?.consume().unwrap();
        let heard = answer.stream().unwrap();
        let mut count = piece(&heard, 1)?.map_or(0, |d| d.len() as u64);
        for _ in 1..pieces {
            write(&stream, b"1")?;
            count += piece(&heard, 1)?.map_or(0, |d| d.len() as u64);
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(text)?;
        while let Some(data) = piece(&heard, 65536)? {
            count += data.len() as u64;
        }
        drop(heard);
        let rest = IncomingBody::finish(answer);
        rest.subscribe().block();
        rest.get().unwrap().unwrap().map_err(text)?;
        Ok(count)
    }
}

fn ask(request: wstd::http::Request<wstd::http::Body>) -> Answer {
    wstd::runtime::block_on(async {
        let answer = wstd::http::Client::new().send(request).await.map_err(text)?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        Ok((status, body.contents().await.map_err(text)?.to_vec()))
    })
}
