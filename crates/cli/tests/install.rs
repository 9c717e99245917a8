//! The program as its packages install it: into a fresh Debian root, and as a container. Takes minutes and root's rights,
//! so only with LIMOSA_FULL=1.

use crate::support::{finish, wait_for};
use limosa_testkit::tool;
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn run(command: &mut Command) -> String {
    let (status, said, errors) = finish(command);
    assert_eq!(status, 0, "{command:?}: {said}{errors}");
    said + &errors
}

/// A minimal system of the release that this one is, below `dir`.
fn fresh_root(dir: &Path) -> PathBuf {
    let about = fs::read_to_string("/etc/os-release").expect("is there");
    let release = about.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("is Debian");
    let root = dir.join("root");
    run(Command::new("debootstrap").args(["--variant=minbase", release]).arg(&root));
    root
}

fn inside(root: &Path, line: &str) -> String {
    let mut command = Command::new("chroot");
    command.arg(root).args(["sh", "-euc", line]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    // How packages are fetched here holds there too.
    for name in ["http_proxy", "https_proxy"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// A program under test as a server, below `root`; ends when dropped.
struct Serving(Child);

impl Serving {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).stderr(Stdio::null()).spawn().expect("starts"))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // What started it in there, too.
        let _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// Waits until the server whose data are in `data` answers, and says who it is.
fn answers(data: &Path) {
    let url = wait_for("the server's profile", || {
        let text = fs::read_to_string(data.join("profile.toml")).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("url = \""))?.trim_end_matches('"').to_owned())
    });
    let page = run(Command::new("curl").args(["--silent", "--fail"]).arg(format!("{url}/")));
    assert!(page.contains("<title>Limosa</title>"), "{page}");
}

#[test]
fn a_fresh_system_takes_the_packages_and_the_container() {
    if !tool::in_full()
        || !tool::have("the packages in a fresh root", &["debootstrap", "dpkg-deb", "systemd-analyze", "strip"])
    {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    if fs::metadata(dir.path()).expect("is there").uid() != 0 {
        assert!(!tool::in_ci(), "a fresh root can be made by root only");
        eprintln!("SKIPPED the packages in a fresh root: needs root's rights");
        return;
    }
    let root = fresh_root(dir.path());
    // Before anything is installed into it: a container's base has nothing either.
    // Without its symbols it is a tenth of it.
    let program = dir.path().join("limosa");
    run(Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_limosa")));
    if tool::have("the container", &["buildah"]) {
        container(dir.path(), &root, &program);
    }
    packages(&root, &program);
}

/// Installed with what they need, run, removed, purged: nothing is left but the user.
fn packages(root: &Path, program: &Path) {
    let mut build = Command::new(packaging().join("debian/build"));
    build.arg(program).arg(root.join("packages")).env("STRIP", "").env("COMPRESSION", "none");
    run(&mut build);
    inside(root, "apt-get update && apt-get install --yes --no-install-recommends /packages/*.deb");
    let installed = inside(root, "dpkg-query --show --showformat='${Package} ${db:Status-Status}\\n' 'limosa*'");
    assert_eq!(installed, "limosa installed\nlimosa-agent installed\nlimosa-server installed\n");
    let user = inside(root, "getent passwd limosa");
    assert!(user.trim_end().ends_with(":/var/lib/limosa:/usr/sbin/nologin"), "{user}");
    let user = inside(root, "getent passwd limosa-agent");
    assert!(user.trim_end().ends_with(":/var/lib/limosa-agent:/usr/sbin/nologin"), "{user}");
    for (role, user) in [("server", "limosa"), ("agent", "limosa-agent")] {
        let group: u32 = inside(root, &format!("id --group {user}")).trim().parse().expect("a number");
        let settings = fs::metadata(root.join(format!("etc/limosa/{role}.env"))).expect("is there");
        assert_eq!((settings.uid(), settings.gid(), settings.permissions().mode() & 0o777), (0, group, 0o640));
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(format!("--root={}", root.display()));
        let said = run(verify.arg(format!("/usr/lib/systemd/system/limosa-{role}.service")));
        assert!(!said.contains("limosa"), "{said}");
        let help = inside(root, &format!("limosa {role} --help"));
        assert!(help.contains(&format!("Usage: limosa {role}")), "{help}");
    }
    assert!(inside(root, "limosa --version").contains(env!("CARGO_PKG_VERSION")));
    inside(root, "install --directory --owner limosa --group limosa --mode 700 /var/lib/limosa");
    let mut serve = Command::new("chroot");
    serve.args(["--userspec=limosa:limosa"]).arg(root).args(["limosa", "server", "--data-dir", "/var/lib/limosa"]);
    let serving = Serving::start(serve.args(["--listen", "127.0.0.1:0"]));
    answers(&root.join("var/lib/limosa"));
    drop(serving);
    inside(root, "dpkg --remove limosa-server limosa-agent limosa");
    assert!(!root.join("usr/bin/limosa").exists() && root.join("etc/limosa/server.env").is_file());
    inside(root, "dpkg --purge limosa-server limosa-agent");
    let left = inside(root, "find / -xdev -name '*limosa*' -not -path '/packages/*' -not -path '/var/lib/limosa*'");
    assert_eq!(left, "", "is left behind");
    assert!(root.join("var/lib/limosa/limosa.db").is_file(), "the store is not the package's to delete");
    assert_eq!(inside(root, "dpkg --audit"), "");
}

/// Images of the test's own.
struct Images {
    store: PathBuf,
}

impl Images {
    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.store.join("root")).arg("--runroot").arg(self.store.join("run"));
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        run(self.buildah().args(arguments)).trim().to_owned()
    }
}

