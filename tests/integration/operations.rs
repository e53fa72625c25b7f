//! What an operator meets: reloads half of which is bad, checks, certificates that end, and the words of the program.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::support::gate::{ADA, Prepared, wait_until};
use super::support::{Client, Gate};

/// Rules under which anyone may do `actions` everywhere.
fn rules(actions: &str) -> String {
    format!("[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [{actions}]\n")
}

const OWN: &str = "[tls]\ncertificate = \"own.crt\"\nkey = \"own.key\"\n";

/// Writes a certificate for `names` that signed itself, good for `days` from now on (or until some days ago).
fn own_certificate(prepared: &Prepared, names: &[&str], days: i64) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = OffsetDateTime::now_utc() - Duration::days(100);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days) + Duration::hours(1);
    prepared.write("own.key", &key.serialize_pem());
    prepared.write("own.crt", &params.self_signed(&key).unwrap().pem());
}

fn is_served(gate: &Gate, certificate: &Path) -> bool {
    let client = Client::tls(gate.main, certificate);
    client.try_send("GET", "/v2/", &[], b"").is_ok_and(|answer| answer.status == 401)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn password(text: &str) -> std::process::Stdio {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::File::open(file.path()).unwrap().into()
}

/// Root reads whatever the mode says, so the file is made something that is none.
fn make_users_unreadable(prepared: &Prepared) {
    // At once: were there neither for a moment, there would be no users.
    let (users, other) = (prepared.path("htpasswd"), prepared.path("a-directory"));
    std::fs::create_dir(&other).unwrap();
    rustix::fs::renameat_with(rustix::fs::CWD, &users, rustix::fs::CWD, &other, rustix::fs::RenameFlags::EXCHANGE)
        .unwrap();
}

#[test]
fn a_certificate_and_rules_were_lost_while_the_htpasswd_was_unreadable() {
    let prepared = Gate::prepare(OWN);
    prepared.write("htpasswd", &format!("{ADA}\n"));
    own_certificate(&prepared, &["localhost"], 90);
    let gate = prepared.start();
    assert!(is_served(&gate, &prepared.path("own.crt")));
    make_users_unreadable(&prepared);
    gate.wait_for_log("htpasswd: not a file");
    own_certificate(&prepared, &["localhost"], 91);
    wait_until("the new certificate", || is_served(&gate, &prepared.path("own.crt")));
    prepared.configure(&format!("{OWN}{}", rules("\"pull\"")));
    let client = Client::tls(gate.main, &prepared.path("own.crt"));
    wait_until("the new rules", || client.get("/v2/app/tags/list").status == 404);
    client.user("ada", "ada").get("/v2/").expect(200);
}

#[test]
fn users_were_not_read_again_once_their_file_was_mended() {
    let groups = |users: &str| {
        format!(
            "{}[identity]\ngroups = {{ ops = [{users}] }}\n",
            rules("\"pull\"").replace("anyone", "group:ops").replace("pull", "pull\", \"push")
        )
    };
    let prepared = Gate::prepare(&groups(""));
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let ada = gate.tls().user("ada", "ada");
    let pushes = || ada.send("POST", "/v2/app/blobs/uploads/", &[], b"").status;
    assert_eq!(pushes(), 403);
    make_users_unreadable(&prepared);
    gate.wait_for_log("htpasswd: not a file");
    prepared.configure(&groups("\"ada\""));
    gate.wait_for_log("the new users are not good");
    assert_eq!(pushes(), 403);
    std::fs::remove_dir(prepared.path("htpasswd")).unwrap();
    prepared.write("htpasswd", &format!("{ADA}\n# mended\n"));
    wait_until("the new group", || pushes() == 202);
}

#[test]
fn a_new_rule_was_given_to_the_old_members_of_its_group() {
    let config = |users: &str, actions: &str| {
        format!("{}[identity]\ngroups = {{ ops = [{users}] }}\n", rules(actions).replace("anyone", "group:ops"))
    };
    let prepared = Gate::prepare(&config("\"ada\"", "\"pull\""));
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    let pushes = || gate.tls().user("ada", "ada").send("POST", "/v2/app/blobs/uploads/", &[], b"").status;
    make_users_unreadable(&prepared);
    gate.wait_for_log("htpasswd: not a file");
    prepared.configure(&config("", "\"pull\", \"push\""));
    gate.wait_for_log("the new users are not good");
    assert_eq!(pushes(), 403, "who left the group gets nothing new");
    prepared.configure(&config("\"ada\"", "\"pull\", \"push\""));
    wait_until("the groups to be as they were, and the rules to be new", || pushes() == 202);
}

#[test]
fn a_certificate_was_lost_while_the_configuration_was_broken() {
    let prepared = Gate::prepare(OWN);
    own_certificate(&prepared, &["localhost"], 90);
    let gate = prepared.start();
    prepared.write("gateway.toml", "[listen.main]\nadress = \"127.0.0.1:0\"\n");
    gate.wait_for_log("did you mean");
    own_certificate(&prepared, &["localhost"], 91);
    wait_until("the new certificate", || is_served(&gate, &prepared.path("own.crt")));
}

#[test]
fn a_certificate_that_is_mended_is_taken() {
    let prepared = Gate::prepare(OWN);
    own_certificate(&prepared, &["localhost"], 90);
    let gate = prepared.start();
    let good = prepared.path("good.crt");
    std::fs::copy(prepared.path("own.crt"), &good).unwrap();
    prepared.write("own.crt", "nonsense");
    gate.wait_for_log("tls.certificate");
    assert!(is_served(&gate, &good), "the old one goes on");
    own_certificate(&prepared, &["localhost"], 91);
    wait_until("the new certificate", || is_served(&gate, &prepared.path("own.crt")));
}

#[test]
fn a_file_of_users_that_is_gone_is_a_warning() {
    let prepared = Gate::prepare("");
    prepared.write("htpasswd", &format!("{ADA}\n"));
    let gate = prepared.start();
    std::fs::remove_file(prepared.path("htpasswd")).unwrap();
    gate.wait_for_log("users=0");
    let log = gate.log.lock().unwrap().clone();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("users=0")), "{log}");
}

