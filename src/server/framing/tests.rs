use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 256, headers: 8 };

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    good: Vec<u8>,
    refusal: Option<Refusal>,
    heads: u64,
    between_requests: bool,
}

/// Shows `pieces` as they come, as a reader would.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut framing = Framing::new(LIMITS);
    let (mut good, mut held, mut refusal) = (Vec::new(), Vec::new(), None);
    for piece in pieces {
        held.extend_from_slice(piece);
        let followed = framing.follow(&held);
        good.extend(held.drain(..followed.good));
        assert!(held.len() < LIMITS.bytes || refusal.is_some() || followed.refusal.is_some(), "holds {}", held.len());
        refusal = refusal.or(followed.refusal);
    }
    let between_requests = framing.is_between_requests() && held.is_empty();
    Outcome { good, refusal, heads: framing.heads(), between_requests }
}

fn whole(bytes: &[u8]) -> Outcome {
    outcome([bytes])
}

/// Why the second of two requests is refused, if it is; the first has to be good.
fn reason(request: &str) -> Option<BadHead> {
    const FIRST: &str = "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let Outcome { good, refusal, heads, .. } = whole(format!("{FIRST}{request}").as_bytes());
    assert!(good.starts_with(FIRST.as_bytes()), "{request:?}");
    assert_eq!(heads, 2, "{request:?}");
    refusal.map(|refusal| match refusal {
        Refusal::Head { reason, .. } => {
            assert_eq!(good, FIRST.as_bytes());
            reason
        }
        Refusal::Body => panic!("{request:?}: the body"),
    })
}

#[test]
fn requests_follow_one_another() {
    for requests in [
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n\r\n\r\nPUT /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\ncontent-LENGTH:\t 003 \r\n\r\nabcHEAD http://a/ HTTP/1.1\r\nX:\r\nX: \t\r\nX: \u{e9}\ty\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n00A;x=\"y z\";\r\n0123456789\r\n1\r\n\n\r\n000;\r\nX-Sum: 1\r\nY:\r\n\r\n\
         CONNECT a:1 HTTP/1.1\r\n\r\n",
    ] {
        let expected = Outcome { good: requests.into(), refusal: None, heads: 2, between_requests: true };
        assert_eq!(whole(requests.as_bytes()), expected, "{requests:?}");
    }
}

#[test]
fn what_is_not_complete_is_known() {
    for part in ["GET / HTTP/1.1\r\nHost: a\r\n\r", "\r", "G", "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"] {
        assert!(!whole(part.as_bytes()).between_requests, "{part:?}");
    }
    for end in ["", "3\r\nabc", "3\r\nabc\r\n0\r\n", "3\r\nabc\r\n0\r\n\r"] {
        let outcome = whole(format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{end}").as_bytes());
        assert_eq!((outcome.between_requests, outcome.refusal), (false, None), "{end:?}");
    }
}

#[test]
fn lines_end_in_one_way() {
    for head in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\r b\r\n\r\n",
        "\nGET / HTTP/1.1\r\n\r\n",
        "\rGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(reason(head), Some(BadHead::LineEnd), "{head:?}");
    }
    for byte in ['\0', '\u{1}', '\u{b}', '\u{c}', '\u{1b}', '\u{7f}'] {
        for head in [
            format!("{byte}GET / HTTP/1.1\r\n\r\n"),
            format!("GET /{byte} HTTP/1.1\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nX{byte}: a\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nX:{byte}a\r\n\r\n"),
        ] {
            assert_eq!(reason(&head), Some(BadHead::ControlByte), "{head:?}");
        }
    }
}

#[test]
fn request_lines_have_three_parts() {
    for line in [
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / x HTTP/1.1",
        " GET / HTTP/1.1",
        "/ HTTP/1.1",
        "G[T / HTTP/1.1",
        "GET / HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/ 1.1",
        "GET a:b:c HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET /<x> HTTP/1.1",
        "GET /#x HTTP/1.1",
    ] {
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(reason(&head), Some(BadHead::RequestLine), "{line:?}");
    }
}

#[test]
fn header_lines_have_a_name_and_a_value() {
    for line in [
        "Host",
        " Host: a",
        "\tHost: a",
        "Host : a",
        "Host\t: a",
        ": a",
        "Ho st: a",
        "Ho(st: a",
        "\u{e9}: a",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        "X: a\r\n \r\nY: b",
    ] {
        let head = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
        assert_eq!(reason(&head), Some(BadHead::Field), "{line:?}");
    }
}

#[test]
fn there_is_one_length() {
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nX: y\r\ncontent-length: 4",
        "Content-Length: 3, 3",
        "Content-Length: 3,",
        "Content-Length:",
        "Content-Length: -3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: 3.0",
        "Content-Length: 3 3",
        "Content-Length: \u{663}",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551614",
    ] {
        let head = format!("PUT / HTTP/1.1\r\n{lines}\r\n\r\n");
        assert_eq!(reason(&head), Some(BadHead::Length), "{lines:?}");
    }
    for (version, lines) in [
        ("1.1", "Transfer-Encoding: identity"),
        ("1.1", "Transfer-Encoding:"),
        ("1.1", "Transfer-Encoding: chunked, chunked"),
        ("1.1", "Transfer-Encoding: gzip, chunked"),
        ("1.1", "Transfer-Encoding: chunked;x=y"),
        ("1.1", "Transfer-Encoding: \"chunked\""),
        ("1.1", "Transfer-Encoding: xchunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
    ] {
        let head = format!("PUT / HTTP/{version}\r\n{lines}\r\n\r\n");
        assert_eq!(reason(&head), Some(BadHead::TransferCoding), "{version} {lines:?}");
    }
}

