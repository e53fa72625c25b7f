//! Words of the old world: only docker 1.3, 1.4 and 1.5 are sent to v1, what is an image's name or a token prints as it was, and
//! what is taken of a caller's body is in it.
#![no_main]

use dockgate::docker::{
    Client, Generation, ImageId, ImageJson, LegacyClients, TokenFields, answered_images, listed_images, tagged_image,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bodies(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(fields) = text.parse::<TokenFields>()
    {
        assert_eq!(fields.to_string().parse(), Ok(fields));
    }
    let expected = if is_old(bytes) { Generation::V1 } else { Generation::V2 };
    let client = Client::parse(bytes);
    assert_eq!(client.generation(LegacyClients::Before1_6), expected);
    if expected == Generation::V1 {
        assert_eq!(client.generation(LegacyClients::Before1_10), Generation::V1);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<ImageId>()
    {
        assert_eq!(id.as_str(), text);
        assert!(text.len() == 16 || text.len() == 64);
    }
});

/// What is strictly read is what is loosely read, too.
fn bodies(bytes: &[u8]) {
    let answered = answered_images(bytes);
    if let Ok(images) = listed_images(bytes) {
        assert_eq!(images, answered);
    }
    if let Ok(image) = tagged_image(bytes) {
        assert_eq!([image], *answered);
    }
    if let Ok(ImageJson { id, parent }) = ImageJson::parse(bytes) {
        let found = |image: &ImageId| answered.contains(image);
        assert!(found(&id) && parent.as_ref().is_none_or(found));
    }
}

/// The table of old clients, read in another way: by the spellings that their version can have. Numbers may have nought
/// before them.
fn is_old(user_agent: &[u8]) -> bool {
    if user_agent.starts_with(b"Go ") {
        return true;
    }
    let Some(rest) = user_agent.strip_prefix(b"docker/") else { return false };
    let word = String::from_utf8_lossy(rest.split(|b| *b == b' ').next().unwrap_or_default()).into_owned();
    let Some((major, rest)) = word.split_once('.') else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (minor, rest) = rest.split_at(digits);
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.trim_start_matches('0').to_owned());
    let known_end = rest.is_empty() || rest.starts_with(['.', '-', '+']);
    match (number(major).as_deref(), number(minor).as_deref()) {
        (Some("1"), Some("3" | "4")) => known_end,
        (Some("1"), Some("5")) => known_end && !rest.ends_with("-dev"),
        _ => false,
    }
}
