//! Every route × verb × caller × repository, against an oracle that knows only the rules (threat A1).

use super::support::content::{self, digest, manifest, push_image, put_manifest};
use super::support::gate::{ADA, Prepared};
use super::support::{Answer, Client, Gate};

const RULES: &str = r#"
[[access]]
who = ["user:puller", "user:pusher", "user:creator", "user:deleter"]
repositories = ["own/**"]
actions = ["pull"]
[[access]]
who = ["user:pusher"]
repositories = ["own/**"]
actions = ["push"]
[[access]]
who = ["user:creator"]
repositories = ["own/**"]
actions = ["create"]
[[access]]
who = ["user:deleter"]
repositories = ["own/**"]
actions = ["delete"]
[[access]]
who = ["user:root"]
repositories = ["**"]
actions = ["*"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
"#;

const CALLERS: [&str; 7] = ["anonymous", "nobody", "puller", "pusher", "creator", "deleter", "root"];
const REPOSITORIES: [&str; 4] = ["own/app", "own/missing", "other/app", "other/missing"];
const ID: &str = "0123456789abcdef0123456789abcdef";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Needs {
    Pull,
    /// Push, or create where nothing is moved.
    Write,
    /// Push: a tag would be moved.
    Move,
    Delete,
}

struct Row {
    method: &'static str,
    path: &'static str,
    needs: Needs,
    /// What who may gets where the image is, and where nothing is.
    present: u16,
    missing: u16,
}

const fn row(method: &'static str, path: &'static str, needs: Needs, present: u16, missing: u16) -> Row {
    Row { method, path, needs, present, missing }
}

const ROWS: [Row; 20] = [
    row("GET", "tags/list", Needs::Pull, 200, 404),
    row("HEAD", "tags/list", Needs::Pull, 200, 404),
    row("GET", "manifests/v1", Needs::Pull, 200, 404),
    row("HEAD", "manifests/v1", Needs::Pull, 200, 404),
    row("GET", "manifests/MANIFEST", Needs::Pull, 200, 404),
    row("GET", "blobs/CONFIG", Needs::Pull, 200, 404),
    row("HEAD", "blobs/CONFIG", Needs::Pull, 200, 404),
    row("GET", "referrers/MANIFEST", Needs::Pull, 200, 200),
    row("PUT", "manifests/v1", Needs::Move, 201, 201),
    row("PUT", "manifests/new", Needs::Write, 201, 201),
    row("PUT", "manifests/OTHER", Needs::Write, 201, 201),
    row("POST", "blobs/uploads/", Needs::Write, 202, 202),
    row("POST", "blobs/uploads/?mount=CONFIG&from=other/app", Needs::Write, 202, 202),
    row("GET", "blobs/uploads/ID", Needs::Write, 404, 404),
    row("PATCH", "blobs/uploads/ID", Needs::Write, 404, 404),
    row("PUT", "blobs/uploads/ID?digest=CONFIG", Needs::Write, 404, 404),
    row("DELETE", "blobs/uploads/ID", Needs::Write, 404, 404),
    row("DELETE", "manifests/v1", Needs::Delete, 202, 404),
    row("DELETE", "manifests/MANIFEST", Needs::Delete, 202, 404),
    row("DELETE", "blobs/CONFIG", Needs::Delete, 202, 404),
];

/// What the rules above say, written once more and differently.
fn may(caller: &str, repository: &str, needs: Needs, tag_exists: bool) -> bool {
    match caller {
        "root" => true,
        "anonymous" | "nobody" => false,
        _ if !repository.starts_with("own/") => false,
        _ => match needs {
            Needs::Pull => true,
            Needs::Write => caller == "pusher" || caller == "creator",
            Needs::Move => caller == "pusher" || (caller == "creator" && !tag_exists),
            Needs::Delete => caller == "deleter",
        },
    }
}

fn expected(caller: &str, repository: &str, row: &Row) -> u16 {
    let present = repository.ends_with("/app");
    match (may(caller, repository, row.needs, present), caller) {
        (true, "root") if row.path.contains("mount=") => 201,
        (true, _) if present => row.present,
        (true, _) => row.missing,
        (false, "anonymous") => 401,
        (false, _) if row.needs == Needs::Pull => 404,
        (false, _) => 403,
    }
}

struct House {
    gate: Gate,
    root: Client,
}

fn house() -> House {
    let prepared: Prepared = Gate::prepare(RULES);
    let users: Vec<String> = CALLERS[1..].iter().map(|name| ADA.replace("ada:", &format!("{name}:"))).collect();
    prepared.write("htpasswd", &(users.join("\n") + "\n"));
    let gate = prepared.start();
    let root = gate.tls().user("root", "ada");
    House { gate, root }
}

/// The blobs that the pushed manifests need are in every repository; "missing" means that no manifest is.
fn other_manifest() -> Vec<u8> {
    manifest(&[b"{}", b"a layer", b"a layer"])
}

fn call(client: &Client, row: &Row, repository: &str) -> Answer {
    let image = manifest(&[b"{}", b"a layer"]);
    let (body, reference) = match row.needs {
        Needs::Write | Needs::Move if row.path.starts_with("manifests/") => {
            (other_manifest(), digest(&other_manifest()))
        }
        _ => (Vec::new(), String::new()),
    };
    let path = row.path.replace("MANIFEST", &digest(&image)).replace("CONFIG", &digest(b"{}"));
    let path = path.replace("OTHER", &reference).replace("ID", ID);
    let kind = [("Content-Type", content::OCI_MANIFEST)];
    client.send(row.method, &format!("/v2/{repository}/{path}"), &kind, &body)
}

/// Brings a repository back to what the row expects: the image in `…/app`, nothing but blobs in `…/missing`.
fn restore(root: &Client, repository: &str, row: &Row) {
    let writes = matches!(row.needs, Needs::Write | Needs::Move) && row.path.starts_with("manifests/");
    if repository.ends_with("/app") {
        push_image(root, repository, "v1");
    } else if writes {
        content::push_blob(root, repository, b"{}");
        content::push_blob(root, repository, b"a layer");
    } else {
        root.delete(&format!("/v2/{repository}/blobs/{}", digest(b"{}")));
    }
    for reference in [digest(&other_manifest()), "new".into()] {
        root.delete(&format!("/v2/{repository}/manifests/{reference}"));
    }
}

fn token(gate: &Gate, caller: &Client) -> Client {
    let scopes: String =
        REPOSITORIES.iter().map(|repository| format!("&scope=repository:{repository}:pull,push,delete")).collect();
    let answer = caller.get(&format!("/token?service=dockgate&scope=registry:catalog:*{scopes}")).expect(200);
    gate.tls().with("Authorization", &format!("Bearer {}", answer.json()["token"].as_str().unwrap()))
}

fn check(house: &House, callers: impl Fn(&str) -> Client) {
    let mut wrong = Vec::new();
    for row in &ROWS {
        for repository in REPOSITORIES {
            for caller in CALLERS {
                restore(&house.root, repository, row);
                let before = strip_id(&house.root.get(&format!("/v2/{repository}/tags/list")).text());
                let answer = call(&callers(caller), row, repository);
                let expected = expected(caller, repository, row);
                if answer.status != expected {
                    let (method, path) = (row.method, row.path);
                    wrong.push(format!("{caller}: {method} {repository}/{path}: {} and not {expected}", answer.status));
                }
                let after = strip_id(&house.root.get(&format!("/v2/{repository}/tags/list")).text());
                if matches!(answer.status, 401 | 403) && before != after {
                    wrong.push(format!(
                        "{caller}: {} {repository}/{} was refused and changed tags",
                        row.method, row.path
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_cell_of_the_matrix_is_as_the_rules_say() {
    let house = house();
    check(&house, |caller| match caller {
        "anonymous" => house.gate.tls(),
        name => house.gate.tls().user(name, "ada"),
    });
}

#[test]
fn a_token_of_everything_allows_what_its_user_may() {
    let house = house();
    let tokens: Vec<(&str, Client)> = CALLERS
        .iter()
        .map(|caller| match *caller {
            "anonymous" => ("anonymous", token(&house.gate, &house.gate.tls())),
            name => (name, token(&house.gate, &house.gate.tls().user(name, "ada"))),
        })
        .collect();
    check(&house, |caller| tokens.iter().find(|(name, _)| *name == caller).unwrap().1.clone());
}

#[test]
fn hidden_looks_like_missing() {
    let house = house();
    push_image(&house.root, "other/app", "v1");
    let nobody = house.gate.tls().user("nobody", "ada");
    for row in &ROWS {
        let (there, not_there) = (call(&nobody, row, "other/app"), call(&nobody, row, "other/missing"));
        let plain = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| name != "x-request-id" && name != "date");
            headers.retain(|(name, _)| name != "content-length");
            let text = strip_id(&answer.text()).replace("other/app", "NAME").replace("other/missing", "NAME");
            (answer.status, headers, text)
        };
        assert_eq!(plain(&there), plain(&not_there), "{} {}", row.method, row.path);
        assert_eq!(there.status, if row.needs == Needs::Pull { 404 } else { 403 });
    }
    // And like what somebody is told who may pull, of a repository that is not there.
    let puller = house.gate.tls().user("puller", "ada").get("/v2/own/missing/manifests/v1").expect(404);
    let hidden = nobody.get("/v2/other/app/manifests/v1").expect(404);
    assert_eq!(strip_id(&puller.text()), strip_id(&hidden.text()));
}

fn strip_id(text: &str) -> String {
    let Some(at) = text.find("(request ") else { return text.to_owned() };
    let end = text[at..].find(')').map_or(text.len(), |end| at + end);
    format!("{}{}", &text[..at], &text[end..])
}

#[test]
fn a_blob_known_only_by_its_digest_is_not_to_be_had() {
    let house = house();
    let secret = digest(b"{}");
    push_image(&house.root, "other/app", "v1");
    let pusher = house.gate.tls().user("pusher", "ada");
    pusher.get(&format!("/v2/own/app/blobs/{secret}")).expect(404);
    pusher.head(&format!("/v2/own/app/blobs/{secret}")).expect(404);
    let mount = format!("/v2/own/app/blobs/uploads/?mount={secret}&from=other/app");
    pusher.send("POST", &mount, &[], b"").expect(202);
    pusher.get(&format!("/v2/own/app/blobs/{secret}")).expect(404);
    // A manifest that names it does not bring it in either.
    let image = manifest(&[b"{}", b"a layer"]);
    assert_eq!(put_manifest(&pusher, "own/app", "v1", &image).expect(400).code(), "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn uploads_belong_to_who_began_them() {
    let house = house();
    let pusher = house.gate.tls().user("pusher", "ada");
    let location = content::begin(&pusher, "own/app");
    let elsewhere = location.replace("own/app", "own/missing");
    for (client, location) in
        [(&house.gate.tls().user("creator", "ada"), &location), (&house.root, &location), (&pusher, &elsewhere)]
    {
        for (method, path) in [
            ("GET", location.clone()),
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={}", digest(b""))),
            ("DELETE", location.clone()),
        ] {
            assert_eq!(client.send(method, &path, &[], b"").expect(404).code(), "BLOB_UPLOAD_UNKNOWN");
        }
    }
    pusher.get(&location).expect(204);
}

#[test]
fn the_user_agent_opens_nothing() {
    let house = house();
    push_image(&house.root, "other/app", "v1");
    for agent in ["", "docker/1.5.0 go/go1.4", "Go 1.1 package http", "skopeo/1.9.3", &"x".repeat(8000)] {
        let client = house.gate.tls().with("User-Agent", agent);
        assert!(matches!(client.get("/v2/other/app/manifests/v1").status, 401 | 404), "{agent}");
        assert!(matches!(client.get("/v1/repositories/other/app/tags").status, 401 | 404), "{agent}");
    }
}

#[test]
fn the_catalog_shows_what_the_caller_may_see() {
    let house = house();
    for repository in ["own/app", "other/app", "public/app"] {
        push_image(&house.root, repository, "v1");
    }
    let names = |client: &Client| client.get("/v2/_catalog").expect(200).json()["repositories"].to_string();
    assert_eq!(names(&house.root), r#"["other/app","own/app","public/app"]"#);
    assert_eq!(names(&house.gate.tls().user("puller", "ada")), r#"["own/app","public/app"]"#);
    assert_eq!(names(&token(&house.gate, &house.gate.tls())), r#"["public/app"]"#);
    house.gate.tls().get("/v2/_catalog").expect(401);
}
