//! What an agent may be ordered to do. Its control plane says which migration to carry out; where it writes and which files it
//! opens for that is bounded here, by its operator.

use limosa_model::{ErrorCode, Failure, Secret, Uri};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// See the module. By default: any destination but the agent's own sources, no file, no reverse migration.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// `HOST` or `HOST:PORT` of every server that may be a destination; empty: any.
    pub destinations: Vec<String>,
    /// Files that requests and registered URIs may name.
    pub files: Files,
    /// Whether reverse migrations are carried out, which write to a source.
    pub allow_reverse: bool,
}

/// Which files may be opened because the control plane names them.
#[derive(Clone, Debug)]
pub enum Files {
    /// All, for an agent whose control plane is in the same process.
    Any,
    /// Those below these directories.
    Below(Vec<PathBuf>),
}

impl Default for Files {
    fn default() -> Self {
        Self::Below(Vec::new())
    }
}

impl Bounds {
    /// Whether the agent writes to what `uri` leads to, and opens the files that it names.
    pub fn destination(&self, uri: &Secret, sources: &[(String, Secret)]) -> Result<(), Failure> {
        let uri = parsed(uri)?;
        // tlsCAFile, tlsCertificateKeyFile, tlsCRLFile.
        for name in uri.option_names().filter(|name| name.ends_with("File")) {
            self.file(name, uri.option(name).unwrap_or_default())?;
        }
        let hosts = hosts(&uri);
        let refused = |text: String| Err(Failure::new(ErrorCode::DestinationNotAllowed, text));
        if !self.destinations.is_empty() {
            return match hosts.iter().find(|host| !self.names(host)) {
                None => Ok(()),
                Some(host) => {
                    refused(format!("the destination has the host {host}, which no --allow-destination names"))
                }
            };
        }
        let is_own = |source: &Secret| {
            Uri::parse(source).is_ok_and(|source| self::hosts(&source).iter().any(|host| hosts.contains(host)))
        };
        let own = sources.iter().find(|(_, source)| is_own(source));
        match own {
            Some((name, _)) => refused(format!(
                "the destination has a host of this agent's own source {name}; it doesn't write there because a control plane \
                 says so"
            )),
            None => Ok(()),
        }
    }

    /// Whether the operator of the agent named every host of `uri` as a destination.
    pub fn names_all(&self, uri: &Secret) -> bool {
        !self.destinations.is_empty()
            && Uri::parse(uri).is_ok_and(|uri| hosts(&uri).iter().all(|host| self.names(host)))
    }

    fn names(&self, host: &str) -> bool {
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let bare = |text: &str| text.trim_matches(['[', ']']).to_ascii_lowercase();
        self.destinations.iter().any(|allowed| {
            let allowed = allowed.to_ascii_lowercase();
            allowed == *host || bare(&allowed) == bare(without_port)
        })
    }

    /// Whether a file may be opened that `option` names. What isn't allowed is refused in the same words, there or not.
    pub fn file(&self, option: &str, path: &str) -> Result<(), Failure> {
        let Files::Below(directories) = &self.files else { return Ok(()) };
        let real = fs::canonicalize(Path::new(path)).ok();
        let below = |directory: &PathBuf| {
            fs::canonicalize(directory)
                .is_ok_and(|directory| real.as_ref().is_some_and(|real| real.starts_with(directory)))
        };
        if directories.iter().any(below) {
            return Ok(());
        }
        let message = format!("{option} names {path}, which is no file below a directory of --allow-files-below");
        Err(Failure::new(ErrorCode::FileNotAllowed, message))
    }

