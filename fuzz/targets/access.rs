//! Who may do what: a pattern matches what its definition says, and a permit is given only where a rule grants it.
//!
//! The input is lines: a pattern, a name, who a rule is for, who is asking.
#![no_main]

use dockgate::access::{Action, Denied, Principal, RepositoryPattern, Rule, Rules, Who};
use dockgate::oci::RepositoryName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (pattern, name, who, caller) = (next(), next(), next(), next());
    let Ok(parsed) = pattern.parse::<RepositoryPattern>() else { return };
    assert_eq!(parsed.to_string(), pattern);
    let Ok(name) = name.parse::<RepositoryName>() else { return };
    let expected = matches(&pattern.split('/').collect::<Vec<_>>(), &name.as_str().split('/').collect::<Vec<_>>());
    assert_eq!(parsed.matches(&name), expected, "{pattern} {name}");
    assert!(!parsed.is_everything() || expected);
    if let Ok(who) = who.parse::<Who>() {
        rules(parsed, expected, &name, who, caller);
    }
});

fn rules(pattern: RepositoryPattern, matches: bool, name: &RepositoryName, who: Who, caller: &str) {
    let principal = if caller.is_empty() { Principal::anonymous() } else { Principal::user(caller, vec!["ci".into()]) };
    let is_meant = match &who {
        Who::Anyone => true,
        Who::Authenticated => !caller.is_empty(),
        Who::User(user) => !caller.is_empty() && user == caller,
        Who::Group(group) => !caller.is_empty() && group == "ci",
        Who::Certificate(_) | Who::Network(_) => false,
    };
    for action in Action::ALL {
        let rule = Rule { who: vec![who.clone()], repositories: vec![pattern.clone()], actions: action.into() };
        let rules = Rules::new(vec![rule]);
        for asked in Action::ALL {
            // Who may push may create, and who may create is let in to push, to new tags.
            let writes = |action| matches!(action, Action::Push | Action::Create);
            let granted = matches && is_meant && (asked == action || (writes(asked) && writes(action)));
            match rules.authorize(&principal, asked, name) {
                Ok(permit) => {
                    assert!(granted, "{action} was granted and {asked} allowed to {caller:?} by a rule for {who:?}");
                    assert_eq!(permit.may_overwrite(), action == Action::Push);
                    assert_eq!(permit.repository(), name);
                }
                Err(denied) => {
                    assert!(!granted, "{action} was granted and {asked} denied to {caller:?} by a rule for {who:?}");
                    assert_eq!(denied == Denied::Unauthenticated, caller.is_empty());
                }
            }
        }
    }
}

/// The definition, as a table of which ends of the pattern match which ends of the name: `**` is one part or more.
fn matches(pattern: &[&str], name: &[&str]) -> bool {
    let mut rows = vec![vec![false; name.len() + 1]; pattern.len() + 1];
    rows[pattern.len()][name.len()] = true;
    for p in (0..pattern.len()).rev() {
        for n in (0..name.len()).rev() {
            rows[p][n] = match pattern[p] {
                "**" => rows[p + 1][n + 1] || rows[p][n + 1],
                glob => rows[p + 1][n + 1] && matches_part(glob.as_bytes(), name[n].as_bytes()),
            };
        }
    }
    rows[0][0]
}

/// The same for one part: `*` is any characters, or none.
fn matches_part(glob: &[u8], text: &[u8]) -> bool {
    let mut rows = vec![vec![false; text.len() + 1]; glob.len() + 1];
    rows[glob.len()][text.len()] = true;
    for g in (0..glob.len()).rev() {
        for t in (0..=text.len()).rev() {
            let next = t < text.len();
            rows[g][t] = match glob[g] {
                b'*' => rows[g + 1][t] || (next && rows[g][t + 1]),
                byte => next && text[t] == byte && rows[g + 1][t + 1],
            };
        }
    }
    rows[0][0]
}
