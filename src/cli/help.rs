//! What `--help` says behind the options: examples, which a test parses, and what a flag cannot
//! say.

pub const SATWATCH: &str = "\
Examples:
  satwatch                            # the daemon
  satwatch doctor                     # what is wrong, and what to change where
  satwatch watch bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq
  satwatch token new --help

Settings, each of which wins over those before it:
  built-in defaults
  the file of --settings, else settings.toml in the working directory if it is there
  the environment: SATWATCH__SERVER__LISTEN=127.0.0.1:5005 is server.listen
  flags
The settings.toml that comes with satwatch lists them all.

Exit codes:
  0  done; a daemon: ended in order by SIGTERM or SIGINT
  1  failed, and standard error says why
  2  a flag or a setting is wrong, and nothing was begun

SIGHUP has the daemon read limits, tokens and certificates again. Log lines go to standard error.";

pub const RUN: &str = "\
Examples:
  satwatch run
  satwatch run --settings /etc/satwatch/settings.toml
  satwatch run --listen 127.0.0.1:5006 --data-dir /var/lib/satwatch
  satwatch run --check                # the settings alone";

pub const EDGE: &str = "\
It needs edge.upstream, the URL of the primary, and the bus.url that the primary has. It keeps no
state and needs no node: store and bitcoind in its settings mean nothing.

Examples:
  satwatch edge
  satwatch edge --settings /etc/satwatch/edge.toml
  satwatch edge --listen 127.0.0.1:5006
  satwatch edge --check               # the settings alone";

pub const DOCTOR: &str = "\
It changes nothing, and ends with 0 only when all is well.

Examples:
  satwatch doctor
  satwatch doctor --settings /etc/satwatch/settings.toml";

pub const CERT: &str = "\
Examples:
  satwatch cert new
  satwatch cert new --help";

pub const CERT_NEW: &str = "\
Examples:
  satwatch cert new
  satwatch cert new --host satwatch.lan --host 192.168.1.5";

pub const TOKEN: &str = "\
Examples:
  satwatch token new --name shop --scope watch
  satwatch token list
  satwatch token revoke shop";

pub const TOKEN_NEW: &str = "\
The token alone goes to standard output, this once; what there is to say about it to standard error.

Examples:
  satwatch token new --name me --scope admin
  satwatch token new --name shop --scope watch --expires 90d
  satwatch token new --name prometheus --scope metrics";

pub const TOKEN_LIST: &str = "\
Examples:
  satwatch token list";

pub const TOKEN_REVOKE: &str = "\
Examples:
  satwatch token revoke shop";

pub const TOKEN_OFF: &str = "\
Examples:
  satwatch token off";

pub const TOKEN_ACCEPT: &str = "\
Examples:
  satwatch token list
  satwatch token accept";

pub const TOKEN_GENERATE: &str = "\
Examples:
  satwatch token generate > /run/secrets/satwatch_first_token";

pub const WATCH: &str = "\
First comes the balance and whether it is complete, then a line for each event, each once, also over
restarts of the daemon. It ends with Ctrl-C, and with 1 when it cannot go on: standard error says
why. A token of scope read follows what is watched already: addresses, and wallets by their ids
(GET /descriptors), since a descriptor is added always.

Examples:
  satwatch watch bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq
  satwatch watch 'wpkh([d34db33f/84h/0h/0h]xpub.../<0;1>/*)'
  satwatch watch --json bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq | jq .data.delta
  satwatch watch --url https://node.lan:5005 --cacert cert.pem --token-file shop.token 1BoatSLRHtKNngkdXEeobR76b53LETtpyT";

pub const COMPLETIONS: &str = "\
Examples:
  satwatch completions bash > ~/.local/share/bash-completion/completions/satwatch
  satwatch completions zsh > ~/.zfunc/_satwatch
  satwatch completions fish > ~/.config/fish/completions/satwatch.fish";

pub const MAN: &str = "\
Examples:
  satwatch man | man -l -
  satwatch man token new > satwatch-token-new.1";
