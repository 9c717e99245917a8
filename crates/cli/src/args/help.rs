//! What `--help` says below the options: examples first, then what a script needs.

pub(super) const LIMOSA: &str = "\
Examples:
  A whole migration on this machine; the source continues being used until the cutover:
    export LIMOSA_SOURCE_URI='mongodb://user:password@old:27017/?replicaSet=rs0'
    export LIMOSA_DESTINATION_URI='mongodb://user:password@new:27017/?replicaSet=rs0'
    limosa migrate
  When it says that it is ready, stop the application's writes and, in another terminal:
    limosa migrations cutover --wait

Environment:
  LIMOSA_SOURCE_URI, LIMOSA_DESTINATION_URI   keep passwords out of the process list
  LIMOSA_PROFILE                              the file that --profile names
  LIMOSA_LOG                                  what to log, for instance 'debug' or 'limosa_engine=debug'
  LIMOSA_LOG_FORMAT                           text or json, as --log-format
  NO_COLOR                                    no colours on the terminal";

pub(super) const MIGRATE: &str = "\
Examples:
  limosa migrate
  limosa migrate --include-ns 'shop.*' --exclude-ns shop.sessions
  limosa migrate --cutover when-ready --output json
  limosa migrate --listen 127.0.0.1:8080      with the page in the browser at a known address

On a terminal it takes the whole screen: c cuts over, p pauses, l changes the load, q continues
in plain lines.

Exit status:
  0 complete   1 failed   2 wrong usage, or refused before anything was written   3 expired
  130 interrupted; run the same command again and it continues where it was

Everything for people goes to stderr. With --output json, stdout has one object a line, each with
\"event\", \"time\" and \"migrationId\": started, phase, progress, readyForCutover, complete, failed.";

pub(super) const CHECK: &str = "\
Examples:
  limosa check
  limosa check --output json

Exit status:
  0 it could start   2 it could not; each reason has a code, which 'limosa explain CODE' explains";

pub(super) const VERIFY: &str = "\
Examples:
  limosa verify
  limosa verify --settle 10 --include-ns 'shop.*'

Exit status:
  0 equal   1 different   2 it could not be said

Works after any tool, and while one is still replicating: with --settle 10 only what still differs after ten
seconds counts. Both users need readAnyDatabase and clusterMonitor. The report goes to stdout, progress to stderr.";

pub(super) const SERVER: &str = "\
Examples:
  limosa server --data-dir /var/lib/limosa
  limosa server --data-dir /var/lib/limosa --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem

The first start writes the first owner's keys to bootstrap.json in the data directory. The page in the browser is at
the address that it listens on; sign in with those keys.";

pub(super) const AGENT: &str = "\
Example:
  limosa agent --server https://limosa.example.com --link-token \"$TOKEN\" --host-name mover1.example.com \\
         --source orders=mongodb://user:password@old:27017/?replicaSet=rs0

A source may be given as NAME=@FILE: the URI is then read from the file's first line.";

pub(super) const MIGRATIONS: &str = "\
Examples:
  limosa migrations list
  limosa migrations watch
  limosa migrations cutover --wait
  limosa migrations extend --hours 48
  limosa migrations describe 6721f0c5a1b2c3d4e5f60718 --profile /var/lib/limosa/profile.toml --output json";

pub(super) const CLUSTERS: &str = "\
Examples:
  limosa clusters add --name new --uri \"$LIMOSA_DESTINATION_URI\" --profile /var/lib/limosa/profile.toml
  limosa clusters list";

pub(super) const LINK: &str = "\
Examples:
  limosa link create --profile /var/lib/limosa/profile.toml
  limosa link delete --profile /var/lib/limosa/profile.toml";

pub(super) const NOTIFY: &str = "\
Examples:
  limosa notify test /etc/limosa/notify.toml
  limosa server --data-dir /var/lib/limosa --notify /etc/limosa/notify.toml";

pub(super) const EXPLAIN: &str = "\
Examples:
  limosa explain HISTORY_LOST
  limosa explain               lists all codes";

pub(super) const DOCTOR: &str = "\
Examples:
  limosa doctor
  limosa doctor --profile /var/lib/limosa/profile.toml --file report.json

