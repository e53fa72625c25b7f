//! `[identity]` and `[[access]]`: who somebody is, and what they may do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::{Action, Actions, PatternError, RepositoryPattern, Rule, Rules, Who, WhoError};

use super::defaults;
use super::duration;
use super::errors::{Place, Problem};
use super::reader::{Fallback, Kind, Section};

/// Who the users are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name that clients show when they ask for a password.
    pub realm: String,
    /// The file of users and their bcrypt hashes.
    pub htpasswd: PathBuf,
    /// Whether whoever asks becomes a user (`docker login` up to 1.10).
    pub registration: bool,
    /// Whether users may change their own password (`PUT /v1/users/U/`).
    pub password_changes: bool,
    /// How callers are asked who they are.
    pub challenge: Challenge,
    /// The users of each group.
    pub groups: BTreeMap<String, Vec<String>>,
    /// The tokens that `/token` gives.
    pub token: Token,
}

/// How callers are asked who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Challenge {
    /// By whichever lets most clients in: Bearer where some things are for anyone and others are not, else Basic.
    #[default]
    Auto,
    /// For a password (RFC 7617).
    Basic,
    /// For a token (RFC 6750): docker's registry 2.8, as a mirror of us, knows nothing else.
    Bearer,
}

const CHALLENGES: [(&str, Challenge); 3] =
    [("auto", Challenge::Auto), ("basic", Challenge::Basic), ("bearer", Challenge::Bearer)];

/// The tokens that `/token` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// How long one is good: from 60 s to 300 s, for a docker client may take it as 60 s whatever it is told.
    pub lifetime: Duration,
    /// How long a refresh token is good.
    pub refresh_lifetime: Duration,
    /// How long a token of the v1 protocol is good, but no longer than a refresh token: a push of docker 1.5 has one for all of it.
    pub legacy_lifetime: Duration,
    /// How long a key signs tokens until the next one does; zero means for ever.
    pub key_lifetime: Duration,
    /// The other registries that tokens are made for.
    pub services: Vec<String>,
    /// Whether tokens for them carry the certificate of their key.
    pub chain: bool,
}

const LIFETIME_MIN: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(300);
const LEGACY_LIFETIME_MAX: Duration = Duration::from_secs(86_400);
const REFRESH_LIFETIME_MAX: Duration = Duration::from_secs(365 * 86_400);
const KEY_LIFETIME_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// How many keys may be good at a time, as far as the lifetimes decide it. Each is public and is looked at by others.
const KEYS_MAX: u64 = 64;

const REALM: &str = "printable ASCII without \" and \\";
const USER: &str = "names of users, without : and control characters";

/// Reads `[identity]`.
pub(super) fn read_identity(section: &mut Section<'_>) -> Identity {
    let default = Identity::default();
    Identity {
        realm: section.text("realm", &default.realm, REALM, is_realm),
        htpasswd: section.path_or("htpasswd", &default.htpasswd),
        registration: section.boolean("registration", default.registration),
        password_changes: section.boolean("password_changes", default.password_changes),
        challenge: section.choice("challenge", default.challenge, &CHALLENGES),
        groups: read_groups(section),
        token: section.table("token", |token| read_token(token, &default.token)),
    }
}

fn read_token(section: &mut Section<'_>, default: &Token) -> Token {
    let services = Kind { name: "list of strings", allowed: REALM };
    let service = |text: &str| is_realm(text).then(|| text.to_owned());
    let token = Token {
        lifetime: section.duration("lifetime", default.lifetime, LIFETIME_MIN..=LIFETIME_MAX),
        refresh_lifetime: section.duration(
            "refresh_lifetime",
            default.refresh_lifetime,
            LIFETIME_MIN..=REFRESH_LIFETIME_MAX,
        ),
        legacy_lifetime: section.duration(
            "legacy_lifetime",
            default.legacy_lifetime,
            LIFETIME_MIN..=LEGACY_LIFETIME_MAX,
        ),
        key_lifetime: section.duration("key_lifetime", default.key_lifetime, Duration::ZERO..=KEY_LIFETIME_MAX),
        services: section.list("services", &services, &Fallback::Value("[]".into()), service).unwrap_or_default(),
        chain: section.boolean("chain", default.chain),
    };
    check_key_lifetime(section, &token);
    token
}

