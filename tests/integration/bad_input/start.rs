//! What keeps the program from starting; `dockgate check` says the same before, where it can be known before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::says;
use crate::support::Gate;
use crate::support::content::push_image;
use crate::support::gate::{ADA, Prepared, files, wait_until};

const DATA: i32 = 65;
const UNAVAILABLE: i32 = 69;
const TRY_AGAIN: i32 = 75;
const CONFIG: i32 = 78;

/// `serve` and `check` both refuse, with this code and these words, and neither makes any data.
#[track_caller]
fn refused(prepared: &Prepared, code: i32, words: &[&str]) {
    for command in ["check", "serve"] {
        let (found, text) = prepared.fail(&[command]);
        assert_eq!(found, code, "{command}: {text}");
        says(&text, words);
        assert!(text.starts_with("dockgate: "), "{command}: {text}");
    }
}

/// Every file below a directory, with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(directory).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_port_in_use() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    for (section, name) in [("[listen.main]", "main"), ("[admin]", "admin")] {
        let prepared = Gate::prepare(&format!("{section}\naddress = \"{address}\"\n"));
        let (code, text) = prepared.fail(&["serve"]);
        assert_eq!(code, UNAVAILABLE, "{text}");
        let port = format!("sport = :{}", address.port());
        says(&text, &[&address.to_string(), "another program listens there", &port, name, "address"]);
        assert!(!prepared.path("data").exists(), "nothing is made");
        // The port may be ours: a configuration is checked while it is in force.
        assert_eq!(prepared.succeed(&["check"]), "the configuration is good\n");
        assert!(!prepared.path("data").exists(), "nothing is made");
    }
}

/// A certificate and its key, made by the program itself.
fn certificate(prepared: &Prepared, name: &str) {
    prepared.succeed(&["cert", "init"]);
    for extension in ["crt", "key"] {
        let made = prepared.path("certs").join("server").with_extension(extension);
        fs::rename(made, prepared.path(&format!("{name}.{extension}"))).unwrap();
    }
}

