//! Limits with which nobody would be served.

use super::errors;

/// Each is told with what is allowed.
#[test]
fn limits_that_serve_nobody_are_refused() {
    for (limit, least) in [
        ("connections = 0", "from 1 "),
        ("connections_per_client = 0", "from 1 "),
        ("headers = 1", "from 16 "),
        ("header_bytes = \"1\"", "from 8KiB "),
        ("http2_header_list_bytes = \"1\"", "from 8KiB "),
        ("http2_streams = 0", "from 1 "),
        ("http2_stream_window_bytes = \"1\"", "from 64KiB "),
        ("http2_connection_window_bytes = \"1\"", "from 64KiB "),
        ("manifest_bytes = \"1\"", "from 64KiB "),
        ("page_entries = 0", "from 1 "),
        ("tls_handshake_timeout = \"0s\"", "from 100ms "),
        ("header_read_timeout = \"0s\"", "from 100ms "),
        ("keep_alive_timeout = \"0s\"", "from 100ms "),
        ("body_idle_timeout = \"0s\"", "from 100ms "),
        ("body_rate_window = \"0s\"", "from 1s "),
        ("body_rate_bytes = \"1GiB\"", "to 1MiB"),
        ("bcrypt_concurrency = 0", "from 1 "),
        ("bcrypt_queue = 0", "from 1 "),
        ("bcrypt_wait_timeout = \"0s\"", "from 100ms "),
        ("login_failures = 0", "from 1 "),
        ("uploads = 0", "from 1 "),
        ("upload_lifetime = \"0s\"", "from 1m "),
        ("disk_reserve_percent = 100", "to 90"),
    ] {
        let told = errors(&format!("limits.{limit}"));
        assert!(told.len() == 1 && told[0].contains(least), "{limit}: {told:?}");
    }
}

#[test]
fn a_cache_in_which_nothing_has_room_is_refused() {
    assert_eq!(
        errors("cache = { memory = \"63KiB\", disk = \"1\" }"),
        [
            "gateway.toml:1:20: cache.memory: found 63KiB, in which nothing has room; write at least 64KiB, or \"0\" to keep \
             nothing",
            "gateway.toml:1:36: cache.disk: found 1, in which nothing has room; write at least 64KiB, or \"0\" to keep nothing",
        ]
    );
    assert_eq!(errors("cache = { memory = \"64KiB\", disk = \"0\" }"), [""; 0]);
}
