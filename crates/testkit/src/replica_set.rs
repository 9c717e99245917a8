//! Replica sets of real `mongod` processes on free ports.

use crate::{Error, Proxy, mongod, tls::Certificates};
use bson::{Bson, Document, doc};
use mongodb::{Client, options::ClientOptions};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// User and password of the administrator, where access control is on.
pub const ADMIN: (&str, &str) = ("root", "secret:/@1");

/// What a replica set is in a sharded cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Started for a shard; it is one once [`ReplicaSet::join_cluster`] has said so.
    Shard,
    /// Holds the cluster's catalog.
    Config,
}

/// How to start one.
#[derive(Clone, Debug)]
pub struct Builder {
    version: String,
    members: usize,
    arbiter: bool,
    auth: bool,
    tls: bool,
    certificate_life: Option<Duration>,
    dir: Option<PathBuf>,
    standalone: bool,
    role: Option<Role>,
    oplog_mb: u32,
    proxied: bool,
    cache_gb: f64,
    many_files: bool,
    uncompressed: bool,
}

/// How WiredTiger closes the files that nothing uses: looked for every second, after three of idleness. It makes one for
/// each collection and one for each index, and would keep them all open for as long as it takes to run out of them.
const CLOSE_IDLE_FILES: &str = "file_manager=(close_idle_time=3,close_scan_interval=1,close_handle_minimum=1000)";

impl Builder {
    /// The version of all members.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// One to three.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// The last member holds no data and only votes.
    #[must_use]
    pub fn arbiter(mut self) -> Self {
        self.arbiter = true;
        self
    }

    /// With access control and the user [`ADMIN`].
    #[must_use]
    pub fn auth(mut self, auth: bool) -> Self {
        self.auth = auth;
        self
    }

    /// Only over TLS.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Only over TLS, with a certificate that expires so soon; see [`ReplicaSet::renew_certificate`].
    #[must_use]
    pub fn tls_for(mut self, life: Duration) -> Self {
        (self.tls, self.certificate_life) = (true, Some(life));
        self
    }

    /// All its files below this directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// One server without a replica set.
    #[must_use]
    pub fn standalone(mut self) -> Self {
        self.standalone = true;
        self
    }

    /// A part of a sharded cluster.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Every member behind a [`Proxy`], under whose address clients and the other members know it.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// The oplog's size.
    #[must_use]
    pub fn oplog_mb(mut self, megabytes: u32) -> Self {
        self.oplog_mb = megabytes;
        self
    }

    /// Each member's cache.
    #[must_use]
    pub fn cache_gb(mut self, gigabytes: f64) -> Self {
        self.cache_gb = gigabytes;
        self
    }

    /// For more collections and indexes than a process may have files open.
    #[must_use]
    pub fn many_files(mut self) -> Self {
        self.many_files = true;
        self
    }

    /// Its messages go over the wire as they are, however far away it seems: a proxy then finds what is in them.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.uncompressed = true;
        self
    }

    /// Starts it and waits for a primary.
    pub async fn start(self) -> Result<ReplicaSet, Error> {
        let binary = mongod::ensure(&self.version)?;
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("limosa-mongod-");
        let dir = self.dir.as_ref().map_or_else(|| dir.tempdir(), |parent| dir.tempdir_in(parent))?;
        if self.auth {
            let key = dir.path().join("key");
            fs::write(&key, "bGltb3NhIHRlc3Qga2V5IGZpbGU=\n")?;
            fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        }
        let certificates = match self.tls {
            true => Some(Certificates::write_for(dir.path(), self.certificate_life)?),
            false => None,
        };
        let ports = free_ports(self.members)?;
        let (dir, children) = (Some(dir), Vec::new());
        let mut proxies = Vec::new();
        if self.proxied {
            for port in &ports {
                proxies.push(Proxy::start(([127, 0, 0, 1], *port).into()).await?);
            }
        }
        let mut set = ReplicaSet { builder: self, binary, dir, certificates, ports, proxies, children, users: false };
        for index in 0..set.ports.len() {
            let child = set.spawn(index)?;
            set.children.push(Some(child));
        }
        set.initiate().await?;
        Ok(set)
    }
}

fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    // All are held until all are known, so that none is given out twice.
    let held = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<Vec<_>, _>>()?)
}

/// A running replica set; killed when dropped, its directory kept if a test failed.
pub struct ReplicaSet {
    builder: Builder,
    binary: mongod::Binary,
    dir: Option<tempfile::TempDir>,
    certificates: Option<Certificates>,
    ports: Vec<u16>,
    proxies: Vec<Proxy>,
    children: Vec<Option<Child>>,
    users: bool,
}

impl ReplicaSet {
    /// One member of the default version, unless asked otherwise.
    pub fn builder() -> Builder {
        Builder {
            version: mongod::DEFAULT_VERSION.to_owned(),
            members: 1,
            arbiter: false,
            auth: false,
            tls: false,
            certificate_life: None,
            dir: None,
            standalone: false,
            role: None,
            oplog_mb: 512,
            proxied: false,
            cache_gb: 0.5,
            many_files: false,
            uncompressed: false,
        }
    }

    /// One member of the default version.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.as_ref().map(|d| d.path().to_owned()).unwrap_or_default()
    }

    fn spawn(&self, index: usize) -> Result<Child, Error> {
        let data = self.path().join(format!("member{index}"));
        fs::create_dir_all(&data)?;
        let mut inner = self.binary.command();
        // Dies with the test, also when that is killed.
        let mut command =
            if Command::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary.path);
                if let Some(libraries) = &self.binary.library_path {
                    command.env("LD_LIBRARY_PATH", libraries);
                }
                command
            } else {
                inner.stdin(Stdio::null());
                inner
            };
        command
            .args([
                "--port",
                &self.ports[index].to_string(),
                "--bind_ip",
                "127.0.0.1",
                "--wiredTigerCacheSizeGB",
                &self.builder.cache_gb.to_string(),
            ])
            .args(["--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false"])
            .arg("--dbpath")
            .arg(&data)
            .arg("--logpath")
            .arg(self.path().join(format!("member{index}.log")))
            .arg("--logappend");
        if self.builder.many_files {
            command.args(["--wiredTigerEngineConfigString", CLOSE_IDLE_FILES]);
        }
        if self.builder.uncompressed {
            command.args(["--networkMessageCompressors", "disabled"]);
        }
        if !self.builder.standalone {
            command.args(["--replSet", "rs", "--oplogSize", &self.builder.oplog_mb.to_string()]);
        }
        match self.builder.role {
            Some(Role::Shard) => drop(command.arg("--shardsvr")),
            Some(Role::Config) => drop(command.arg("--configsvr")),
            None => {}
        }
        if let Some(certificates) = &self.certificates {
            command.args(["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"]);
            command.arg("--tlsCertificateKeyFile").arg(&certificates.both);
            command.arg("--tlsCAFile").arg(&certificates.authority);
        }
        if self.builder.auth {
            command.arg("--keyFile").arg(self.path().join("key"));
        }
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    async fn initiate(&mut self) -> Result<(), Error> {
        let direct = self.direct(0).await?;
        let admin = direct.database("admin");
        wait_for(PATIENCE, async || admin.run_command(doc! {"ping": 1}).await.is_ok()).await?;
        if !self.builder.standalone {
            let last = self.ports.len() - 1;
            let member = |i: usize| {
                let mut member = doc! {"_id": i as i32, "host": self.member_addr(i)};
                if self.builder.arbiter && i == last {
                    member.insert("arbiterOnly", true);
                }
                Bson::Document(member)
            };
            let members: Vec<Bson> = (0..self.ports.len()).map(member).collect();
            let mut config = doc! {"_id": "rs", "members": members, "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}};
            if self.builder.role == Some(Role::Config) {
                config.insert("configsvr", true);
            }
            let initiate = doc! {"replSetInitiate": config};
            wait_for(PATIENCE, async || match admin.run_command(initiate.clone()).await {
                Ok(_) => true,
                Err(e) => e.to_string().contains("already initialized"),
            })
            .await?;
            wait_for(PATIENCE, async || {
                hello(&direct).await.is_some_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false))
            })
            .await?;
        }
        if self.builder.auth {
            let create = doc! {"createUser": ADMIN.0, "pwd": ADMIN.1, "roles": ["root"]};
            admin.run_command(create).await?;
            self.users = true;
        }
        Ok(())
    }

    /// A client of one member alone, past its proxy.
    pub async fn direct(&self, index: usize) -> Result<Client, Error> {
        let mut options = ClientOptions::parse(format!(
            "mongodb://127.0.0.1:{}/?directConnection=true{}",
            self.ports[index],
            self.tls()
        ))
        .await?;
        options.server_selection_timeout = Some(Duration::from_secs(5));
        Ok(Client::with_options(options)?)
    }

    /// The options with which a client trusts it, if it wants TLS.
    fn tls(&self) -> String {
        let files = self.certificates.as_ref();
        files
            .map(|files| format!("&tls=true&tlsCAFile={}", encode(&files.authority.to_string_lossy())))
            .unwrap_or_default()
    }

    /// `host:port`, of the proxy if there is one.
    pub fn member_addr(&self, index: usize) -> String {
        match self.proxies.get(index) {
            Some(proxy) => proxy.addr().to_string(),
            None => format!("127.0.0.1:{}", self.ports[index]),
        }
    }

    /// What is in front of a member of a set that is [`Builder::proxied`].
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// Turns a server's own failpoint on (`alwaysOn`) or `off`.
    pub async fn fail_point(&self, index: usize, name: &str, mode: &str) -> Result<(), Error> {
        let command = doc! {"configureFailPoint": name, "mode": mode};
        self.direct(index).await?.database("admin").run_command(command).await?;
        Ok(())
    }

    /// What a member has logged so far.
    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.path().join(format!("member{index}.log"))).unwrap_or_default()
    }

    /// The process of a member, unless it was killed.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.children[index].as_ref().map(Child::id)
    }

    /// What a client connects with, credentials included.
    pub fn uri(&self) -> String {
        self.uri_with(if self.users { Some(ADMIN) } else { None })
    }

    /// The same with other credentials, or none.
    pub fn uri_with(&self, user: Option<(&str, &str)>) -> String {
        let hosts: Vec<String> = (0..self.ports.len()).map(|i| self.member_addr(i)).collect();
        let user = user.map(|(name, password)| format!("{}:{}@", encode(name), encode(password))).unwrap_or_default();
        let options = if self.builder.standalone { "directConnection=true" } else { "replicaSet=rs" };
        format!("mongodb://{user}{}/?{options}{}", hosts.join(","), self.tls())
    }

    /// A client of its own for the caller's runtime.
    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.uri()).await.expect("the URI is well formed")
    }

    /// A client of one member alone, whatever its state.
    pub async fn direct_client(&self, index: usize) -> Result<Client, Error> {
        self.direct(index).await
    }

    /// Makes this set, started as [`Role::Shard`], a shard of the cluster whose catalog `config` holds: by the document
    /// that `mongos` writes to it when it is added.
    pub async fn join_cluster(&self, config: &Self) -> Result<(), Error> {
        let hosts: Vec<String> = (0..config.ports.len()).map(|i| config.member_addr(i)).collect();
        let identity = doc! {
            "_id": "shardIdentity",
            "shardName": "shard1",
            "clusterId": bson::oid::ObjectId::new(),
            "configsvrConnectionString": format!("rs/{}", hosts.join(",")),
        };
        self.client().await.database("admin").collection("system.version").insert_one(identity).await?;
        Ok(())
    }

    /// Adds an empty member that can't become primary and waits until it is a secondary. Returns its index.
    pub async fn add_member(&mut self) -> Result<usize, Error> {
        let index = self.ports.len();
        self.ports.extend(free_ports(1)?);
        let child = self.spawn(index)?;
        self.children.push(Some(child));
        let host = self.member_addr(index);
        let member = doc! {"_id": index as i32, "host": host, "priority": 0, "votes": 0};
        self.reconfigure(|members| members.push(member.into())).await?;
        let direct = self.direct(index).await?;
        wait_for(PATIENCE * 20, async || {
            hello(&direct).await.is_some_and(|h| h.get_bool("secondary").unwrap_or(false))
        })
        .await?;
        Ok(index)
    }

    /// Takes a member out that [`Self::add_member`] put in, and its data.
    pub async fn remove_member(&mut self, index: usize) -> Result<(), Error> {
        self.reconfigure(|members| members.truncate(index)).await?;
        self.kill(index);
        self.children.truncate(index);
        self.ports.truncate(index);
        fs::remove_dir_all(self.path().join(format!("member{index}")))?;
        Ok(())
    }

    async fn reconfigure(&self, change: impl FnOnce(&mut Vec<Bson>)) -> Result<(), Error> {
        let admin = self.client().await.database("admin");
        let reply = admin.run_command(doc! {"replSetGetConfig": 1}).await?;
        let mut config = reply.get_document("config")?.clone();
        change(config.get_array_mut("members")?);
        let version = config.get_i32("version")? + 1;
        config.insert("version", version);
        admin.run_command(doc! {"replSetReconfig": config}).await?;
        Ok(())
    }

    /// Puts a certificate that is valid for long in the place of the one it has; the next start takes it.
    pub fn renew_certificate(&self) -> Result<(), Error> {
        let files = self.certificates.as_ref().ok_or("it has no certificate")?;
        fs::copy(&files.renewed, &files.both)?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where a member keeps its data. They are whole and may be copied while it doesn't run.
    pub fn files(&self, index: usize) -> PathBuf {
        self.path().join(format!("member{index}"))
    }

    fn signal(&self, index: usize, name: &str) {
        if let Some(child) = &self.children[index] {
            let _ = Command::new("kill").arg(name).arg(child.id().to_string()).status();
        }
    }

    /// SIGSTOP: there, but answers nothing.
    pub fn stop(&self, index: usize) {
        self.signal(index, "-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self, index: usize) {
        self.signal(index, "-CONT");
    }

    /// Starts a killed member again and waits until it is primary or secondary.
    pub async fn restart(&mut self, index: usize) -> Result<(), Error> {
        self.kill(index);
        self.children[index] = Some(self.spawn(index)?);
        let direct = self.direct(index).await?;
        wait_for(PATIENCE, async || {
            hello(&direct)
                .await
                .is_some_and(|h| ["isWritablePrimary", "secondary"].iter().any(|f| h.get_bool(f).unwrap_or(false)))
        })
        .await
    }

    /// Makes the primary step down.
    pub async fn step_down(&self) -> Result<(), Error> {
        let command = doc! {"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5, "force": true};
        // The connection may be closed before the answer comes.
        let _ = self.client().await.database("admin").run_command(command).await;
        Ok(())
    }

    /// Which member is primary now, waiting for one.
    pub async fn primary_index(&self) -> Result<usize, Error> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for index in 0..self.ports.len() {
                let direct = self.direct(index).await?;
                if self.children[index].is_some()
                    && hello(&direct).await.is_some_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false))
                {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("no primary".into())
    }
}

/// Percent-encoded, as a URI takes it.
fn encode(text: &str) -> String {
    let one = |b: u8| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        for index in 0..self.children.len() {
            self.kill(index);
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept {}", dir.keep().display());
        }
    }
}

async fn hello(client: &Client) -> Option<Document> {
    client.database("admin").run_command(doc! {"hello": 1}).await.ok()
}

async fn wait_for(patience: Duration, mut state: impl AsyncFnMut() -> bool) -> Result<(), Error> {
    let began = Instant::now();
    while !state().await {
        if began.elapsed() > patience {
            return Err("a server did not reach the state waited for".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