#[test]
fn adding_a_user_beside_a_bad_line_tells_the_line_and_is_in_force() {
    let prepared = Gate::prepare("");
    prepared.write("htpasswd", "mallory:plain\n");
    let broken = format!("{}:1: user \"mallory\": ", prepared.path("htpasswd").display());
    let add = |arguments: &[&str]| prepared.command(arguments).stdin(password("secret")).output().unwrap();
    let added = add(&["user", "add", "eve", "--password-stdin"]);
    assert!(added.status.success() && text(&added).contains("added eve"), "{}", text(&added));
    assert!(String::from_utf8_lossy(&added.stderr).contains(&broken), "{}", text(&added));
    assert!(text(&prepared.run(&["user", "list"])).contains(&broken), "{}", text(&prepared.run(&["user", "list"])));
    let removed = prepared.run(&["user", "remove", "eve"]);
    assert!(
        removed.status.success() && text(&removed).contains("removed eve") && text(&removed).contains(&broken),
        "{}",
        text(&removed)
    );
    let verified = add(&["user", "verify", "mallory", "--password-stdin"]);
    assert!(text(&verified).contains(&broken), "{}", text(&verified));
    let checked = prepared.run(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(text(&checked).contains(&broken), "{}", text(&checked));
    assert!(prepared.run(&["user", "remove", "mallory"]).status.success());
}

#[test]
fn an_unknown_user_is_as_wrong_as_a_wrong_password() {
    let prepared = Gate::prepare("");
    prepared.write("htpasswd", &format!("{ADA}\n"));
    for (user, code) in [("ada", 77), ("nobody", 77)] {
        let arguments = ["user", "verify", user, "--password-stdin"];
        let output = prepared.command(&arguments).stdin(password("wrong")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains("wrong user name or password"));
    }
    assert!(text(&prepared.run(&["--help"])).contains("77"));
}

#[test]
fn certificates_that_end_or_name_nobody_are_told() {
    let prepared = Gate::prepare(OWN);
    for (names, days, code, words) in [
        (&["localhost"][..], 90, 0, ""),
        (&["localhost"], 5, 0, "ends in 5 days"),
        (&["localhost"], -2, 78, "ended on "),
        (&[], 90, 0, "subjectAltName"),
    ] {
        own_certificate(&prepared, names, days);
        let output = prepared.run(&["check"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
        assert_eq!(text(&output).contains("tls.certificate"), !words.is_empty(), "{}", text(&output));
        assert!(text(&prepared.run(&["cert", "show"])).contains(words));
    }
    own_certificate(&prepared, &["localhost"], 5);
    let gate = prepared.start();
    gate.wait_for_log("ends in 5 days");
}

#[test]
fn plain_http_went_around_the_certificates_of_clients() {
    let config = "[tls]\nclient_ca = \"certs/ca.crt\"\nclient_auth = \"required\"\n";
    let prepared = Gate::prepare(config);
    assert!(prepared.run(&["cert", "init"]).status.success());
    let gate = prepared.start();
    gate.plain().get("/v2/").expect(400);
    let prepared = Gate::prepare(&format!("{config}[listen.main]\naddress = \"127.0.0.1:0\"\nprotocol = \"plain\"\n"));
    let output = prepared.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).contains("listen.main.protocol: \"plain\""), "{}", text(&output));
}

#[test]
fn plain_http_ends_when_a_reload_demands_certificates_of_clients() {
    let prepared = Gate::prepare("");
    let gate = prepared.start();
    gate.plain().get("/v2/").expect(401);
    prepared.configure("[tls]\nclient_ca = \"certs/ca.crt\"\nclient_auth = \"required\"\n");
    wait_until("plain HTTP to end", || gate.plain().get("/v2/").status == 400);
}

#[test]
fn a_reserve_larger_than_the_disk_is_told_by_check() {
    let prepared = Gate::prepare("[limits]\ndisk_reserve = \"1000TiB\"\n");
    let output = prepared.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).contains("limits.disk_reserve: "), "{}", text(&output));
}

