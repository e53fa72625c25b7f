//! The form of `POST /token`, as docker's OAuth2 token specification describes it.

use std::fmt;

use crate::gateway::query::{Query, QueryError};
use crate::gateway::route::TokenQuery;
use crate::identity::{Credentials, Password};

/// What is asked for, and who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenForm {
    pub(super) asked: TokenQuery,
    pub(super) shown: Shown,
}

/// What the caller shows.
#[derive(PartialEq, Eq)]
pub(super) enum Shown {
    /// `grant_type=password`
    Login(Credentials),
    /// `grant_type=refresh_token`
    Refresh(String),
}

/// A form that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FormError {
    /// It is not UTF-8, or has too many fields.
    Malformed,
    /// A field is there twice: two readers could read two forms (RFC 6749, section 3.2).
    Twice(String),
    /// A field is missing.
    Missing(&'static str),
    /// Another `grant_type` than those that are known.
    GrantType,
    /// The user or password has control characters, as `Authorization: Basic` may not carry them either.
    Control,
}

impl TokenForm {
    /// Reads the body of a request.
    pub(super) fn parse(body: &[u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(body).map_err(|_| FormError::Malformed)?;
        let fields = Query::parse(text)?;
        let need = |name| fields.first(name).ok_or(FormError::Missing(name));
        let shown = match need("grant_type")?.as_str() {
            "password" => Shown::Login(login(need("username")?, need("password")?)?),
            "refresh_token" => Shown::Refresh(need("refresh_token")?),
            _ => return Err(FormError::GrantType),
        };
        let offline = fields.first("access_type").is_some_and(|kind| kind == "offline");
        let asked = TokenQuery { service: fields.first("service"), scopes: fields.all("scope"), offline };
        Ok(Self { asked, shown })
    }
}

/// As in `Authorization: Basic`, an empty user with an empty password is nobody.
fn login(user: String, password: String) -> Result<Credentials, FormError> {
    if user.contains(char::is_control) || password.contains(char::is_control) {
        return Err(FormError::Control);
    }
    if user.is_empty() && password.is_empty() {
        return Ok(Credentials::None);
    }
    Ok(Credentials::Basic { user, password: Password::new(password) })
}

impl From<QueryError> for FormError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Twice(name) => Self::Twice(name),
            QueryError::TooMany | QueryError::NotText => Self::Malformed,
        }
    }
}

impl fmt::Debug for Shown {
    /// Without the password and without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(credentials) => f.debug_tuple("Login").field(credentials).finish(),
            Self::Refresh(_) => f.write_str("Refresh(…)"),
        }
    }
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                f.write_str("the form cannot be read; send fields in UTF-8 as application/x-www-form-urlencoded")
            }
            Self::Twice(name) => write!(f, "the form has {name} twice; send it once"),
            Self::Missing(name) => write!(f, "the form has no {name}"),
            Self::GrantType => f.write_str("grant_type must be password or refresh_token"),
            Self::Control => f.write_str("the user name or the password has control characters"),
        }
    }
}

impl std::error::Error for FormError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &str) -> Result<TokenForm, FormError> {
        TokenForm::parse(body.as_bytes())
    }

    #[test]
    fn forms_are_read_as_docker_and_containerd_write_them() {
        let form = parse(
            "client_id=docker&grant_type=password&access_type=offline&password=a%26b+c&service=dockgate\
             &scope=repository%3Aa%3Apull+repository%3Ab%3Apull&username=al%C3%A9",
        );
        let form = form.unwrap();
        let password = Password::new("a&b c".into());
        assert_eq!(form.shown, Shown::Login(Credentials::Basic { user: "alé".into(), password }));
        assert_eq!(form.asked.scopes, ["repository:a:pull repository:b:pull"]);
        assert_eq!((form.asked.service.as_deref(), form.asked.offline), (Some("dockgate"), true));
        let form = parse("grant_type=refresh_token&refresh_token=a.b-c_d&service=s&scope=x&scope=y").unwrap();
        assert_eq!(form.shown, Shown::Refresh("a.b-c_d".into()));
        assert_eq!((form.asked.scopes.len(), form.asked.offline), (2, false));
        let nobody = parse("grant_type=password&username=&password=").unwrap();
        assert_eq!((nobody.shown, nobody.asked.service), (Shown::Login(Credentials::None), None));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (body, expected) in [
            ("", FormError::Missing("grant_type")),
            ("grant_type=password&username=a", FormError::Missing("password")),
            ("grant_type=refresh_token", FormError::Missing("refresh_token")),
            ("grant_type=authorization_code&code=x", FormError::GrantType),
            ("grant_type=password&username=a&username=b&password=c", FormError::Twice("username".into())),
            ("grant_type=password&grant_type=refresh_token&refresh_token=a", FormError::Twice("grant_type".into())),
            ("grant_type=password&username=a%0A&password=c", FormError::Control),
            ("grant_type=password&username=%FF&password=c", FormError::Malformed),
            ("grant_type=password&client_id=a&client_id=b", FormError::Twice("client_id".into())),
            (&"a=b&".repeat(100), FormError::Malformed),
        ] {
            assert_eq!(parse(body), Err(expected), "{body}");
        }
        assert_eq!(TokenForm::parse(b"grant_type=\xff"), Err(FormError::Malformed));
    }

    #[test]
    fn neither_password_nor_token_is_shown() {
        let login = parse("grant_type=password&username=alice&password=canary").unwrap();
        let refresh = parse("grant_type=refresh_token&refresh_token=canary").unwrap();
        let shown = format!("{login:?} {refresh:?}");
        assert!(shown.contains("alice") && !shown.contains("canary"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = TokenForm::parse(&body);
        }
    }
}
