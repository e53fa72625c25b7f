//! Tests of the whole room: files in, a configuration or the texts of the errors out.

mod documents;
mod gateway;
mod limits;
mod overrides;
mod reload;
mod remotes;
mod upstreams;

use std::path::Path;

use tempfile::TempDir;

use super::{Config, ConfigErrors};

/// A directory with a configuration in it.
struct Site(TempDir);

impl Site {
    fn new(gateway: &str) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.with("gateway.toml", gateway.as_bytes())
    }

    fn with(self, file: &str, content: &[u8]) -> Self {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&self.path().join("gateway.toml")), environment)
    }

    /// What is wrong, a line each, with paths as seen from the directory.
    fn errors(&self, environment: &[(&str, &str)]) -> Vec<String> {
        let text = self.load(environment).map_or_else(|errors| errors.to_string(), |_| String::new());
        let directory = format!("{}/", self.path().display());
        text.lines().map(|line| line.replace(&directory, "")).collect()
    }
}

fn config(gateway: &str) -> Config {
    Site::new(gateway).load(&[]).unwrap()
}

fn errors(gateway: &str) -> Vec<String> {
    Site::new(gateway).errors(&[])
}