/// RFC 6797, section 7.2: over a plain connection anybody could have written it.
#[test]
fn strict_transport_security_is_said_over_tls_alone() {
    const HSTS: &str = "strict-transport-security";
    let proxy = "[listen.main]\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let prepared = Gate::prepare(&format!("tls.hsts = \"365d\"\n{proxy}"));
    let gate = prepared.start();
    for (path, status) in
        [("/v2/", 401), ("/v2/a/tags/list", 401), ("/token/keys", 200), ("/nothing", 404), ("/%", 400)]
    {
        let answer = gate.tls().get(path).expect(status);
        assert_eq!(answer.header(HSTS), Some("max-age=31536000"), "{path}");
        assert_eq!(gate.plain().get(path).expect(status).header(HSTS), None, "{path}");
    }
    // A proxy on this machine that took the TLS connection.
    let told = gate.plain().with("X-Forwarded-Proto", "https").get("/v2/").expect(401);
    assert_eq!(told.header(HSTS), Some("max-age=31536000"));
    prepared.configure(&format!("tls.hsts = \"0s\"\n{proxy}"));
    wait_until("the new lifetime", || gate.tls().get("/v2/").header(HSTS) == Some("max-age=0"));
    prepared.configure(proxy);
    wait_until("no lifetime", || gate.tls().get("/v2/").header(HSTS).is_none());
}

#[test]
fn fields_of_the_access_log_could_be_forged() {
    let gate = Gate::start("");
    let forged = "x status=200 user=admin \" user=root";
    let answer = gate.tls().with("User-Agent", forged).get("/v2/app/manifests/v1").expect(401);
    let id = answer.header("x-request-id").unwrap().to_owned();
    gate.wait_for_log(&id);
    let log = gate.log.lock().unwrap().clone();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.contains("user_agent=\"x status=200 user=admin "), "{line}");
    let words: Vec<&str> = fields(line);
    assert_eq!(words.iter().filter(|word| word.starts_with("status=")).collect::<Vec<_>>(), [&"status=401"], "{line}");
    assert_eq!(words.iter().filter(|word| word.starts_with("user=")).collect::<Vec<_>>(), [&"user=-"], "{line}");
}

