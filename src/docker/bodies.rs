//! Bodies of the v1 protocol. What a caller sends is read strictly, for the registry must not read it another way; what the
//! registry answers is read for what can be understood of it.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{ImageId, ImageIdError};

/// How many images one list may name; docker lists the layers of the tags that it pushes.
pub const IMAGES_LISTED_MAX: usize = 10_000;

/// What matters of an image's JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageJson {
    /// The image.
    pub id: ImageId,
    /// The image below it.
    pub parent: Option<ImageId>,
}

/// A caller's body is not what belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Not JSON, or not of the form that it should have.
    Form(&'static str),
    /// An image in it has a name that no image can have.
    Image(ImageIdError),
    /// It names more images than are taken.
    TooMany,
}

#[derive(Deserialize)]
struct RawImage {
    id: String,
    #[serde(default)]
    parent: Option<String>,
    /// With it a list is not taken for an object, as serde else would.
    #[serde(flatten)]
    _rest: HashMap<String, IgnoredAny>,
}

impl ImageJson {
    /// The JSON of `PUT /v1/images/ID/json`.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let form = BodyError::Form("the body must be the image's JSON, with its id, and each key once");
        let raw: RawImage = serde_json::from_slice(body).map_err(|_| form)?;
        // To docker-registry an empty parent is none.
        let parent = raw.parent.filter(|parent| !parent.is_empty());
        Ok(Self { id: raw.id.parse()?, parent: parent.map(|parent| parent.parse()).transpose()? })
    }
}

/// The images of `PUT /v1/repositories/NS/R/` and of `…/images`: `[{"id": …}, …]`.
pub fn listed_images(body: &[u8]) -> Result<Vec<ImageId>, BodyError> {
    let form = BodyError::Form("the body must be a list of images, [{\"id\": …}, …]");
    let raw: Vec<RawImage> = serde_json::from_slice(body).map_err(|_| form)?;
    if raw.len() > IMAGES_LISTED_MAX {
        return Err(BodyError::TooMany);
    }
    let mut images = raw.iter().map(|image| image.id.parse()).collect::<Result<Vec<ImageId>, _>>()?;
    images.sort();
    images.dedup();
    Ok(images)
}

/// The image of `PUT …/tags/TAG`: a JSON string.
pub fn tagged_image(body: &[u8]) -> Result<ImageId, BodyError> {
    let form = BodyError::Form("the body must be an image's id, as a JSON string");
    Ok(serde_json::from_slice::<String>(body).map_err(|_| form)?.parse()?)
}

/// The images that an answer of the registry names: a list of ids (`ancestry`), a list of images (`images`), tags with
/// their images (`tags`), or one image (`tags/TAG`). What is no image's name is left out.
pub fn answered_images(body: &[u8]) -> Vec<ImageId> {
    let text = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let mut images: Vec<ImageId> = match serde_json::from_slice(body) {
        Ok(Value::Array(entries)) => {
            entries.iter().filter_map(|entry| text(entry.get("id").unwrap_or(entry))).collect()
        }
        Ok(Value::Object(tags)) => tags.values().filter_map(text).collect(),
        Ok(value) => text(&value).into_iter().collect(),
        Err(_) => Vec::new(),
    };
    images.sort();
    images.dedup();
    images
}

impl From<ImageIdError> for BodyError {
    fn from(error: ImageIdError) -> Self {
        Self::Image(error)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => f.write_str(text),
            Self::Image(error) => error.fmt(f),
            Self::TooMany => write!(f, "a list names at most {IMAGES_LISTED_MAX} images"),
        }
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn id(text: &str) -> ImageId {
        text.parse().unwrap()
    }

    #[test]
    fn an_images_json_says_what_it_is_and_what_it_stands_on() {
        let parse = |text: String| ImageJson::parse(text.as_bytes());
        let alone = Ok(ImageJson { id: id(A), parent: None });
        assert_eq!(parse(format!(r#"{{"id":"{A}","Size":1,"Size":2}}"#)), alone);
        assert_eq!(parse(format!(r#"{{"id":"{A}","parent":""}}"#)), alone);
        assert_eq!(parse(format!(r#"{{"id":"{A}","parent":null}}"#)), alone);
        let child = Ok(ImageJson { id: id(A), parent: Some(id(B)) });
        assert_eq!(parse(format!(r#" {{"p\u0061rent":"{B}","id":"{A}"}} "#)), child);
    }

    /// Python takes the last of two keys, other readers the first.
    #[test]
    fn an_images_json_with_two_readings_is_refused() {
        for text in [
            format!(r#"{{"id":"{A}","parent":"{B}","parent":""}}"#),
            format!(r#"{{"id":"{A}","id":"{B}"}}"#),
            format!(r#"{{"id":"{A}","parent":["{B}"]}}"#),
            format!(r#"{{"id":"{A}","parent":"../{B}"}}"#),
            format!(r#"{{"id":"{A}"}}{{"parent":"{B}"}}"#),
            format!(r#"{{"parent":"{B}"}}"#),
            format!(r#"["{A}"]"#),
            format!("\u{feff}{{\"id\":\"{A}\"}}"),
            String::new(),
        ] {
            assert!(ImageJson::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_and_tags_name_images() {
        let list = format!(r#"[{{"id":"{B}","Tag":"1.0"}},{{"id":"{A}","checksum":"x"}},{{"id":"{A}"}}]"#);
        assert_eq!(listed_images(list.as_bytes()), Ok(vec![id(A), id(B)]));
        assert_eq!(listed_images(b"[]"), Ok(vec![]));
        assert_eq!(tagged_image(format!("\"{A}\"").as_bytes()), Ok(id(A)));
        for bad in ["", "{}", "[\"a\"]", r#"[{"id":"../x"}]"#, r#"[{"Tag":"1"}]"#, r#"[["aaaaaaaaaaaaaaaa"]]"#] {
            assert!(listed_images(bad.as_bytes()).is_err(), "{bad}");
            assert!(tagged_image(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = format!("[{}]", vec![format!(r#"{{"id":"{A}"}}"#); IMAGES_LISTED_MAX + 1].join(","));
        assert_eq!(listed_images(many.as_bytes()), Err(BodyError::TooMany));
    }

    #[test]
    fn answers_are_read_for_what_can_be_understood() {
        for (body, expected) in [
            (format!(r#"["{B}","{A}"]"#), vec![id(A), id(B)]),
            (format!(r#"[{{"id":"{A}","checksum":1}},{{"x":1}},7]"#), vec![id(A)]),
            (format!(r#"{{"1.0":"{A}","latest":"{B}","odd":null}}"#), vec![id(A), id(B)]),
            (format!("\"{B}\""), vec![id(B)]),
            ("{\"error\": \"Tag not found\"}".to_owned(), vec![]),
            ("<html>".to_owned(), vec![]),
        ] {
            assert_eq!(answered_images(body.as_bytes()), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_is_too_odd(body: Vec<u8>) {
            let _ = (ImageJson::parse(&body), listed_images(&body), tagged_image(&body), answered_images(&body));
        }
    }
}
