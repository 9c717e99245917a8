//! A small disk of a test's own, which can fill up or turn read-only.

use crate::Error;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// Mounted; taken away when dropped.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// A disk of so many megabytes; `None`, which is said, where this user can't mount one.
    pub fn mount(megabytes: u32) -> Result<Option<Self>, Error> {
        let dir = tempfile::Builder::new().prefix("limosa-disk-").tempdir()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "limosa-test"]).arg(dir.path());
        let mounted = command.output().is_ok_and(|done| done.status.success());
        if !mounted {
            eprintln!("SKIPPED: this user can't mount a file system");
        }
        Ok(mounted.then_some(Self { dir }))
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// Leaves no room for anything more.
    pub fn fill(&self) -> Result<(), Error> {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.ballast())?;
        for block in [1024 * 1024, 4096] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
        Ok(())
    }

    /// Leaves room for so many megabytes.
    pub fn fill_but(&self, megabytes: u64) -> Result<(), Error> {
        let told = Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(self.path()).output()?;
        let free: u64 = String::from_utf8(told.stdout)?.split_whitespace().last().unwrap_or("0").parse()?;
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.ballast())?;
        Ok(file.write_all(&vec![0; (free.saturating_sub(megabytes) * 1024 * 1024) as usize])?)
    }

    /// Gives the room back.
    pub fn free(&self) -> Result<(), Error> {
        Ok(fs::remove_file(self.ballast())?)
    }

    /// Refuses writes, or takes them again; nothing may be open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), Error> {
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        let done = Command::new("mount").args(["-o", option]).arg(self.path()).output()?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned().into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Even if something has a file open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
