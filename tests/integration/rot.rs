//! Disks that give back other bytes than they were given: no wrong byte leaves, and a push or another download mends it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection};

use super::support::content::{digest, manifest, push_blob, put_manifest};
use super::support::gate::{ADA, PATIENCE, files, wait_until};
use super::support::{Gate, V2Upstream};

/// Everyone may do everything, and nothing is answered from memory.
const OPEN: &str = "[[access]]\nwho = [\"anyone\"]\nrepositories = [\"**\"]\nactions = [\"*\"]\n[cache]\nmemory = \"0\"\nmemory_object_max = \"0\"\n";
/// How much damage the short form does; `DOCKGATE_ROT_ROUNDS` says another number.
const ROUNDS: u64 = 60;

fn start(up: Option<&V2Upstream>) -> Gate {
    let prepared = Gate::prepare(OPEN);
    prepared.write("htpasswd", &format!("{ADA}\n"));
    if let Some(up) = up {
        prepared.write("upstreams/up.toml", &format!("kind = \"mirror\"\nurl = \"{}\"\n", up.url()));
    }
    prepared.start()
}

fn restart(gate: Gate) -> Gate {
    let prepared = gate.prepared();
    assert_eq!(gate.stop(), 0);
    prepared.start()
}

/// Numbers that look drawn, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// An answer as far as it came.
#[derive(Debug)]
struct Pulled {
    status: u16,
    body: Vec<u8>,
    is_whole: bool,
}

/// Asks for all of it, or for the bytes from `range.0` to before `range.1`.
fn pull(address: SocketAddr, path: &str, range: Option<(usize, usize)>) -> Pulled {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let range = range.map(|(start, end)| format!("Range: bytes={start}-{}\r\n", end - 1)).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{range}\r\n").unwrap();
    let mut answer = Vec::new();
    // A connection that is reset is an answer that ended in an error.
    let _ = stream.read_to_end(&mut answer);
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Pulled { status: 0, body: Vec::new(), is_whole: false };
    };
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    Pulled { status, is_whole: length == Some(body.len()), body }
}

/// What is right of a blob or manifest, wherever it is damaged.
struct Right<'a> {
    gate: &'a Gate,
    path: String,
    bytes: &'a [u8],
}

impl Right<'_> {
    /// Pulls all or a part of it; whether it came whole. No byte of it may be wrong, however it ends.
    #[track_caller]
    fn pull(&self, range: Option<(usize, usize)>) -> bool {
        let pulled = pull(self.gate.main, &self.path, range);
        if !matches!(pulled.status, 200 | 206) {
            return false;
        }
        let (start, end) = range.filter(|_| pulled.status == 206).unwrap_or((0, self.bytes.len()));
        let right = &self.bytes[start..end];
        assert!(right.starts_with(&pulled.body), "a wrong byte of {}", self.path);
        assert!(!pulled.is_whole || pulled.body.len() == right.len(), "{} ended too early", self.path);
        pulled.is_whole
    }

    fn head(&self) -> u16 {
        self.gate.plain().head(&self.path).status
    }

    /// Until it is known what is wrong: it comes whole, or it is not there.
    fn settles(&self) -> bool {
        let mut is_right = false;
        wait_until("damage to be found out", || {
            is_right = self.pull(None);
            is_right || self.head() == 404
        });
        is_right
    }
}

fn blob<'a>(gate: &'a Gate, bytes: &'a [u8]) -> Right<'a> {
    Right { gate, path: format!("/v2/app/blobs/{}", digest(bytes)), bytes }
}

/// The file of a blob below a directory.
fn file_of(directory: &Path, digest: &str) -> Option<PathBuf> {
    let hex = &digest["sha256:".len()..];
    let is_it = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with(hex) && !name.ends_with(".sums")
    };
    files(directory).into_iter().find(is_it)
}

fn flip(file: &Path, at: usize, bit: u8) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
}

