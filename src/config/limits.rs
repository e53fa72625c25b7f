//! `[limits]`: every limit and every deadline.

use std::time::Duration;

use super::defaults::BCRYPT_CONCURRENCY;
use super::reader::{Report, Section};
use super::size;

/// Every limit and every deadline of the program. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, on all listeners.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_per_client: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// The request line and the header lines of an HTTP/1.1 request, together.
    pub header_bytes: u64,
    /// The header list of an HTTP/2 request.
    pub http2_header_list_bytes: u64,
    /// HTTP/2 streams at a time on one connection.
    pub http2_streams: u32,
    /// What an HTTP/2 stream may have in flight towards us.
    pub http2_stream_window_bytes: u64,
    /// What an HTTP/2 connection may have in flight towards us.
    pub http2_connection_window_bytes: u64,
    /// What answers may hold in memory while clients take them, all together; a client may have at most half of it.
    pub outgoing_bytes: u64,
    /// What bodies that are read whole may hold in memory, all together; a client may have at most half of it.
    pub incoming_bytes: u64,
    /// A manifest.
    pub manifest_bytes: u64,
    /// Entries on one page of a list of tags, repositories or referrers.
    pub page_entries: usize,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How long the head of a request may take, from its first byte.
    pub header_read_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub body_idle_timeout: Duration,
    /// The fewest bytes per second that a body may move at, over `body_rate_window`.
    pub body_rate_bytes: u64,
    /// Over which time the rate of a body is measured.
    pub body_rate_window: Duration,
    /// How long a stop waits for requests that are running.
    pub drain_timeout: Duration,
    /// Passwords that are hashed at a time.
    pub bcrypt_concurrency: usize,
    /// Logins that wait for their turn.
    pub bcrypt_queue: usize,
    /// How long one of them waits.
    pub bcrypt_wait_timeout: Duration,
    /// How long a verified password is good without hashing it again.
    pub credential_lifetime: Duration,
    /// Wrong passwords a minute, from one address for one user.
    pub login_failures: u32,
    /// How long a request waits for an upstream that asked to be left alone.
    pub upstream_patience: Duration,
    /// Uploads that are open.
    pub uploads: usize,
    /// How long an upload stays open without a byte.
    pub upload_lifetime: Duration,
    /// What uploads leave free on the disk.
    pub disk_reserve: u64,
    /// What uploads leave free on the disk, in percent of it.
    pub disk_reserve_percent: u8,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

const INSTANT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Reads `[limits]`.
pub(super) fn read_limits(section: &mut Section<'_>) -> Limits {
    let default = Limits::default();
    let report = section.report;
    let bcrypt = (default.bcrypt_concurrency, BCRYPT_CONCURRENCY.to_owned());
    let limits = Limits {
        connections: section.integer("connections", default.connections, 1..=1_000_000),
        connections_per_client: section.integer(
            "connections_per_client",
            default.connections_per_client,
            1..=1_000_000,
        ),
        headers: section.integer("headers", default.headers, 16..=1_000),
        // hyper refuses to work with less than 8 KiB.
        header_bytes: section.size("header_bytes", default.header_bytes, 8 * KIB..=MIB),
        http2_header_list_bytes: section.size(
            "http2_header_list_bytes",
            default.http2_header_list_bytes,
            8 * KIB..=MIB,
        ),
        http2_streams: section.integer("http2_streams", default.http2_streams, 1..=10_000),
        http2_stream_window_bytes: section.size(
            "http2_stream_window_bytes",
            default.http2_stream_window_bytes,
            64 * KIB..=1_024 * MIB,
        ),
        http2_connection_window_bytes: section.size(
            "http2_connection_window_bytes",
            default.http2_connection_window_bytes,
            64 * KIB..=1_024 * MIB,
        ),
        outgoing_bytes: section.size("outgoing_bytes", default.outgoing_bytes, MIB..=1_024 * 1_024 * MIB),
        incoming_bytes: section.size("incoming_bytes", default.incoming_bytes, MIB..=1_024 * 1_024 * MIB),
        manifest_bytes: section.size("manifest_bytes", default.manifest_bytes, 64 * KIB..=64 * MIB),
        page_entries: section.integer("page_entries", default.page_entries, 1..=100_000),
        tls_handshake_timeout: section.duration("tls_handshake_timeout", default.tls_handshake_timeout, INSTANT..=HOUR),
        header_read_timeout: section.duration("header_read_timeout", default.header_read_timeout, INSTANT..=HOUR),
        keep_alive_timeout: section.duration("keep_alive_timeout", default.keep_alive_timeout, INSTANT..=DAY),
        body_idle_timeout: section.duration("body_idle_timeout", default.body_idle_timeout, INSTANT..=DAY),
        body_rate_bytes: section.size("body_rate_bytes", default.body_rate_bytes, 0..=MIB),
        body_rate_window: section.duration("body_rate_window", default.body_rate_window, SECOND..=HOUR),
        drain_timeout: section.duration("drain_timeout", default.drain_timeout, Duration::ZERO..=DAY),
        bcrypt_concurrency: section.integer_from("bcrypt_concurrency", bcrypt.0, bcrypt.1, 1..=1_024),
        bcrypt_queue: section.integer("bcrypt_queue", default.bcrypt_queue, 1..=100_000),
        bcrypt_wait_timeout: section.duration("bcrypt_wait_timeout", default.bcrypt_wait_timeout, INSTANT..=HOUR),
        credential_lifetime: section.duration("credential_lifetime", default.credential_lifetime, Duration::ZERO..=DAY),
        login_failures: section.integer("login_failures", default.login_failures, 1..=100_000),
        upstream_patience: section.duration("upstream_patience", default.upstream_patience, Duration::ZERO..=HOUR),
        uploads: section.integer("uploads", default.uploads, 1..=10_000_000),
        upload_lifetime: section.duration("upload_lifetime", default.upload_lifetime, MINUTE..=MONTH),
        disk_reserve: section.size("disk_reserve", default.disk_reserve, 0..=1_024 * TIB),
        disk_reserve_percent: section.integer("disk_reserve_percent", default.disk_reserve_percent, 0..=90),
    };
    check_incoming(&limits, report);
    limits
}

/// One client may have half of the room at most, and needs enough for one manifest.
fn check_incoming(limits: &Limits, report: &Report) {
    let (incoming, manifest) = ("limits.incoming_bytes", "limits.manifest_bytes");
    if limits.incoming_bytes / 2 < limits.manifest_bytes && report.is_sound(&[incoming, manifest]) {
        let sizes = (size::format(limits.incoming_bytes), size::format(limits.manifest_bytes));
        let text = format!("{} is less than twice {}, {}; raise it", sizes.0, report.end(manifest), sizes.1);
        report.conflict(incoming, manifest, text);
    }
}
