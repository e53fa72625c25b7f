//! The token of the v1 protocol as it stands in a header: `signature=…,repository="NS/R",access=write`.

use std::fmt;
use std::str::FromStr;

/// What a v1 token is for; one for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenAccess {
    /// To pull.
    Read,
    /// To push, and to pull what is there already.
    Write,
    /// To delete.
    Delete,
    /// To look without taking: docker-registry lets nothing else pass with `HEAD`.
    Head,
}

/// The three fields of a v1 token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFields {
    /// What vouches for the rest. It has no comma and no quotation mark.
    pub signature: String,
    /// `NS/R`
    pub repository: String,
    /// What it is for.
    pub access: TokenAccess,
}

/// A text is not a v1 token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFieldsError;

impl TokenAccess {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::Head];

    /// As it stands in a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Head => "head",
        }
    }
}

impl fmt::Display for TokenFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature={},repository=\"{}\",access={}", self.signature, self.repository, self.access.as_str())
    }
}

impl FromStr for TokenFields {
    type Err = TokenFieldsError;

    /// Reads what follows `Token` in `Authorization`. Clients repeat the word that stood before the fields when they were
    /// given, so a second `Token` before them is no part of them.
    fn from_str(text: &str) -> Result<Self, TokenFieldsError> {
        let fields = match text.trim().split_once(' ') {
            Some((word, rest)) if word.eq_ignore_ascii_case("token") => rest,
            _ => text,
        };
        let (mut signature, mut repository, mut access) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=').ok_or(TokenFieldsError)?;
            let place = match name {
                "signature" => &mut signature,
                "repository" => &mut repository,
                "access" => &mut access,
                _ => return Err(TokenFieldsError),
            };
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            if value.is_empty() || value.contains(['"', ' ']) || place.replace(value).is_some() {
                return Err(TokenFieldsError);
            }
        }
        let access = TokenAccess::ALL.into_iter().find(|known| Some(known.as_str()) == access);
        let found = |field: Option<&str>| field.map(str::to_owned).ok_or(TokenFieldsError);
        Ok(Self {
            signature: found(signature)?,
            repository: found(repository)?,
            access: access.ok_or(TokenFieldsError)?,
        })
    }
}

impl fmt::Display for TokenFieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token is signature=…,repository=\"NAMESPACE/NAME\",access=read, write or delete")
    }
}

impl std::error::Error for TokenFieldsError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_read_as_clients_send_it() {
        let expected =
            TokenFields { signature: "a.b-c_d".into(), repository: "ns/r".into(), access: TokenAccess::Write };
        for text in [
            "signature=a.b-c_d,repository=\"ns/r\",access=write",
            "Token signature=a.b-c_d,repository=\"ns/r\",access=write",
            "token  access=write, repository=ns/r, signature=\"a.b-c_d\"",
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_twice_is_no_token() {
        for text in [
            "",
            "Token",
            "signature=a,repository=ns/r",
            "signature=a,repository=ns/r,access=all",
            "signature=a,repository=ns/r,access=read,access=write",
            "signature=a,repository=ns/r,repository=ns/s,access=read",
            "signature=,repository=ns/r,access=read",
            "signature=a,repository=\"ns/r,access=read",
            "signature=a,repository=ns/r,access=read,more=1",
            "Token Token signature=a,repository=ns/r,access=read",
            "signature=a b,repository=ns/r,access=read",
        ] {
            assert_eq!(text.parse::<TokenFields>(), Err(TokenFieldsError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            signature in "[A-Za-z0-9._-]{1,80}", repository in "[a-z0-9]{1,9}/[a-z0-9]{1,9}", access in 0..4_usize, twice: bool,
        ) {
            let fields = TokenFields { signature, repository, access: TokenAccess::ALL[access] };
            let text = if twice { format!("Token {fields}") } else { fields.to_string() };
            prop_assert_eq!(text.parse(), Ok(fields));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = text.parse::<TokenFields>();
        }
    }
}
