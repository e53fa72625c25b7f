//! Every v1 route × caller × repository or image × way to say who one is, against an oracle that knows only the rules.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::support::v1_upstream::{Asked, V1Upstream, reply};
use super::super::support::{Answer, Client, Gate};
use super::prepare;

const RULES: &str = r#"
[[access]]
who = ["user:reader", "user:dev"]
repositories = ["own/**"]
actions = ["pull"]
[[access]]
who = ["user:dev"]
repositories = ["own/**"]
actions = ["push"]
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
[[access]]
who = ["authenticated"]
repositories = ["common/**"]
actions = ["*"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
[identity.token]
legacy_lifetime = "1m"
[limits]
login_failures = 100000
"#;

/// How long a token is good here.
const LIFETIME: Duration = Duration::from_secs(60);

/// Nobody, a user with nothing to do with it, and those who may pull, push, and everything.
const CALLERS: [&str; 5] = ["anonymous", "other", "reader", "dev", "root"];
const REPOSITORIES: [&str; 4] = ["own/app", "own/missing", "strange/app", "strange/missing"];

const OWN: &str = "aaaaaaaaaaaaaaaa";
const STRANGE: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Pull,
    Push,
    Delete,
}

const READS: [&str; 6] = ["images", "tags", "tags/1.0", "tags/1.0/json", "json", "properties"];

/// Every route of a repository: what it needs, and what there is where the repository is not.
fn repository_routes() -> Vec<(&'static str, &'static str, Needs, u16)> {
    let mut routes = Vec::new();
    for rest in READS {
        routes.push(("GET", rest, Needs::Pull, 404));
        routes.push(("HEAD", rest, Needs::Pull, 404));
    }
    routes.push(("GET", "layer/aaaaaaaaaaaaaaaa/access", Needs::Pull, 200));
    for rest in ["", "images", "tags/1.0", "properties", "auth"] {
        routes.push(("PUT", rest, Needs::Push, if rest == "tags/1.0" { 404 } else { 200 }));
    }
    for rest in ["", "tags", "tags/1.0", "images"] {
        routes.push(("DELETE", rest, Needs::Delete, if rest == "images" { 200 } else { 404 }));
    }
    routes
}

const IMAGE_ROUTES: [(&str, &str, Needs); 13] = [
    ("GET", "json", Needs::Pull),
    ("HEAD", "json", Needs::Pull),
    ("GET", "layer", Needs::Pull),
    ("HEAD", "layer", Needs::Pull),
    ("GET", "ancestry", Needs::Pull),
    ("HEAD", "ancestry", Needs::Pull),
    ("GET", "files", Needs::Pull),
    ("HEAD", "files", Needs::Pull),
    ("GET", "diff", Needs::Pull),
    ("HEAD", "diff", Needs::Pull),
    ("PUT", "json", Needs::Push),
    ("PUT", "layer", Needs::Push),
    ("PUT", "checksum", Needs::Push),
];

/// What the rules say, written once more and differently.
fn may(caller: &str, repository: &str, needs: Needs) -> bool {
    match (caller, needs) {
        ("root", _) => true,
        ("reader", Needs::Pull) | ("dev", Needs::Pull | Needs::Push) => repository.starts_with("own/"),
        _ => false,
    }
}

/// What is not there is no secret to who wants to write: it is refused for every name alike.
fn refusal(caller: &str, repository: &str, needs: Needs) -> u16 {
    match caller {
        "anonymous" => 401,
        _ if needs != Needs::Pull || may(caller, repository, Needs::Pull) => 403,
        _ => 404,
    }
}

/// A registry with one image in `own/app` and one in `strange/app`; what is put into it does not change it.
fn registry() -> (V1Upstream, Arc<Mutex<Vec<String>>>) {
    let put = Arc::new(Mutex::new(Vec::new()));
    let known = Arc::clone(&put);
    let upstream = V1Upstream::start(move |asked| answer(asked, &mut known.lock().unwrap()));
    (upstream, put)
}

