//! Disks that are full or fail, for real: mounted by the test, which needs root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::gate::Prepared;

/// A disk, mounted below the test's directory until it is dropped.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// In memory, and not larger than this.
    pub fn memory(prepared: &Prepared, size: &str) -> Self {
        Self::mount(prepared, &["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
    }

    /// A file system in a file, as on a disk that the kernel makes read-only when it fails.
    pub fn file(prepared: &Prepared) -> Self {
        let image = prepared.path("image").display().to_string();
        if !Path::new(&image).exists() {
            fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
            run(Command::new("mkfs.ext4").args(["-q", &image]));
        }
        Self::mount(prepared, &["-t", "ext4", "-o", "loop,errors=remount-ro", &image])
    }

    fn mount(prepared: &Prepared, arguments: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a disk, which only root may: run it as root");
        let path = prepared.path("disk");
        fs::create_dir_all(&path).unwrap();
        run(Command::new("mount").args(arguments).arg(&path));
        Self { path }
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

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/install.sh installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