fn with_certificate(prepared: &Prepared, certificate: &str, key: &str) {
    prepared.configure(&format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"));
}

#[test]
fn a_key_that_cannot_be_read() {
    let prepared = Gate::prepare("");
    certificate(&prepared, "own");
    with_certificate(&prepared, "own.crt", "missing.key");
    let missing = prepared.path("missing.key").display().to_string();
    refused(&prepared, CONFIG, &["cannot read", &missing, "check the path and who may read it"]);
    fs::create_dir(prepared.path("missing.key")).unwrap();
    refused(&prepared, CONFIG, &["cannot read", &missing]);
    with_certificate(&prepared, "own.crt", "own.crt");
    refused(&prepared, CONFIG, &["no private key", "BEGIN PRIVATE KEY"]);
    with_certificate(&prepared, "own.key", "own.key");
    refused(&prepared, CONFIG, &["no certificate", "BEGIN CERTIFICATE"]);
    prepared.write("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    with_certificate(&prepared, "own.crt", "bad.key");
    refused(&prepared, CONFIG, &["bad.key", "cannot be used"]);
    with_certificate(&prepared, "own.crt", "own.key");
    let gate = prepared.start();
    gate.plain().get("/v2/").expect(401);
}

/// Root may read everything, unless it gives that up.
#[test]
fn a_key_that_somebody_else_owns() {
    let prepared = Gate::prepare("");
    certificate(&prepared, "own");
    with_certificate(&prepared, "own.crt", "own.key");
    fs::set_permissions(prepared.path("own.key"), PermissionsExt::from_mode(0o000)).unwrap();
    let inner = prepared.command(&["check"]);
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.arg(inner.get_program()).args(inner.get_args());
    let output = command.output().expect("setpriv is needed; tests/install.sh installs it (util-linux)");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(CONFIG), "{text}");
    says(&text, &["cannot read", "own.key", "permission denied", "check the path and who may read it"]);
}

#[test]
fn a_key_of_another_certificate() {
    let prepared = Gate::prepare("");
    certificate(&prepared, "own");
    certificate(&prepared, "other");
    with_certificate(&prepared, "own.crt", "other.key");
    refused(&prepared, CONFIG, &["other.key", "does not belong to", "own.crt", "take the key that it was issued for"]);
    prepared.configure("[tls]\ncertificate = \"own.crt\"\n");
    refused(&prepared, CONFIG, &["gateway.toml:", "tls", "key"]);
}

#[test]
fn a_costly_hash_in_htpasswd_is_told_and_taken() {
    let prepared = Gate::prepare("");
    prepared.write(
        "htpasswd",
        &format!("{ADA}\n{}\n{}\n", ADA.replace("ada:$2y$04", "bob:$2y$12"), ADA.replace("ada:$2y$04", "eve:$2y$13")),
    );
    let output = prepared.run(&["check"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let place = format!("warning: {}:3: user \"eve\": ", prepared.path("htpasswd").display());
    says(&said, &[&place, "cost is 13", "8 times as late as with 10", "`dockgate user add NAME`"]);
    assert!(!said.contains("bob"), "{said}");
}

#[test]
fn a_broken_line_in_htpasswd() {
    let cases = [
        ("eve", "no colon"),
        ("eve:secret-in-clear", "only bcrypt is taken"),
        ("eve:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
        ("eve:$apr1$zzzzzzzz$QW5kIHRoZSBzaGFkb3cuL.", "MD5"),
        ("eve:$2y$31$V/beqf6odThiu48mpJBXXOIFeHdi4jsD/XhqncLqdj3z7EAD8zde2", "cost is 31"),
        (ADA, "stands on line 1 too"),
    ];
    for (line, word) in cases {
        let prepared = Gate::prepare("");
        let text = format!("{ADA}\n# a comment\n{line}\n");
        prepared.write("htpasswd", &text);
        let place = format!("{}:3: ", prepared.path("htpasswd").display());
        let (code, said) = prepared.fail(&["check"]);
        assert_eq!(code, CONFIG, "{said}");
        says(&said, &[&place, word]);
        assert!(!said.contains("secret-in-clear") && !said.contains("5en6G6Me"), "a secret is told: {said}");
        // It starts, and all but who is on that line are let in.
        let gate = prepared.start();
        gate.wait_for_log(&place);
        assert_eq!(gate.plain().user("ada", "ada").get("/v2/").status, if line == ADA { 401 } else { 200 }, "{line}");
        assert_eq!(fs::read_to_string(gate.path("htpasswd")).unwrap(), text, "nothing is changed");
        assert!(!gate.path("data/initial-password").exists(), "there are users already");
    }
}

#[test]
fn a_second_process_on_the_same_data() {
    let prepared = Gate::prepare("");
    let gate = prepared.start();
    let image = push_image(&gate.root(), "app", "v1");
    let kept = || {
        let mut all = contents(&prepared.path("certs"));
        all.extend(contents(&prepared.path("data/blobs")));
        let names = ["htpasswd", "data/initial-password", "data/lock", "data/version"];
        all.extend(names.map(|name| (prepared.path(name), fs::read(prepared.path(name)).unwrap())));
        all
    };
    let before = kept();
    let (code, text) = prepared.fail(&["serve"]);
    assert_eq!(code, TRY_AGAIN, "{text}");
    let holder = format!("in use by process {}", gate.id());
    says(
        &text,
        &[&prepared.path("data").display().to_string(), &holder, "stop it, or give this one another directory"],
    );
    assert_eq!(kept(), before);
    // Nor does it make a user, should there be none by now, whose password nobody could use.
    let users = fs::read(prepared.path("htpasswd")).unwrap();
    fs::remove_file(prepared.path("htpasswd")).unwrap();
    assert_eq!(prepared.fail(&["serve"]).0, TRY_AGAIN);
    assert!(!prepared.path("htpasswd").exists());
    fs::write(prepared.path("htpasswd"), users).unwrap();
    assert_eq!(kept(), before);
    assert_eq!(prepared.succeed(&["check"]), "the configuration is good\n");
    wait_until("the users to be read again", || gate.root().get("/v2/").status == 200);
    let answer = gate.root().get("/v2/app/manifests/v1").expect(200);
    assert_eq!(answer.header("docker-content-digest"), Some(&*image));
    // Once the first has gone, the second may come.
    assert_eq!(gate.stop(), 0);
    prepared.start().root().get("/v2/app/manifests/v1").expect(200);
}

#[test]
fn a_broken_gateway_toml() {
    let cases = [
        ("[listen.main]\nadress = \"127.0.0.1:0\"", "2:1: listen.main.adress", "did you mean \"address\"?"),
        ("[limit]\nuploads = 3", "1:2: limit", "did you mean \"limits\"?"),
        ("[limits]\nuploads = \"many\"", "2:11: limits.uploads", "it takes"),
        ("[limits]\ndrain_timeout = 60", "2:17: limits.drain_timeout", "\"10s\""),
        ("[listen.main]\nprotocol = \"tsl\"", "2:12: listen.main.protocol", "did you mean \"tls\"?"),
        ("[registry]\n delete = true\ndelete = false", "3:1", "duplicate"),
        ("[registry\n", "1:10", "not TOML"),
        ("[[access]]\nwho = [\"admin\"]\nrepositories = [\"**\"]\nactions = [\"*\"]", "2:8", "user:"),
        (
            "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"pul\"]",
            "4:12",
            "it takes one of \"pull\"",
        ),
    ];
    for (text, place, words) in cases {
        let prepared = Gate::prepare("");
        prepared.write("gateway.toml", text);
        let place = format!("{}:{place}", prepared.path("gateway.toml").display());
        refused(&prepared, CONFIG, &[&place, words]);
        for other in [&["user", "list"][..], &["cert", "show"]] {
            let (code, said) = prepared.fail(other);
            assert_eq!(code, CONFIG, "{other:?}: {said}");
            says(&said, &[&place, words]);
        }
        assert!(!prepared.path("data").exists() && !prepared.path("certs").exists(), "nothing is made");
    }
    let missing = Gate::prepare("");
    fs::remove_file(missing.path("gateway.toml")).unwrap();
    refused(&missing, CONFIG, &["gateway.toml", "cannot be read"]);
}

#[test]
fn data_of_a_newer_version() {
    let prepared = Gate::prepare("");
    prepared.write("htpasswd", &format!("{ADA}\n"));
    assert_eq!(prepared.start().stop(), 0);
    prepared.write("data/version", "99\n");
    let before = contents(&prepared.path("data"));
    let (code, text) = prepared.fail(&["serve"]);
    assert_eq!(code, DATA, "{text}");
    says(&text, &["data format 99", "newer dockgate", "run that version"]);
    let mut after = contents(&prepared.path("data"));
    // The lock names whoever took it last.
    after.insert(prepared.path("data/lock"), before[&prepared.path("data/lock")].clone());
    assert_eq!(after, before);
}

#[test]
fn a_wrong_command_line() {
    let prepared = Gate::prepare("");
    for (arguments, words) in [(&["sreve"][..], "serve"), (&["serve", "--confg", "x"], "--config"), (&[], "Usage")] {
        let output = Command::new(env!("CARGO_BIN_EXE_dockgate")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {text}");
        says(&text, &[words]);
    }
    assert!(!prepared.path("data").exists());
}