Look it over before you send it: it names hosts and namespaces.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  limosa completions bash > /etc/bash_completion.d/limosa
  limosa completions zsh > \"${fpath[1]}/_limosa\"
  limosa completions fish > ~/.config/fish/completions/limosa.fish";

pub(super) const MAN: &str = "\
Example:
  limosa man /usr/local/share/man/man1";

pub(super) const ROTATE_KEY: &str = "\
Example:
  limosa rotate-key --data-dir /var/lib/limosa

Interrupted, the next start of the server or the same command finds the store whole, under the old key or the new one.
What was backed up before opens only with the key that was backed up with it.";

pub(super) const LIST: &str = "\
Examples:
  limosa migrations list
  limosa migrations list --profile /var/lib/limosa/profile.toml --output json";

pub(super) const DESCRIBE: &str = "\
Examples:
  limosa migrations describe
  limosa migrations describe 6721f0c5a1b2c3d4e5f60718 --output json";

pub(super) const WATCH: &str = "\
Examples:
  limosa migrations watch
  limosa migrations watch --quiet

On the full screen c cuts over, p pauses, l changes the load, q leaves it; the migration continues.";

pub(super) const CUTOVER: &str = "\
Examples:
  limosa migrations rehearse                        first, while the application still writes
  limosa migrations cutover --wait                  once its writes are stopped
  limosa migrations cutover --block-source-writes --reversible --wait

If something is in the way, nothing is lost: it goes back to ready, says why, and can be asked for again.";

pub(super) const ABORT_CUTOVER: &str = "\
Examples:
  limosa migrations abort-cutover
  limosa migrations abort-cutover 6721f0c5a1b2c3d4e5f60718

It returns when the migration is ready again. A cutover that completes first stays complete.";

pub(super) const REHEARSE: &str = "\
Examples:
  limosa migrations rehearse
  limosa migrations rehearse --output json";

pub(super) const EVENTS: &str = "\
Examples:
  limosa migrations events
  limosa migrations events 6721f0c5a1b2c3d4e5f60718 --output json";

pub(super) const REPORT: &str = "\
Examples:
  limosa migrations report > report.md
  limosa migrations report --output json > report.json";

pub(super) const PAUSE: &str = "\
Examples:
  limosa migrations pause
  limosa migrations resume

While it is paused the source's changes aren't read: resume before its oplog has lost them.";

pub(super) const RESUME: &str = "\
Examples:
  limosa migrations resume
  limosa migrations resume --recopy                 after HISTORY_LOST";

pub(super) const LIMIT: &str = "\
Examples:
  limosa migrations limit --load-level 2
  limosa migrations limit --max-source-read-mbps 400 --max-destination-write-mbps 0";

pub(super) const EXTEND: &str = "\
Examples:
  limosa migrations extend
  limosa migrations extend --hours 48";

pub(super) const CANCEL: &str = "\
Examples:
  limosa migrations cancel                          what was copied stays
  limosa migrations cancel --drop-copied            and is dropped here

A cancelled migration can't be resumed.";

pub(super) const CLUSTERS_ADD: &str = "\
Examples:
  limosa clusters add --name new --uri \"$LIMOSA_DESTINATION_URI\"
  limosa clusters add --name new --uri \"$LIMOSA_DESTINATION_URI\" --profile /var/lib/limosa/profile.toml

Without --uri it is taken from LIMOSA_DESTINATION_URI.";

pub(super) const CLUSTERS_LIST: &str = "\
Examples:
  limosa clusters list
  limosa clusters list --output json";

pub(super) const LINK_CREATE: &str = "\
Examples:
  limosa link create --profile /var/lib/limosa/profile.toml
  limosa link create --output json

An agent takes it from the environment: LIMOSA_LINK_TOKEN.";

pub(super) const LINK_ROTATE: &str = "\
Examples:
  limosa link rotate --profile /var/lib/limosa/profile.toml
  limosa link rotate --grace 0s --output json

Restart each agent with the new token before the grace time is over.";

pub(super) const LINK_DELETE: &str = "\
Examples:
  limosa link delete --profile /var/lib/limosa/profile.toml
  limosa link delete --force

While a migration is under way its agent needs the token; then this is refused without --force.";

pub(super) const NOTIFY_TEST: &str = "\
Example:
  limosa notify test /etc/limosa/notify.toml";
