//! A `gateway.toml` of any content: read, or refused with places and words that can be printed.
//!
//! After a NUL come overrides of the environment, a line each: `DOCKGATE__SECTION__KEY=VALUE`.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use dockgate::config::Config;
use libfuzzer_sys::fuzz_target;

/// In a directory of its own: the upstreams beside it would be read too.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("dockgate-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory takes a directory");
    directory.join("gateway.toml")
});

fuzz_target!(|bytes: &[u8]| {
    let (file, overrides) = match bytes.iter().position(|b| *b == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    std::fs::write(&*FILE, file).expect("the temporary directory takes a file");
    let overrides = String::from_utf8_lossy(overrides).into_owned();
    let environment = overrides.lines().filter_map(|line| line.split_once('='));
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match Config::load(Some(&FILE), environment) {
        Ok(config) => {
            assert!(!config.listen.is_empty());
            assert!(config.needs_restart(&config).is_empty());
        }
        Err(errors) => {
            let text = errors.to_string();
            assert!(!text.is_empty());
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
});
