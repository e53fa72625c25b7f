//! What a reload can apply.

use super::{Site, config};

#[test]
fn what_needs_a_restart_is_named() {
    let old = config("");
    let with = |text: &str| {
        let mut new = config(text);
        // Each site has a directory of its own.
        new.registry.data = if text.contains("data") { new.registry.data } else { old.registry.data.clone() };
        new.cache.path.clone_from(&old.cache.path);
        old.needs_restart(&new)
    };
    assert_eq!(with("access = []\nlimits.headers = 50\ntls.min_version = \"1.3\"\nidentity.realm = \"x\""), [""; 0]);
    assert_eq!(with("listen.main.address = \"127.0.0.1:1\""), ["listen"]);
    assert_eq!(with("registry.data = \"other\""), ["registry"]);
    assert_eq!(with("cache.disk = \"1GB\""), ["cache"]);
    assert_eq!(with("admin.address = \"\""), ["admin"]);
    assert_eq!(with("log.level = \"warn\""), ["log"]);
    assert_eq!(with("registry.absolute_locations = true"), ["registry"]);
    assert_eq!(with("limits.upstream_patience = \"1s\""), ["limits.upstream_patience"]);
    let limits = "limits = { uploads = 5, upload_lifetime = \"2d\", disk_reserve = \"0\", disk_reserve_percent = 1 }";
    let named = ["limits.uploads", "limits.upload_lifetime", "limits.disk_reserve", "limits.disk_reserve_percent"];
    assert_eq!(with(limits), named);
    assert_eq!(with("listen.main.plain = \"nobody\""), [""; 0]);
}

#[test]
fn an_upstream_that_appears_needs_a_restart() {
    let site = Site::new("");
    let old = site.load(&[]).unwrap();
    let site = site.with("upstreams/a.toml", b"kind = \"legacy\"\npeers = [\"http://a\"]");
    assert_eq!(old.needs_restart(&site.load(&[]).unwrap()), ["upstreams"]);
}

#[test]
fn what_was_read_is_watched() {
    let site = Site::new("");
    let watched = site.load(&[]).unwrap().watched_files();
    assert_eq!(watched, [site.path().join("gateway.toml"), site.path().join("upstreams")]);
}