fn answer(asked: &Asked, known: &mut Vec<String>) -> Vec<u8> {
    let missing = || reply(404, &[], b"{\"error\": \"not found\"}");
    let found = |body: String| reply(200, &[("Content-Type", "application/json")], body.as_bytes());
    let path = asked.target.trim_start_matches("/v1/").to_owned();
    if let Some((id, word)) = path.strip_prefix("images/").and_then(|rest| rest.split_once('/')) {
        if asked.method == "PUT" {
            if word == "json" && known.iter().any(|known| known == id) {
                return reply(409, &[], b"{\"error\": \"Image already exists\"}");
            }
            known.push(id.to_owned());
            return found("true".into());
        }
        return match word {
            _ if !known.iter().any(|known| known == id) => missing(),
            "ancestry" => found(format!("[\"{id}\"]")),
            _ => found(format!("{{\"id\":\"{id}\"}}")),
        };
    }
    let Some(rest) = path.strip_prefix("repositories/") else { return found("{}".into()) };
    let id = if rest.starts_with("own/") { OWN } else { STRANGE };
    let is_there = rest.contains("/app/");
    match (asked.method.as_str(), rest.splitn(3, '/').nth(2).unwrap()) {
        ("PUT", _) => found("true".into()),
        _ if !is_there => missing(),
        (_, "tags") => found(format!("{{\"1.0\":\"{id}\"}}")),
        (_, "tags/1.0") => found(format!("\"{id}\"")),
        (_, "images") => found(format!("[{{\"id\":\"{id}\"}}]")),
        _ => found("{}".into()),
    }
}

struct House {
    gate: Gate,
    upstream: V1Upstream,
    known: Arc<Mutex<Vec<String>>>,
}

impl House {
    fn start() -> Self {
        let (upstream, known) = registry();
        let gate = prepare(RULES, &[upstream.address], "health = { interval = \"1h\" }").start();
        let house = Self { gate, upstream, known };
        house.restore();
        house
    }

    /// Both images where they belong, pushed through the gateway, and nothing known of any other.
    fn restore(&self) {
        self.known.lock().unwrap().clear();
        for (repository, id) in [("own/app", OWN), ("strange/app", STRANGE)] {
            let root = self.caller("root");
            root.delete(&format!("/v1/repositories/{repository}/")).expect(200);
            let list = format!("[{{\"id\":\"{id}\"}}]");
            root.send("PUT", &format!("/v1/repositories/{repository}/"), &[], list.as_bytes()).expect(200);
            let json = format!("{{\"id\":\"{id}\"}}");
            root.send("PUT", &format!("/v1/images/{id}/json"), &[], json.as_bytes()).expect(200);
        }
    }

    fn caller(&self, name: &str) -> Client {
        match name {
            "anonymous" => self.gate.tls(),
            name => self.gate.tls().user(name, name),
        }
    }

    /// The token of this caller for a repository, as the index gives it; nothing, where it gives none.
    fn token(&self, caller: &str, repository: &str, needs: Needs) -> Option<String> {
        let client = self.caller(caller);
        let answer = match needs {
            Needs::Pull => client.get(&format!("/v1/repositories/{repository}/images")),
            Needs::Push => client.send("PUT", &format!("/v1/repositories/{repository}/"), &[], b"[]"),
            Needs::Delete => client.delete(&format!("/v1/repositories/{repository}/")),
        };
        let token = answer.header("x-docker-token").map(str::to_owned);
        assert_eq!(token.is_some(), answer.status == 200, "{caller} {repository} {needs:?}: {answer:?}");
        assert!(token.is_none() || may(caller, repository, needs) || repository.starts_with("common"), "{caller}");
        token
    }

    fn with(&self, token: &str) -> Client {
        self.gate.tls().with("Authorization", &format!("Token {token}"))
    }

    /// A token that says it is for this, with a signature for something else.
    fn forged(&self, caller: &str, repository: &str, needs: Needs) -> String {
        let own = self.foreign(caller);
        let signature = own.split("signature=").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let access = match needs {
            Needs::Pull => "read",
            Needs::Push => "write",
            Needs::Delete => "delete",
        };
        format!("Token signature={signature},repository=\"{repository}\",access={access}")
    }

    /// A token for a repository that is not asked for.
    fn foreign(&self, caller: &str) -> String {
        match caller {
            "anonymous" => {
                let answer = self.gate.tls().get("/v1/repositories/public/app/images").expect(200);
                answer.header("x-docker-token").unwrap().to_owned()
            }
            caller => self.token(caller, "common/app", Needs::Push).unwrap(),
        }
    }
}