/// The Containerfile, step by step, over bases made here: the fresh root, and for the stage that compiles the same with a
/// `cargo` that gives the program of this test, which the compiler made of the same source. Then its command.
fn container(dir: &Path, root: &Path, program: &Path) {
    let images = Images { store: dir.join("images") };
    let file = fs::read_to_string(packaging().join("container/Containerfile")).expect("is there");
    let bases: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    let [compiler, base] = bases[..] else { panic!("{bases:?}") };
    let scratch = images.run(&["from", "scratch"]);
    images.run(&["add", "--quiet", &scratch, &root.display().to_string(), "/"]);
    images.run(&["commit", "--quiet", &scratch, base]);
    let compiling = images.run(&["from", "--pull-never", base]);
    images.run(&["add", "--quiet", "--chmod", "755", &compiling, &program.display().to_string(), "/program"]);
    let cargo = dir.join("cargo");
    let script = "#!/bin/sh\nset -eux\n[ \"$*\" = 'build --release --locked --package limosa' ]\n\
                  [ -f Cargo.lock ] && [ -d crates/cli ] && [ ! -e target ] && [ ! -e .git ]\n\
                  mkdir --parents target/release && cp /program target/release/limosa\n";
    fs::write(&cargo, script).expect("writes");
    images.run(&["add", "--quiet", "--chmod", "755", &compiling, &cargo.display().to_string(), "/usr/local/bin/cargo"]);
    images.run(&["commit", "--quiet", &compiling, compiler]);

    let source = packaging().join("..").canonicalize().expect("is there");
    let mut build = images.buildah();
    build.args(["build", "--isolation", "chroot", "--pull-never", "--tag", "localhost/limosa", "--file"]);
    run(build.arg(packaging().join("container/Containerfile")).arg(source));
    let made = images.run(&["from", "--pull-never", "localhost/limosa"]);
    let config = |name: &str| images.run(&["inspect", "--format", &format!("{{{{.OCIv1.Config.{name}}}}}"), &made]);
    assert_eq!((config("User").as_str(), config("Entrypoint").as_str()), ("limosa", "[limosa]"));
    let command = config("Cmd");
    // Nothing of this machine is listened to from elsewhere; the rest is as the container has it.
    let command = command.trim_matches(['[', ']']).replace("0.0.0.0:8080", "127.0.0.1:0");
    let data = dir.join("data");
    fs::create_dir(&data).expect("makes it");
    chown(&data, Some(10_001), Some(10_001)).expect("gives it away");
    let mut serve = images.buildah();
    serve.args(["run", "--isolation", "chroot", "--volume", &format!("{}:/var/lib/limosa", data.display())]);
    let serving = Serving::start(serve.args([&made, "limosa"]).args(command.split(' ')));
    answers(&data);
    let keys = fs::metadata(data.join("bootstrap.json")).expect("is there");
    assert_eq!((keys.uid(), keys.permissions().mode() & 0o777), (10_001, 0o600));
    drop(serving);
    images.run(&["rm", "--all"]);
}