#[test]
fn heads_have_their_limits_to_the_byte() {
    let head = |bytes: usize| {
        let (before, after) = ("\r\nGET / HTTP/1.1\r\nX: ", "\r\n\r\n");
        format!("{before}{}{after}", "x".repeat(bytes - before.len() - after.len()))
    };
    assert_eq!(reason(&head(LIMITS.bytes)), None);
    assert_eq!(reason(&head(LIMITS.bytes + 1)), Some(BadHead::TooLarge));
    assert_eq!(reason(&"x".repeat(LIMITS.bytes)), Some(BadHead::TooLarge));
    let headers = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(count));
    assert_eq!(reason(&headers(LIMITS.headers)), None);
    assert_eq!(reason(&headers(LIMITS.headers + 1)), Some(BadHead::TooLarge));
}

#[test]
fn a_refused_head_has_its_request_line() {
    let line = |head: &str| {
        let Some(Refusal::Head { request_line, .. }) = whole(head.as_bytes()).refusal else { panic!("{head:?}") };
        request_line.map(|place| head[place].to_owned())
    };
    assert_eq!(line("\r\nGET /x HTTP/1.1\r\nX : y\r\n\r\n").as_deref(), Some("GET /x HTTP/1.1"));
    assert_eq!(line("GET /x\r\nX: y\r\n\r\n"), None);
    assert_eq!(line("GET /x HTTP/1.1\n\n"), None);
}

#[test]
fn chunks_that_two_readers_would_read_differently_are_refused() {
    for (good, bad) in [
        ("", "\r\n"),
        ("", "x\r\n"),
        ("", " 3\r\nabc"),
        ("", "-3\r\n"),
        ("", "+3\r\n"),
        ("", ";x\r\n"),
        ("", "\n"),
        ("0", "x3\r\nabc"),
        ("3", " \r\nabc"),
        ("3", "\t\r\nabc"),
        ("3", "\nabc"),
        ("3\r", "abc"),
        ("3\r", "\r\nabc"),
        ("3;x", "\nabc"),
        ("3;x\r", "y\r\n"),
        ("3;", "\0\r\nabc"),
        ("3\r\nabc", "d\r\n"),
        ("3\r\nabc", "\n0\r\n\r\n"),
        ("3\r\nabc\r", "\r\n"),
        ("3\r\nabc\r", "0\r\n"),
        ("3\r\nabc\r\n", "\r\n"),
        ("0000000000000000", "0\r\n"),
        ("FFFFFFFFFFFFFFFF", "F\r\n"),
        ("0\r\n", "\n"),
        ("0\r", "\r\n"),
        ("0\r\n\r", "\r\n"),
        ("0\r\n", ": x\r\n\r\n"),
        ("0\r\n", " X: y\r\n\r\n"),
        ("0\r\nX", " : y\r\n"),
        ("0\r\nX", "\r\n\r\n"),
        ("0\r\nX: y", "\n\r\n"),
        ("0\r\nX: y\r", "z\r\n"),
        ("0\r\nX: ", "\0\r\n"),
    ] {
        let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let outcome = whole(format!("{head}{good}{bad}GET /smuggled HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(outcome.refusal, Some(Refusal::Body), "{good:?} {bad:?}");
        assert_eq!(String::from_utf8(outcome.good).unwrap(), format!("{head}{good}"), "{bad:?}");
    }
}

#[test]
fn extensions_and_trailers_have_a_limit_together() {
    let body = |extension: usize, trailer: usize| {
        let (extension, trailer) = ("x".repeat(extension), "y".repeat(trailer));
        let text = format!(
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}\r\na\r\n0\r\nT{trailer}:\r\n\r\n"
        );
        whole(text.as_bytes()).refusal
    };
    // With the CR of the extension, the colon and the CR of the trailer.
    assert_eq!(body(100, LIMITS.bytes - 103), None);
    assert_eq!(body(100, LIMITS.bytes - 102), Some(Refusal::Body));
    assert_eq!(body(LIMITS.bytes + 1, 0), Some(Refusal::Body));
}

/// Pieces of requests, good and bad, that fall together into anything.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        8 => proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n", "PUT /v2/ HTTP/1.1\r\n", "POST / HTTP/1.0\r\n", "Host: a\r\n", "\r\n", "\r\n\r\n", "\r", "\n", "\0",
            "Content-Length: 3\r\n", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: gzip\r\n",
            "abc", "3\r\nabc\r\n", "0\r\n\r\n", "0\r\n", "5;x=y\r\n", "a", "F", "X: y\r\n", " ", "\t", ":", ";", "0", "3", "X : y\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => (1_usize..300).prop_map(|length| vec![b'x'; length]),
    ];
    proptest::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_the_bytes_are_cut_the_outcome_is_the_same(
        bytes in fragments(),
        cuts in proptest::collection::vec(1_usize..40, 1..40),
    ) {
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for length in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*length));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let expected = whole(&bytes);
        prop_assert!(bytes.starts_with(&expected.good));
        prop_assert_eq!(outcome(pieces), expected.clone());
        prop_assert_eq!(outcome(bytes.chunks(1)), expected);
    }

    #[test]
    fn nothing_makes_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let expected = whole(&bytes);
        prop_assert_eq!(outcome(bytes.chunks(7)), expected);
    }
}