fn body(path: &str) -> String {
    match path {
        path if path.ends_with("/tags/1.0") => format!("\"{}\"", if path.contains("/own/") { OWN } else { STRANGE }),
        path if path.starts_with("/v1/images/") => format!("{{\"id\":\"{}\"}}", path.split('/').nth(3).unwrap()),
        _ => "[]".into(),
    }
}

fn call(client: &Client, method: &str, path: &str) -> Answer {
    let body = if method == "PUT" { body(path) } else { String::new() };
    client.send(method, path, &[], body.as_bytes())
}

/// The ways to say who one is: what is said, and what becomes of `expected`.
fn check(house: &House, cell: &Cell<'_>, wrong: &mut Vec<String>) {
    let Cell { caller, method, path, repository, needs, expected, by_foreign, restores } = cell;
    let mut ask = |how: &str, client: Client, expected: u16| {
        let before = house.upstream.asked().len();
        let answer = call(&client, method, path);
        // What is not there is 404 to those who may, too: that it was not looked for is what shows that they may not.
        let is_asked = house.upstream.asked().len() > before;
        if is_asked && (how == "forged token" || how == "password" && !may(caller, repository, *needs)) {
            wrong.push(format!("{caller} by {how}: {method} {path} may not, and the registry was asked"));
        }
        if answer.status != expected {
            wrong.push(format!(
                "{caller} by {how}: {method} {path}: {} and not {expected}: {}",
                answer.status,
                answer.text()
            ));
        }
        let writes = house.upstream.asked().into_iter().skip(before).filter(|asked| asked.method != "GET").count();
        if matches!(answer.status, 401 | 403) && writes > 0 {
            wrong.push(format!("{caller} by {how}: {method} {path} was refused and changed something"));
        }
        if *restores && answer.status < 400 {
            house.restore();
        }
    };
    ask("password", house.caller(caller), *expected);
    if let Some(token) = house.token(caller, repository, *needs) {
        if *needs == Needs::Delete {
            house.restore();
        }
        ask("token", house.with(&token), *expected);
        ask("token, once", house.with(token.trim_start_matches("Token ")), *expected);
    } else if repository.ends_with("/app") {
        assert!(!may(caller, repository, *needs), "{caller} gets no token for {repository}");
    }
    ask("forged token", house.with(&house.forged(caller, repository, *needs)), 401);
    ask("token of another repository", house.with(&house.foreign(caller)), *by_foreign);
}

struct Cell<'a> {
    caller: &'a str,
    method: &'a str,
    path: String,
    repository: &'a str,
    needs: Needs,
    expected: u16,
    by_foreign: u16,
    restores: bool,
}