/// A key is kept until the last token that it signed has ended, so a short life of keys and a long one of tokens are many.
fn check_key_lifetime(section: &Section<'_>, token: &Token) {
    let longest = token.refresh_lifetime.max(LIFETIME_MAX).as_secs();
    let least = longest.div_ceil(KEYS_MAX);
    let paths = [section.join("key_lifetime"), section.join("refresh_lifetime")];
    if token.key_lifetime.is_zero() || token.key_lifetime.as_secs() >= least || !section.report.is_sound(&[&paths[0]]) {
        return;
    }
    let text =
        format!("with this {} it takes {} or more, or 0s", paths[1], duration::format(Duration::from_secs(least)));
    section.report.conflict(&paths[0], &paths[1], text);
}

fn read_groups(section: &mut Section<'_>) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::new();
    for (name, node) in section.entries("groups", "table of lists of strings") {
        let path = format!("{}.{}", section.join("groups"), name);
        if is_user(&name) {
            groups.insert(name, section.strings_of(node, &path, USER, is_user));
        } else {
            section.refuse_name(&node.place, "groups", &name, "names of groups, without : and control characters");
        }
    }
    groups
}

/// It stands in a quoted string of a header.
fn is_realm(text: &str) -> bool {
    let is_plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
    !text.is_empty() && text.bytes().all(is_plain)
}

fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c == ':' || c.is_control())
}

/// Reads `[[access]]`; the default rules, where there is none.
pub(super) fn read_rules(root: &mut Section<'_>, groups: &BTreeMap<String, Vec<String>>) -> Rules {
    root.rows("access", |row| read_rule(row, groups)).map_or_else(defaults::rules, Rules::new)
}

fn read_rule(section: &mut Section<'_>, groups: &BTreeMap<String, Vec<String>>) -> Option<Rule> {
    let (who_allowed, pattern_allowed) = (WhoError.to_string(), PatternError.to_string());
    let who_allowed = who_allowed.trim_start_matches("it is ");
    let pattern_allowed = pattern_allowed.trim_start_matches("a pattern is ");
    let who = read_nonempty(section, "who", &Kind { name: "list of strings", allowed: who_allowed }, |text| {
        text.parse::<Who>().ok()
    });
    if let Some(who) = &who {
        check_groups(section, who, groups);
    }
    let kind = Kind { name: "list of patterns", allowed: pattern_allowed };
    let repositories = read_nonempty(section, "repositories", &kind, |text| text.parse::<RepositoryPattern>().ok());
    let kind = Kind { name: "list of words", allowed: "one of \"pull\", \"push\", \"create\", \"delete\", or \"*\"" };
    let actions = read_nonempty(section, "actions", &kind, |text| match text {
        "*" => Some(Actions::ALL),
        text => text.parse::<Action>().ok().map(Actions::from),
    });
    let actions = actions?.into_iter().fold(Actions::NONE, |set, actions| set | actions);
    Some(Rule { who: who?, repositories: repositories?, actions })
}

fn read_nonempty<T>(
    section: &mut Section<'_>,
    key: &'static str,
    kind: &Kind<'_>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let list = section.list(key, kind, &Fallback::Required, parse)?;
    let path = section.join(key);
    if list.is_empty() && section.report.is_sound(&[&path, &format!("{path}[0]")]) {
        let place = section.report.place(&path).unwrap_or_else(|| section.report.file());
        let problem = Problem::Value { found: "an empty list".into(), allowed: kind.allowed.to_owned(), nearest: None };
        section.report.error(place, &path, problem);
    }
    Some(list)
}

fn check_groups(section: &Section<'_>, who: &[Who], groups: &BTreeMap<String, Vec<String>>) {
    let unknown = who.iter().filter_map(|who| match who {
        Who::Group(name) if !groups.contains_key(name) => Some(name),
        _ => None,
    });
    for name in unknown {
        let path = section.join("who");
        let place = section.report.place(&path).unwrap_or_else(|| section.report.file());
        let known: Vec<&str> = groups.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "identity.groups has none".into()
        } else {
            format!("identity.groups has {}", known.join(", "))
        };
        let text = format!("there is no group {}; {known}", super::tree::quote(name));
        section.report.error(place, &path, Problem::Conflict(text));
    }
}

impl Section<'_> {
    /// Reports a name that the user chose for something in the table `key`.
    pub(super) fn refuse_name(&self, place: &Place, key: &str, name: &str, allowed: &str) {
        let found = super::tree::quote(name);
        let problem = Problem::Value { found, allowed: allowed.into(), nearest: None };
        self.report.error(place.clone(), &self.join(key), problem);
    }
}
