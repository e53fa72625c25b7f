//! What stands in an `Authorization` header (RFC 9110, section 11.6.2).

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Password;

/// Base64 as clients write it: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a caller shows to say who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: no header, or an empty user with an empty password, which some clients send for "nobody".
    None,
    /// A user's name and password (RFC 7617).
    Basic {
        /// The name, not checked against anything; it has no control characters.
        user: String,
        /// The password, possibly empty.
        password: Password,
    },
    /// A bearer token (RFC 6750), not checked yet.
    Bearer(String),
    /// What follows `Token`, the scheme of the v1 protocol, not read yet.
    Token(String),
    /// Some other scheme, named in lower case.
    Other(String),
}

/// A header cannot be read as credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MalformedCredentials {
    /// It does not begin with a scheme.
    Scheme,
    /// What follows `Basic` is not base64.
    Base64,
    /// What `Basic` encodes is not UTF-8.
    Utf8,
    /// What `Basic` encodes has no colon between the name and the password.
    Colon,
    /// What `Basic` encodes has control characters, which RFC 7617 forbids.
    Control,
    /// What follows `Bearer` is not a token.
    Token,
}

impl Credentials {
    /// Reads the value of an `Authorization` header. Schemes may be written in any case; the first colon ends the name.
    pub fn parse(header: Option<&[u8]>) -> Result<Self, MalformedCredentials> {
        let Some(header) = header else { return Ok(Self::None) };
        let header = header.trim_ascii();
        let end = header.iter().position(|b| *b == b' ').unwrap_or(header.len());
        let (scheme, rest) = (header[..end].to_ascii_lowercase(), header[end..].trim_ascii());
        if scheme.is_empty() || !scheme.iter().copied().all(is_token_character) {
            return Err(MalformedCredentials::Scheme);
        }
        match scheme.as_slice() {
            b"basic" => basic(rest),
            b"bearer" => bearer(rest),
            b"token" => Ok(Self::Token(String::from_utf8_lossy(rest).into_owned())),
            _ => Ok(Self::Other(String::from_utf8_lossy(&scheme).into_owned())),
        }
    }
}

fn basic(encoded: &[u8]) -> Result<Credentials, MalformedCredentials> {
    let decoded = Zeroizing::new(BASE64.decode(encoded).map_err(|_| MalformedCredentials::Base64)?);
    let text = std::str::from_utf8(&decoded).map_err(|_| MalformedCredentials::Utf8)?;
    let (user, password) = text.split_once(':').ok_or(MalformedCredentials::Colon)?;
    if text.contains(char::is_control) {
        return Err(MalformedCredentials::Control);
    }
    if user.is_empty() && password.is_empty() {
        return Ok(Credentials::None);
    }
    Ok(Credentials::Basic { user: user.into(), password: Password::new(password.into()) })
}

fn bearer(token: &[u8]) -> Result<Credentials, MalformedCredentials> {
    // To the end, whatever is found: that is quicker than to look after each byte.
    let is_known = token.iter().fold(!token.is_empty(), |known, byte| known & TOKEN68[usize::from(*byte)]);
    match std::str::from_utf8(token) {
        Ok(text) if is_known => Ok(Credentials::Bearer(text.to_owned())),
        _ => Err(MalformedCredentials::Token),
    }
}

/// Which bytes a `token68` of RFC 9110, section 11.2, is made of. A table, since every byte of every token is looked at.
static TOKEN68: [bool; 256] = {
    let mut known = [false; 256];
    let (mut byte, others) = (0, b"-._~+/=");
    while byte < 256 {
        known[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        known[others[index] as usize] = true;
        index += 1;
    }
    known
};

/// A `tchar` of RFC 9110, section 5.6.2.
fn is_token_character(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl fmt::Debug for Credentials {
    /// Without the password and without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Other(scheme) => f.debug_tuple("Other").field(scheme).finish(),
        }
    }
}

impl fmt::Display for MalformedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the Authorization header does not begin with a scheme such as Basic or Bearer",
            Self::Base64 => "what follows Basic in the Authorization header is not base64",
            Self::Utf8 => "the user and password in the Authorization header are not UTF-8",
            Self::Colon => "the Authorization header has no colon between user and password",
            Self::Control => "the user or password in the Authorization header has control characters",
            Self::Token => "what follows Bearer in the Authorization header is not a token",
        })
    }
}

impl std::error::Error for MalformedCredentials {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(header: &str) -> Result<Credentials, MalformedCredentials> {
        Credentials::parse(Some(header.as_bytes()))
    }

    fn user(user: &str, password: &str) -> Result<Credentials, MalformedCredentials> {
        Ok(Credentials::Basic { user: user.into(), password: Password::new(password.into()) })
    }

    #[test]
    fn every_form_is_read() {
        for (header, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", user("alice", "secret")),
            ("bAsIc   YWxpY2U6c2VjcmV0 ", user("alice", "secret")),
            ("Basic YTpiOmM=", user("a", "b:c")),
            ("Basic YTpiOmM", user("a", "b:c")),
            ("Basic YTo=", user("a", "")),
            ("Basic OmI=", user("", "b")),
            ("Basic w6k6w6k=", user("é", "é")),
            ("Basic Og==", Ok(Credentials::None)),
            ("Bearer a.b-c_d", Ok(Credentials::Bearer("a.b-c_d".into()))),
            ("BEARER a", Ok(Credentials::Bearer("a".into()))),
            ("Token Token signature=abc", Ok(Credentials::Token("Token signature=abc".into()))),
            ("Negotiate", Ok(Credentials::Other("negotiate".into()))),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
        assert_eq!(Credentials::parse(None), Ok(Credentials::None));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (header, expected) in [
            ("", MalformedCredentials::Scheme),
            ("  ", MalformedCredentials::Scheme),
            ("Ba\u{0}sic YTpi", MalformedCredentials::Scheme),
            ("Basic", MalformedCredentials::Colon),
            ("Basic YTpi!", MalformedCredentials::Base64),
            ("Basic YTpi YTpi", MalformedCredentials::Base64),
            ("Basic YWJj", MalformedCredentials::Colon),
            ("Basic /zr/", MalformedCredentials::Utf8),
            ("Basic YQo6Yg==", MalformedCredentials::Control),
            ("Basic YTpiAA==", MalformedCredentials::Control),
            ("Bearer", MalformedCredentials::Token),
            ("Bearer a b", MalformedCredentials::Token),
            ("Bearer é", MalformedCredentials::Token),
        ] {
            assert_eq!(parse(header), Err(expected), "{header}");
        }
    }

    #[test]
    fn neither_password_nor_token_is_shown() {
        let shown = format!("{:?} {:?}", user("alice", "canary"), Credentials::Bearer("canary".into()));
        assert!(shown.contains("alice") && !shown.contains("canary"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(header: Vec<u8>) {
            let _ = Credentials::parse(Some(&header));
        }

        #[test]
        fn any_bytes_after_a_scheme_are_read_or_refused(scheme in "(?i)basic |bearer ", rest: Vec<u8>) {
            let _ = Credentials::parse(Some(&[scheme.as_bytes(), &rest].concat()));
        }

        #[test]
        fn what_a_client_encodes_comes_back(name in "[^:\\p{Cc}]{1,20}", password in "\\P{Cc}{0,80}", padded: bool) {
            let mut encoded = BASE64.encode(format!("{name}:{password}"));
            if !padded {
                encoded.truncate(encoded.trim_end_matches('=').len());
            }
            prop_assert_eq!(parse(&format!("Basic {encoded}")), user(&name, &password));
        }
    }
}