#[test]
fn every_route_of_every_repository() {
    let house = House::start();
    let mut wrong = Vec::new();
    for (method, rest, needs, missing) in repository_routes() {
        for repository in REPOSITORIES {
            for caller in CALLERS {
                let is_there = repository.ends_with("/app");
                let expected = match may(caller, repository, needs) {
                    // It does nothing.
                    true if (method, rest) == ("DELETE", "images") => 204,
                    true if is_there => 200,
                    // Whoever may, names an image of their own.
                    true if method == "PUT" && rest == "tags/1.0" => 200,
                    true => missing,
                    false => refusal(caller, repository, needs),
                };
                let path = format!("/v1/repositories/{repository}/{rest}");
                let restores = needs == Needs::Delete;
                // Who may needs another token; who may not is told no more than by the password.
                let by_foreign = if may(caller, repository, needs) { 401 } else { refusal(caller, repository, needs) };
                check(
                    &house,
                    &Cell { caller, method, path, repository, needs, expected, by_foreign, restores },
                    &mut wrong,
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_route_of_every_image() {
    let house = House::start();
    let mut wrong = Vec::new();
    for (method, word, needs) in IMAGE_ROUTES {
        for (repository, id) in [("own/app", OWN), ("strange/app", STRANGE)] {
            for caller in CALLERS {
                let begins = method == "PUT" && word == "json";
                let expected = match may(caller, repository, needs) {
                    // Who may read it is told that it is there, and others to say whose it is to be.
                    true if begins => 409,
                    true => 200,
                    false if begins && may(caller, repository, Needs::Pull) => 409,
                    false if begins && caller != "anonymous" => 403,
                    false => refusal(caller, repository, Needs::Pull),
                };
                let by_foreign = match caller {
                    "anonymous" => 401,
                    _ if begins => 403,
                    _ => 404,
                };
                let path = format!("/v1/images/{id}/{word}");
                let cell = Cell { caller, method, path, repository, needs, expected, by_foreign, restores: false };
                check(&house, &cell, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Of an image that is nowhere: whoever says for which repository it is may begin it, if they may push there.
#[test]
fn every_route_of_an_image_that_is_nowhere() {
    let house = House::start();
    let (mut wrong, mut fresh) = (Vec::new(), 0_u64);
    for (method, word, needs) in IMAGE_ROUTES {
        for caller in CALLERS {
            let (begins, anonymous) = (method == "PUT" && word == "json", caller == "anonymous");
            let refused = if anonymous { 401 } else { 404 };
            let mut ask = |how: &str, client: Client, expected: u16| {
                fresh += 1;
                let path = format!("/v1/images/{fresh:016x}/{word}");
                let status = call(&client, method, &path).status;
                if status != expected {
                    wrong.push(format!("{caller} by {how}: {method} {path}: {status} and not {expected}"));
                }
            };
            // Who may do everything is answered by the registry, which takes what it gets here; but not what is nobody's.
            let by_password = match caller {
                _ if begins && !anonymous => 403,
                "root" if needs == Needs::Push => 200,
                _ => refused,
            };
            ask("password", house.caller(caller), by_password);
            if let Some(token) = house.token(caller, "own/app", needs) {
                ask("token", house.with(&token), if begins { 200 } else { 404 });
            }
            ask("forged token", house.with(&house.forged(caller, "own/app", needs)), 401);
            // It is begun in the repository of the token.
            let by_foreign = if begins && !anonymous { 200 } else { refused };
            ask("token of another repository", house.with(&house.foreign(caller)), by_foreign);
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A token is good until its life ends, whether or not the gateway was started anew meanwhile.
#[test]
fn a_token_of_before_a_restart_is_good_until_its_end() {
    let house = House::start();
    let mut tokens = Vec::new();
    let before = Instant::now();
    for caller in CALLERS {
        for (repository, needs) in [("own/app", Needs::Pull), ("own/app", Needs::Push), ("strange/app", Needs::Push)] {
            tokens.extend(house.token(caller, repository, needs).map(|token| (caller, repository, needs, token)));
        }
        tokens.push((caller, "public/app", Needs::Pull, house.foreign(caller)));
    }
    let after = Instant::now();
    let House { gate, upstream, known } = house;
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    let house = House { gate: prepared.start(), upstream, known };
    let path = |repository: &str, needs: Needs| match needs {
        Needs::Pull => ("GET", format!("/v1/repositories/{repository}/tags")),
        _ => ("PUT", format!("/v1/repositories/{repository}/properties")),
    };
    for (caller, repository, needs, token) in tokens.iter().filter(|(_, repository, ..)| *repository != "public/app") {
        let (method, path) = path(repository, *needs);
        call(&house.with(token), method, &path).expect(200);
        let id = if *repository == "own/app" { OWN } else { STRANGE };
        house.with(token).get(&format!("/v1/images/{id}/layer")).expect(200);
        assert!(before.elapsed() < LIFETIME, "{caller}: this took longer than a token lives");
    }
    std::thread::sleep((LIFETIME + Duration::from_secs(2)).saturating_sub(after.elapsed()));
    for (caller, repository, needs, token) in &tokens {
        let mut paths = vec![path(repository, *needs)];
        for id in [OWN, STRANGE] {
            paths.extend(IMAGE_ROUTES.map(|(method, word, _)| (method, format!("/v1/images/{id}/{word}"))));
        }
        for (method, rest, ..) in repository_routes() {
            paths.extend(REPOSITORIES.map(|repository| (method, format!("/v1/repositories/{repository}/{rest}"))));
        }
        paths.extend([
            ("GET", "/v1/users/".into()),
            ("GET", "/v1/search?q=a".into()),
            ("PUT", "/v1/users/dev/".into()),
        ]);
        for (method, path) in paths {
            let answer = call(&house.with(token), method, &path).expect(401);
            let challenge = answer.header("www-authenticate");
            assert_eq!(
                challenge,
                Some("Basic realm=\"dockgate\""),
                "{caller}: {method} {path} makes the client log in"
            );
            assert!(
                method == "HEAD" || answer.json()["error"].as_str().unwrap().contains("log in again"),
                "{answer:?}"
            );
        }
    }
}
