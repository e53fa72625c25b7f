//! Disks that are full or fail, for real: mounted by the test, which needs root.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use super::gate::Prepared;

/// A disk, mounted below the test's directory until it is dropped.
pub struct Disk {
    path: PathBuf,
    /// What was mounted, and how.
    arguments: Vec<String>,
}

impl Disk {
    /// In memory, and not larger than this.
    pub fn memory(prepared: &Prepared, size: &str) -> Self {
        Self::mount(prepared, "disk", &["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
    }

    /// A file system in a file, as on a disk that the kernel makes read-only when it fails.
    pub fn file(prepared: &Prepared) -> Self {
        Self::image(prepared, "disk", 64 << 20, "has_journal")
    }

    /// One mounted at another place, of so many bytes, and made with these features of ext4.
    pub fn image(prepared: &Prepared, place: &str, bytes: u64, features: &str) -> Self {
        assert!(
            Path::new("/dev/loop-control").exists(),
            "this test needs loop devices; where there are none, DOCKGATE_NO_LOOP_DEVICES=1 leaves it out"
        );
        let image = prepared.path("image").display().to_string();
        if !Path::new(&image).exists() {
            fs::File::create(&image).unwrap().set_len(bytes).unwrap();
            run(Command::new("mkfs.ext4").args(["-q", "-O", features, &image]));
        }
        Self::mount(prepared, place, &["-t", "ext4", "-o", "loop,errors=remount-ro", &image])
    }

    fn mount(prepared: &Prepared, place: &str, arguments: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a disk, which only root may: run it as root");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let disk = Self { path: prepared.path(place), arguments };
        fs::create_dir_all(&disk.path).unwrap();
        disk.attach();
        disk
    }

    fn attach(&self) {
        run(Command::new("mount").args(&self.arguments).arg(&self.path));
    }

    /// What a machine does that is started again after a power cut: it mounts what is in the file by now. Nobody may hold
    /// a file of the disk.
    pub fn restart(&self) {
        let image = self.arguments.last().unwrap();
        let kept = format!("{image}.kept");
        // Unmounting would still write what the kernel has in memory.
        run(Command::new("cp").args([image, &kept]));
        run(Command::new("umount").arg(&self.path));
        fs::rename(&kept, image).unwrap();
        let check = Command::new("e2fsck").args(["-y", image]).output().unwrap();
        // 1 is that something had to be mended.
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(matches!(check.status.code(), Some(0 | 1)), "the disk cannot be mended: {said}");
        self.attach();
    }

    /// Makes it `ro` or `rw`.
    pub fn remount(&self, mode: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.path));
    }

    /// Has the kernel find the file system broken, after which it lets nobody write.
    pub fn break_down(&self) {
        let device = run(Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.path)).stdout;
        let device = String::from_utf8(device).unwrap();
        let name = device.trim().strip_prefix("/dev/").unwrap().to_owned();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
        fs::File::create(self.path.join("probe")).expect_err("the disk is read-only now");
    }

    /// Writes until there is no space left; the file that took it.
    pub fn fill(&self) -> PathBuf {
        let path = self.path.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for length in [65_536, 4_096, 1] {
            while file.write(&vec![0; length]).is_ok_and(|written| written == length) {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: after a failure somebody may still hold a file.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Says whether what needs loop devices is left out. Never by itself: a test that passes without testing would lie.
pub fn is_without_loop_devices() -> bool {
    let is_so = std::env::var("DOCKGATE_NO_LOOP_DEVICES").is_ok_and(|value| value == "1");
    if is_so {
        // Not by a macro: what those print is shown for tests that fail alone.
        let reason = b"NOT TESTED: this needs loop devices, and DOCKGATE_NO_LOOP_DEVICES says that there are none\n";
        std::io::stderr().write_all(reason).unwrap();
    }
    is_so
}

/// Shuts a file system down at each line that it reads, and then says so: nothing more is written, the journal neither.
/// In Python, because a call of `ioctl` is unsafe in Rust; 0x8004587d is `FS_IOC_SHUTDOWN`, and 2 is
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SWITCH: &str = r#"
import fcntl, os, struct, sys
print("ready", flush=True)
for _ in sys.stdin:
    disk = os.open(sys.argv[1], os.O_RDONLY)
    fcntl.ioctl(disk, 0x8004587d, struct.pack("I", 2))
    os.close(disk)
    print("off", flush=True)
"#;

/// The switch of a disk's power. It waits beforehand, so that the cut comes at the moment it is asked for.
pub struct Switch {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Switch {
    pub fn of(disk: &Disk) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SWITCH]).arg(&disk.path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is needed; tests/install.sh installs it");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut switch = Self { child, input, output: BufReader::new(output) };
        switch.expect("ready");
        switch
    }

    /// Cuts the power: what is not on the disk by now never will be, and whoever reads or writes there gets an error.
    pub fn cut(&mut self) {
        self.input.write_all(b"\n").unwrap();
        self.expect("off");
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word, "the power cannot be cut");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/install.sh installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