fn cut(file: &Path, length: u64) {
    File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

fn metric(gate: &Gate, place: &str) -> u64 {
    let page = gate.admin().get("/metrics").expect(200).text();
    let name = format!("dockgate_rotten_total{{where=\"{place}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// Changes one value of a row, as whoever has the file open can.
fn change(gate: &Gate, read: &'static str, write: &'static str, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
    let database = gate.path("data/metadata.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect(database.to_str().unwrap()).await.unwrap();
        let mut value: Vec<u8> = sqlx::query_scalar(read).bind(name).fetch_one(&mut connection).await.unwrap();
        damage(&mut value);
        sqlx::query(write).bind(name).bind(value).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn change_manifest(gate: &Gate, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
    let read = "SELECT bytes FROM manifests WHERE digest = $1";
    change(gate, read, "UPDATE manifests SET bytes = $2 WHERE digest = $1", name, damage);
}

fn change_sums(gate: &Gate, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
    let read = "SELECT sums FROM blob_sums WHERE digest = $1";
    change(gate, read, "UPDATE blob_sums SET sums = $2 WHERE digest = $1", name, damage);
}

#[test]
fn a_bit_that_turned_never_leaves_and_a_push_mends_it() {
    let gate = start(None);
    let bytes = Dice(1).bytes(3_000_000);
    let name = push_blob(&gate.plain(), "app", &bytes);
    let right = blob(&gate, &bytes);
    flip(&file_of(&gate.path("data/blobs"), &name).unwrap(), 2_000_000, 3);
    assert!(right.pull(Some((100, 1_900_000))), "these pieces are good");
    assert!(!right.pull(Some((1_999_999, 2_000_001))));
    wait_until("the blob to be gone", || right.head() == 404);
    assert_eq!(gate.plain().get(&right.path).expect(404).code(), "BLOB_UNKNOWN");
    assert_eq!(metric(&gate, "hosted"), 1);
    gate.wait_for_log("a blob is rotten");
    assert_eq!(files(&gate.path("data/quarantine")).len(), 1);
    push_blob(&gate.plain(), "app", &bytes);
    assert!(right.head() == 200 && right.pull(None));
}

#[test]
fn what_is_cut_or_gone_is_not_there_and_a_push_mends_it() {
    let gate = start(None);
    let bytes = Dice(2).bytes(200_000);
    let right = blob(&gate, &bytes);
    for length in [None, Some(0), Some(199_999), Some(200_001)] {
        let name = push_blob(&gate.plain(), "app", &bytes);
        assert!(right.pull(None));
        let file = file_of(&gate.path("data/blobs"), &name).unwrap();
        match length {
            None => fs::remove_file(&file).unwrap(),
            Some(length) => cut(&file, length),
        }
        // A client that pushes asks by HEAD what is missing.
        assert_eq!(right.head(), 404, "{length:?}");
        assert_eq!(gate.plain().get(&right.path).expect(404).code(), "BLOB_UNKNOWN");
    }
    push_blob(&gate.plain(), "app", &bytes);
    assert!(right.head() == 200 && right.pull(None));
}

#[test]
fn what_rots_in_the_cache_is_fetched_again() {
    let up = V2Upstream::start();
    let bytes = Dice(3).bytes(1_000_000);
    let (_, name) = up.image("app", "v1", &bytes);
    let gate = start(Some(&up));
    let right = Right { gate: &gate, path: format!("/v2/up/app/blobs/{name}"), bytes: &bytes };
    assert!(right.pull(None));
    let (kept, path) = (gate.path("cache/blobs"), right.path.clone());
    for damage in 0..4 {
        let file = file_of(&kept, &name).unwrap();
        up.forget_asked();
        match damage {
            0 => flip(&file, 999_999, 7),
            1 => cut(&file, 500_000),
            2 => fs::write(&file, Dice(4).bytes(1_000_000)).unwrap(),
            _ => fs::remove_file(&file).unwrap(),
        }
        right.pull(Some((999_000, 1_000_000)));
        wait_until("the blob to be fetched again", || right.pull(None));
        // What is open stays readable when its file is removed.
        assert!(damage == 3 || up.count("GET", &name) == 1, "{damage}");
        right.pull(None);
    }
    assert!(metric(&gate, "cache") >= 3);
    gate.wait_for_log("a blob of the cache is rotten");
    // Checksums that are wrong say nothing of the blob.
    let gate = restart(gate);
    assert!(Right { gate: &gate, path: path.clone(), bytes: &bytes }.pull(None));
    let gate = restart(gate);
    let sums = file_of(&kept, &name).unwrap().with_extension("sums");
    let good = fs::read(&sums).unwrap();
    flip(&sums, 5, 0);
    let right = Right { gate: &gate, path, bytes: &bytes };
    up.forget_asked();
    assert!(!right.pull(Some((70_000, 90_000))));
    wait_until("the checksums to be made anew", || right.pull(None));
    assert_eq!((fs::read(&sums).unwrap(), up.count("GET", &name)), (good, 0));
}

#[test]
fn a_changed_manifest_is_not_served_until_it_is_pushed_again() {
    let gate = start(None);
    let blobs: [&[u8]; 2] = [b"{}", b"layer"];
    blobs.iter().for_each(|blob| drop(push_blob(&gate.plain(), "app", blob)));
    let bytes = manifest(&blobs);
    put_manifest(&gate.plain(), "app", "v1", &bytes).expect(201);
    let gate = restart(gate);
    change_manifest(&gate, &digest(&bytes), |bytes| bytes[20] ^= 1);
    for path in [format!("/v2/app/manifests/{}", digest(&bytes)), "/v2/app/manifests/v1".to_owned()] {
        assert_eq!(gate.plain().get(&path).expect(404).code(), "MANIFEST_UNKNOWN");
        assert_eq!(gate.plain().head(&path).status, 404);
    }
    gate.wait_for_log("a manifest in metadata.db is not what was pushed");
    assert!(metric(&gate, "manifest") >= 4);
    put_manifest(&gate.plain(), "app", "v1", &bytes).expect(201);
    let gate = restart(gate);
    assert!(gate.plain().get("/v2/app/manifests/v1").expect(200).body == bytes);
}

/// What is damaged at random, and how it is asked for.
struct Ground<'a> {
    gate: &'a Gate,
    dice: Dice,
    hosted: BTreeMap<String, Vec<u8>>,
    mirrored: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    /// How often what was damaged was found out, and how often it came all the same.
    found: u64,
    harmless: u64,
}

impl Ground<'_> {
    fn damage_file(&mut self, file: &Path) {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        match self.dice.below(6) {
            0 => fs::remove_file(file).unwrap(),
            1 => cut(file, self.dice.below(length + 1) as u64),
            2 if length > 0 => {
                let (at, count) = (self.dice.below(length), 1 + self.dice.below(5_000));
                let noise = self.dice.bytes(count.min(length - at));
                File::options().write(true).open(file).unwrap().write_all_at(&noise, at as u64).unwrap();
            }
            _ if length > 0 => flip(file, self.dice.below(length), self.dice.below(8) as u8),
            _ => {}
        }
    }

    fn one_of(&mut self, which: fn(&Self) -> &BTreeMap<String, Vec<u8>>) -> (String, Vec<u8>) {
        let number = self.dice.below(which(self).len());
        which(self).iter().nth(number).map(|(name, bytes)| (name.clone(), bytes.clone())).unwrap()
    }

    /// Pulls parts of it, and waits until it is whole or not there; whether it is whole.
    fn ask(&mut self, right: &Right<'_>) -> bool {
        let mut all = true;
        for _ in 0..self.dice.below(4) {
            let (one, other) = (self.dice.below(right.bytes.len()), self.dice.below(right.bytes.len()));
            all &= right.pull(Some((one.min(other), one.max(other) + 1)));
        }
        all &= right.pull(None);
        let is_whole = right.settles();
        match all && is_whole {
            true => self.harmless += 1,
            false => self.found += 1,
        }
        is_whole
    }

    fn damage_hosted(&mut self) {
        let (name, bytes) = self.one_of(|ground| &ground.hosted);
        match self.dice.below(4) {
            0 => {
                let number = self.dice.next();
                change_sums(self.gate, &name, |sums| match number % 5 {
                    0 => drop(sums.pop()),
                    _ => {
                        let at = usize::try_from(number).unwrap() % sums.len();
                        sums[at] ^= 4;
                    }
                });
            }
            _ => {
                // Whoever still had it open may have hidden that it is gone.
                let file = file_of(&self.gate.path("data/blobs"), &name);
                file.iter().for_each(|file| self.damage_file(file));
            }
        }
        let right = blob(self.gate, &bytes);
        // Some push again before anybody has read what is wrong.
        if self.dice.below(3) > 0 && self.ask(&right) {
            return;
        }
        push_blob(&self.gate.plain(), "app", &bytes);
        assert_eq!(right.head(), 200);
        assert!(right.pull(None), "{name} is not right after it was pushed again");
    }

    fn damage_cached(&mut self) {
        let (name, bytes) = self.one_of(|ground| &ground.mirrored);
        let right = Right { gate: self.gate, path: format!("/v2/up/app/blobs/{name}"), bytes: &bytes };
        if let Some(file) = file_of(&self.gate.path("cache/blobs"), &name) {
            match self.dice.below(4) {
                0 if file.with_extension("sums").exists() => self.damage_file(&file.with_extension("sums")),
                _ => self.damage_file(&file),
            }
        }
        self.ask(&right);
        wait_until("the blob to be fetched again", || right.pull(None));
    }

    fn damage_manifest(&mut self) {
        let (at, bit) = (self.dice.below(self.manifest.len()), self.dice.below(8));
        change_manifest(self.gate, &digest(&self.manifest), |bytes| bytes[at] ^= 1 << bit);
        let bytes = self.manifest.clone();
        let path = format!("/v2/app/manifests/{}", digest(&bytes));
        let right = Right { gate: self.gate, path, bytes: &bytes };
        match right.pull(None) {
            // It was still in memory.
            true => self.harmless += 1,
            false => self.found += 1,
        }
        put_manifest(&self.gate.plain(), "app", "v1", &bytes).expect(201);
        assert!(right.pull(None), "the manifest is not right after it was pushed again");
    }
}

#[test]
fn damage_at_random_delivers_no_wrong_byte() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (rounds, seed) = (number("DOCKGATE_ROT_ROUNDS", ROUNDS), number("DOCKGATE_ROT_SEED", 1));
    let up = V2Upstream::start();
    let gate = start(Some(&up));
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let sizes = [1, 500, 65_535, 65_536, 65_537, 300_000, 1_500_000];
    let mut blobs = |keep: &dyn Fn(&[u8]) -> String| -> BTreeMap<String, Vec<u8>> {
        sizes.iter().map(|size| dice.bytes(*size)).map(|bytes| (keep(&bytes), bytes)).collect()
    };
    let hosted = blobs(&|bytes| push_blob(&gate.plain(), "app", bytes));
    let mirrored = blobs(&|bytes| up.blob("app", bytes));
    let parts: Vec<&[u8]> = hosted.values().map(Vec::as_slice).collect();
    let manifest = manifest(&parts);
    put_manifest(&gate.plain(), "app", "v1", &manifest).expect(201);
    let mut ground = Ground { gate: &gate, dice, hosted, mirrored, manifest, found: 0, harmless: 0 };
    for _ in 0..rounds {
        match ground.dice.below(8) {
            0 => ground.damage_manifest(),
            1..=3 => ground.damage_cached(),
            _ => ground.damage_hosted(),
        }
    }
    let told = metric(&gate, "hosted") + metric(&gate, "cache") + metric(&gate, "manifest");
    println!(
        "{rounds} damages (seed {seed}): 0 wrong bytes delivered, 0 wrong after a push or another download; \
         {} were met by a reader, {} were not; {told} told by the metric",
        ground.found, ground.harmless
    );
    assert!(ground.found > rounds / 3, "{}", ground.found);
    assert!(told > rounds / 3, "{told}");
}