    /// What holds, in words, for the agent's start.
    pub fn words(&self) -> Vec<String> {
        let destinations = match self.destinations.as_slice() {
            [] => "any but its own sources; --allow-destination bounds them".to_owned(),
            all => all.join(", "),
        };
        let files = match &self.files {
            Files::Any => "any".to_owned(),
            Files::Below(all) if all.is_empty() => "none; --allow-files-below allows a directory's".to_owned(),
            Files::Below(all) => all.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        let reverse = if self.allow_reverse { "carried out" } else { "refused; --allow-reverse allows them" };
        vec![
            format!("destinations: {destinations}"),
            format!("files that the server may name: {files}"),
            format!("reverse migrations, which write to a source: {reverse}"),
        ]
    }
}

/// Hosts with their ports, in lower case; a name that a DNS record is looked up by has none.
fn hosts(uri: &Uri) -> Vec<String> {
    let with_port = |host: &String| {
        let has_port = host.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':') || name.ends_with(']'));
        let port = if has_port || uri.is_srv() { "" } else { ":27017" };
        format!("{}{port}", host.to_ascii_lowercase())
    };
    uri.hosts().iter().map(with_port).collect()
}

fn parsed(uri: &Secret) -> Result<Uri, Failure> {
    let malformed =
        |fault| Failure::new(ErrorCode::MalformedUri, format!("the destination URI can't be read: {fault}"));
    Uri::parse(uri).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Failure>) -> Option<&'static str> {
        result.err().map(|failure| failure.code.name())
    }

    #[test]
    fn destinations_are_those_that_were_named() {
        let named =
            |all: &[&str]| Bounds { destinations: all.iter().map(|&s| s.to_owned()).collect(), ..Bounds::default() };
        let sources = vec![("old".to_owned(), Secret::new("mongodb://u:p@Old:27017/?replicaSet=rs"))];
        let to = |bounds: &Bounds, uri: &str| code(bounds.destination(&Secret::new(uri), &sources));
        let refused = Some("DESTINATION_NOT_ALLOWED");
        let any = Bounds::default();
        assert_eq!(to(&any, "mongodb://new:27017"), None);
        for own in ["mongodb://old", "mongodb://x:1,OLD:27017/?w=1", "mongodb://a:b@old:27017/db"] {
            assert_eq!(to(&any, own), refused, "{own}");
        }
        let one = named(&["new", "other:27018", "cluster.example.com"]);
        for allowed in
            ["mongodb://new:1,NEW:2", "mongodb://u:p@other:27018", "mongodb+srv://cluster.example.com/?tls=true"]
        {
            assert_eq!(to(&one, allowed), None, "{allowed}");
        }
        for not in
            ["mongodb://other", "mongodb://new:1,evil:1", "mongodb://new@evil", "mongodb+srv://cluster.evil.com/new"]
        {
            assert_eq!(to(&one, not), refused, "{not}");
        }
        // The operator may name one of its sources.
        assert_eq!(to(&named(&["old"]), "mongodb://old:27017"), None);
    }

    #[test]
    fn files_are_opened_below_the_named_directories_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).expect("makes it");
        for file in [inside.join("ca.pem"), dir.path().join("secret")] {
            fs::write(file, "x").expect("writes");
        }
        std::os::unix::fs::symlink(dir.path().join("secret"), inside.join("link")).expect("links");
        let bounds = Bounds { files: Files::Below(vec![inside.clone()]), ..Bounds::default() };
        let uri = |file: &str| Secret::new(format!("mongodb://h/?tls=true&tlsCAFile={file}"));
        let path = |name: &str| inside.join(name).display().to_string();
        assert_eq!(code(bounds.destination(&uri(&path("ca.pem")), &[])), None);
        assert_eq!(code(bounds.destination(&uri(&path("ca.pem").replace('/', "%2F")), &[])), None);
        let refused = Some("FILE_NOT_ALLOWED");
        for name in ["../secret", "link", "absent", "%2e%2e/secret"] {
            assert_eq!(code(bounds.destination(&uri(&path(name)), &[])), refused, "{name}");
        }
        let key = Secret::new("mongodb://h/?TLSCertificateKeyFile=/etc/shadow");
        assert_eq!(code(Bounds::default().destination(&key, &[])), refused);
        assert_eq!(code(Bounds::default().file("caCertificatePath", &path("ca.pem"))), refused);
        assert_eq!(code(Bounds { files: Files::Any, ..Bounds::default() }.destination(&key, &[])), None);
        // There or not: the same words.
        let told = |path: &str| bounds.file("x", path).expect_err("refused").message.replace(path, "");
        assert_eq!(told("/etc/passwd"), told("/etc/no-such-file"));
    }
}
