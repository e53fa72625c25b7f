//! Who may do what: a pattern matches what its definition says, and a permit is given only where a rule grants it.
//!
//! The input is lines: a pattern, a name, who a rule is for, who is asking.
#![no_main]

use dockgate::access::{
    Action, Create, Delete, Denied, Leave as _, Principal, Pull, Purpose, Push, RepositoryPattern, Rule, Rules, Who,
};
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
        // Who may push may create.
        let granted = |asked| matches && is_meant && (asked == action || (asked, action) == (Action::Create, Action::Push));
        decides::<Pull>(&rules, &principal, name, granted(Action::Pull));
        decides::<Create>(&rules, &principal, name, granted(Action::Create));
        decides::<Push>(&rules, &principal, name, granted(Action::Push));
        decides::<Delete>(&rules, &principal, name, granted(Action::Delete));
        if let Ok(write) = rules.authorize_write(&principal, name) {
            assert!(granted(Action::Create));
            assert_eq!(write.may_overwrite(), granted(Action::Push));
        }
    }
}

fn decides<A: Purpose>(rules: &Rules, principal: &Principal, name: &RepositoryName, granted: bool) {
    match rules.authorize::<A>(principal, name) {
        Ok(permit) => {
            assert!(granted, "{} is allowed to {principal} by {rules:?}", A::ACTION);
            assert_eq!(permit.repository(), name);
        }
        Err(denied) => {
            assert!(!granted, "{} is denied to {principal} by {rules:?}", A::ACTION);
            assert_eq!(denied == Denied::Unauthenticated, principal.is_anonymous());
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
