//! A library component as others publish them: a WIT package of its own, WASI from the standard
//! library, and nothing of capwasm.

use std::collections::HashMap;

wit_bindgen::generate!({ world: "library", path: "wit" });

use exports::library::slugs::slugs::{Guest, Slug};

struct Slugs;
export!(Slugs);

fn words(title: &str) -> Vec<String> {
    title
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect()
}

impl Guest for Slugs {
    fn make(title: String) -> Result<Slug, String> {
        let words = words(&title);
        if words.is_empty() {
            return Err("nothing is left of it".into());
        }
        Ok(Slug { text: words.join("-"), words: words.len() as u32 })
    }

    fn frequent(titles: Vec<String>, most: u32) -> Vec<(String, u32)> {
        // Its keys are drawn from wasi:random, as the standard library does.
        let mut counts: HashMap<String, u32> = HashMap::new();
        for word in titles.iter().flat_map(|t| words(t)) {
            *counts.entry(word).or_default() += 1;
        }
        let mut sorted: Vec<_> = counts.into_iter().collect();
        sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sorted.truncate(most as usize);
        sorted
    }
}
