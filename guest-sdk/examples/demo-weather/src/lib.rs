//! The plugin that `capwasm demo` runs: every capability that it uses is a handle it was granted,
//! and the two `snoop` functions show what happens to the rest.

use serde_json::Value;

wit_bindgen::generate!({ world: "weather", path: "wit", generate_all });

use capwasm::{
    config::config, fetch::client, fs::files, kv::store as kv, log::log, secrets::store as secrets,
};
use exports::demo::weather::api::{Guest, Report};

const SECRET: &str = "weather-token";
const CACHE_MS: u64 = 10 * 60 * 1000;
const MAX_ANSWER: u32 = 64 * 1024;

struct Weather;
export!(Weather);

impl Guest for Weather {
    fn forecast(city: String) -> Result<Report, String> {
        let city = city.trim();
        if city.is_empty() || !city.chars().all(|c| c.is_alphanumeric() || " -".contains(c)) {
            return Err("a city's name has letters, spaces and hyphens".into());
        }
        let key = format!("weather/{city}");
        let kept = kv::get(&key).map_err(|e| failed("the store", e.name()))?;
        let cached = kept.is_some();
        let answer = match kept {
            Some(answer) => answer,
            None => {
                let answer = ask(city)?;
                kv::set(&key, &answer, Some(CACHE_MS)).map_err(|e| failed("the store", e.name()))?;
                answer
            }
        };
        let (celsius, summary) = read(&answer)?;
        let report = Report { city: city.into(), celsius, summary, cached };
        write(&report)?;
        let source = if cached { "store" } else { "network" };
        log::write(log::Level::Info, "forecast", &[field("city", city), field("from", source)]);
        Ok(report)
    }

    fn snoop_file(path: String) -> Result<String, String> {
        let file = files::open(&path, files::Mode::Read).map_err(|e| e.name().to_string())?;
        let bytes = file.read(0, MAX_ANSWER).map_err(|e| e.name().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn snoop_url(url: String) -> Result<String, String> {
        let bytes = get(&url).map_err(|e| e.name().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Asks the weather service, whose address is a setting.
fn ask(city: &str) -> Result<Vec<u8>, String> {
    let origin = config::get("origin").ok_or("the setting `origin` is missing")?;
    let mut url = format!("{origin}/v1/weather?city=");
    for byte in city.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            url.push(byte as char);
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    get(&url).map_err(|e| failed("the weather service", e.name()))
}

/// One GET; the host adds the secret where its grant says so, and only there.
fn get(url: &str) -> Result<Vec<u8>, client::Error> {
    let secret = secrets::get(SECRET).ok();
    let request = client::Request {
        method: "GET".into(),
        url: url.into(),
        headers: vec![client::Header { name: "Accept".into(), value: "application/json".into() }],
        body: None,
        timeout_ms: None,
        redirects: client::Redirects::Follow,
    };
    let response = client::send(&request, &secret.iter().collect::<Vec<_>>())?;
    if response.status() != 200 {
        return Err(client::Error::Unavailable);
    }
    response.read_all(MAX_ANSWER)
}

fn read(answer: &[u8]) -> Result<(f32, String), String> {
    let value: Value = serde_json::from_slice(answer).map_err(|_| "the answer is not JSON")?;
    match (value["celsius"].as_f64(), value["summary"].as_str()) {
        (Some(celsius), Some(summary)) => Ok((celsius as f32, summary.into())),
        _ => Err("the answer has no `celsius` or no `summary`".into()),
    }
}

fn write(report: &Report) -> Result<(), String> {
    let text = format!("{}: {:.1} °C, {}\n", report.city, report.celsius, report.summary);
    let path = format!("/reports/{}.txt", report.city.to_lowercase().replace(' ', "-"));
    let file = files::open(&path, files::Mode::Write).map_err(|e| failed(&path, e.name()))?;
    file.write(0, text.as_bytes()).map_err(|e| failed(&path, e.name()))
}

fn failed(what: &str, word: &str) -> String {
    format!("{what}: {word}")
}

fn field(key: &str, value: &str) -> log::Field {
    log::Field { key: key.into(), value: value.into() }
}