/// The words of a line, where spaces within quotes separate nothing.
fn fields(line: &str) -> Vec<&str> {
    let (mut words, mut begin, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, character) in line.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => {
                words.push(&line[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    words.push(&line[begin..]);
    words
}

#[test]
fn what_is_printed_at_the_start_names_the_listener_for_docker() {
    let listen = |name: &str, port: u16, protocol: &str| {
        format!("[listen.{name}]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\n")
    };
    for (config, expected) in [
        (listen("a", 5998, "tls") + &listen("main", 5999, "auto"), 5999),
        (listen("a", 5998, "plain") + &listen("b", 5999, "tls"), 5999),
        (listen("a", 5999, "plain"), 5999),
    ] {
        let trust = text(&Gate::prepare(&config).run(&["cert", "trust"]));
        assert!(trust.contains(&format!("localhost:{expected}")), "{expected}: {trust}");
        assert!(!trust.contains("5998"), "{trust}");
    }
    let trust = text(&Gate::prepare("[listen.main]\naddress = \"192.0.2.7:5999\"\n").run(&["cert", "trust"]));
    assert!(trust.contains("certs.d/192.0.2.7:5999/ca.crt") && !trust.contains("localhost"), "{trust}");
}

#[test]
fn a_certificate_that_is_not_there_yet_says_what_makes_it() {
    let prepared = Gate::prepare("[listen.main]\naddress = \"0.0.0.0:5443\"\n");
    for command in ["show", "trust"] {
        let said = text(&prepared.run(&["cert", command]));
        assert!(said.contains("dockgate cert init") && said.contains("dockgate serve"), "{command}: {said}");
    }
    assert!(prepared.run(&["cert", "init"]).status.success());
    let said = text(&prepared.run(&["cert", "trust"]));
    assert!(!said.contains("HOST") && !said.contains("cert init"), "{said}");
    assert!(said.contains("hosts.toml") && said.contains("server = \"https://"), "{said}");
}

#[test]
fn the_certificate_names_the_hosts_of_upstreams() {
    let prepared = Gate::prepare("[listen.main]\naddress = \"0.0.0.0:5443\"\n");
    let upstream = "kind = \"mirror\"\nurl = \"https://127.0.0.1:1\"\nprefix = \"docker.io\"\nhosts = ";
    prepared.write("upstreams/hub.toml", &format!("{upstream}[\"Hub.Example\", \"[2001:db8::7]\", \"no_name-\"]\n"));
    let made = prepared.run(&["cert", "init"]);
    assert!(made.status.success(), "{}", text(&made));
    let shown = text(&prepared.run(&["cert", "show"]));
    assert!(shown.contains("hub.example") && shown.contains("2001:db8::7"), "{shown}");
    prepared.write("upstreams/hub.toml", &format!("{upstream}[\"other.example\"]\n"));
    assert!(text(&prepared.run(&["cert", "init"])).contains(": made;"), "it is made anew for another name");
    let shown = text(&prepared.run(&["cert", "show"]));
    assert!(shown.contains("other.example"), "{shown}");
}

#[test]
fn check_reads_all_that_is_named_and_tells_all_that_is_wrong() {
    let prepared = Gate::prepare("[tls]\nclient_ca = \"no-ca.crt\"\n[registry]\ndata = \"a-file\"\n");
    prepared.write("a-file", "");
    prepared.write("htpasswd", "mallory:plain\n");
    prepared.write("no-upstream-ca.crt", "nonsense");
    let upstream = "kind = \"legacy\"\npeers = [\"https://127.0.0.1:1\"]\nca = \"no-upstream-ca.crt\"\n";
    prepared.write("upstreams/old.toml", upstream);
    let output = prepared.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    for words in ["tls.client_ca: ", "registry.data: ", "htpasswd:1: ", "no-upstream-ca.crt"] {
        assert!(text(&output).contains(words), "{words} is not in {}", text(&output));
    }
}

#[test]
fn a_key_that_is_bad_is_named() {
    let prepared = Gate::prepare(OWN);
    own_certificate(&prepared, &["localhost"], 90);
    prepared.write("own.key", "nonsense");
    for output in [prepared.run(&["check"]), prepared.run(&["serve"])] {
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        assert!(text(&output).contains("tls.key: "), "{}", text(&output));
    }
}

#[test]
fn an_admin_port_that_is_taken_is_named_by_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let prepared = Gate::prepare(&format!("[admin]\naddress = \"{}\"\n", taken.local_addr().unwrap()));
    let (code, said) = prepared.fail(&["serve"]);
    assert_eq!(code, 69);
    assert!(said.contains("change admin.address") && !said.contains("listen.admin"), "{said}");
}

#[test]
fn what_is_doubtful_in_the_configuration_is_told() {
    let prepared = Gate::prepare("");
    prepared.write(
        "upstreams/hub.toml",
        "kind = \"mirror\"\nurl = \"http://127.0.0.1:9\"\ndocker_mirror = true\ndocker_mirror_repositories = [\"**\"]\n",
    );
    let told = String::from_utf8(prepared.run(&["check"]).stderr).unwrap();
    assert!(told.contains("hub.toml:4:30: docker_mirror_repositories: names that"), "{told}");
    let gate = prepared.start();
    gate.wait_for_log("docker_mirror_repositories");
}

#[test]
fn a_log_that_nobody_read_stopped_everybody() {
    // More lines than a pipe takes.
    const REQUESTS: usize = 500;
    let prepared = Gate::prepare("");
    rustix::fs::mknodat(rustix::fs::CWD, prepared.path("log"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let log = File::options().read(true).write(true).open(prepared.path("log")).unwrap();
    let serve = prepared.command(&["serve"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$0" "$@" 2>log"#]).arg(serve.get_program()).args(serve.get_args());
    let gate = prepared.start_under(command.current_dir(prepared.directory.path()));
    for _ in 0..REQUESTS {
        gate.plain().get("/v2/").expect(401);
    }
    // Nothing of it is lost: it is written as soon as somebody reads.
    let requests = BufReader::new(log).lines().map(Result::unwrap).filter(|line| line.contains("target=/v2/"));
    assert_eq!(requests.take(REQUESTS).filter(|line| line.contains("status=401")).count(), REQUESTS);
    assert_eq!(gate.stop(), 0);
}
