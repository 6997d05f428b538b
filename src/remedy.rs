//! What a person can do about a problem with the node, the settings, the store's folder, the port
//! or the limits of this machine.
//!
//! Every error and finding about them takes its advice from here, so that there is one list of all
//! advice that is given. `tests/daemon/remedies.rs` names for each the test that follows it, and
//! does not compile while one is missing. What else is advised (errors of the store, refused
//! requests) is listed there, too.

use std::path::PathBuf;

/// The text is an imperative sentence without a full stop; a line for `bitcoin.conf` stands last,
/// after a colon. (`thiserror` is here for its `Display` only.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Remedy {
    #[error("put into bitcoin.conf and restart bitcoind: rpcallowip={address}")]
    AllowAddress { address: String },

    /// The whole line, with every call that the daemon makes.
    #[error(
        "put into bitcoin.conf in place of this user's rpcwhitelist lines, and restart bitcoind: {line}"
    )]
    AllowCalls { line: String },

    #[error("put into bitcoin.conf and restart bitcoind: zmqpub{topic}={endpoint}")]
    Publish {
        topic: &'static str,
        endpoint: String,
    },

    /// `kind` as in `getzmqnotifications`: `pubrawtx`, …
    #[error("put into bitcoin.conf and restart bitcoind: zmq{kind}hwm=0")]
    KeepMessages { kind: String },

    #[error("run a bitcoind that is built with ZMQ")]
    PublishingBuild,

    #[error("remove blocksonly=1 from bitcoin.conf and restart bitcoind")]
    RelayTransactions,

    #[error("run: bitcoin-cli setnetworkactive true")]
    SwitchNetworkOn,

    #[error(
        "let bitcoind reach other nodes, or name one that it can reach: bitcoin-cli addnode HOST:PORT onetry"
    )]
    NamePeer,

    #[error("if that happens often, put into bitcoin.conf and restart bitcoind: rpcworkqueue=256")]
    EnlargeWorkQueue,

    /// The node does something that ends by itself.
    #[error("wait; satwatch goes on by itself")]
    Wait,

    #[error("start bitcoind with server=1, or set bitcoind.rpc_url to where it answers")]
    StartServer,

    #[error(
        "start bitcoind with server=1, or set bitcoind.rpc_url to where it answers and bitcoind.cookie_file to its .cookie"
    )]
    StartOrNameServer,

    #[error("set bitcoind.rpc_url to the RPC port of bitcoind, such as http://127.0.0.1:8332")]
    NameRpcPort,

    /// Somebody answers and wants credentials that we do not have.
    #[error(
        "set bitcoind.cookie_file to the .cookie in the data directory of this bitcoind, or set bitcoind.rpc_user and bitcoind.rpc_password"
    )]
    NameCredentials,

    #[error("correct bitcoind.rpc_user and bitcoind.rpc_password")]
    CorrectLogin,

    /// The login of `bitcoin.conf` is refused: the node was started with another one.
    #[error(
        "restart bitcoind and then satwatch, so that both use what {} says now; or set bitcoind.rpc_user and bitcoind.rpc_password",
        conf.display()
    )]
    RestartForLogin { conf: PathBuf },

    #[error(
        "run satwatch as the user that bitcoind runs as, or make it a user of its own (rpcauth in bitcoin.conf) \
         and set bitcoind.rpc_user and bitcoind.rpc_password"
    )]
    OwnLogin,

    #[error("raise satwatch's limit of open files (ulimit -n, or LimitNOFILE= of its service)")]
    RaiseFileLimit,

    #[error("set this machine's clock, or let NTP set it")]
    SetClock,

    #[error("run Bitcoin Core or Knots 22 or later")]
    UpdateBitcoind,

    #[error(
        "run Bitcoin Core 23 or later, or scan from height 0, which needs it only on a pruned node"
    )]
    ScanFromZero,

    #[error(
        "if what it does from now on is enough, remove it and add it with \"history\": \"none\""
    )]
    WatchFromNow,

    #[error(
        "the balance of descriptor {descriptor} goes without it; if what the descriptor does from now on is enough, remove it and add it with \"history\": \"none\""
    )]
    WatchDescriptorFromNow { descriptor: String },

    #[error(
        "correct or remove bitcoind.zmq_{topic}; it is right as it is if the port is forwarded"
    )]
    CorrectEndpoint { topic: &'static str },

    #[error(
        "open the way to it, or set bitcoind.zmq_rawtx, bitcoind.zmq_rawblock and bitcoind.zmq_sequence to where it is reached from here"
    )]
    ReachEndpoint,

    #[error("set bitcoind.rpc_url to a node of that chain, or store.path to another folder")]
    OtherNodeOrStore,

    /// What the store knows cannot be continued.
    #[error(
        "set store.path to another folder and add the addresses again (their unspent outputs are found, their history since then is not)"
    )]
    BeginAnew,

    #[error("set store.path to a folder that this user may write, or change the folder's owner")]
    WritableFolder,

    #[error("set {setting} to another address or port, or stop the program that has this one")]
    FreePort { setting: &'static str },

    /// The system keeps it for programs of its own.
    #[error("set {setting} to a port from 1024 on")]
    OpenPort { setting: &'static str },

    #[error("write server.listen = \"127.0.0.1:{port}\"")]
    ListenOnLoopback { port: u16 },

    /// Without tokens nobody else may reach the daemon.
    #[error(
        "run satwatch token new --name me --scope admin, or write server.listen = \"127.0.0.1:{port}\""
    )]
    TokenOrLoopback { port: u16 },

    /// The tokens file is lost or damaged.
    #[error(
        "put it back as it was, or begin anew with one token: satwatch token new --anew --name me --scope admin"
    )]
    BeginTokensAnew,

    /// It belongs to another user than the one that this process runs as.
    #[error(
        "run satwatch as the user that {} belongs to ({owner}), or have root give it to this one: chown -R {user} {}",
        path.display(), path.display()
    )]
    GiveTo {
        path: PathBuf,
        owner: u32,
        user: u32,
    },

    #[error("put a token into it that satwatch token generate printed, or take the setting out")]
    GenerateFirstToken,

    /// The tokens file is an older one, or another daemon's.
    #[error(
        "put the newest one of this daemon back, or look at this one with satwatch token list, and if it is right: satwatch token accept"
    )]
    AcceptTokens,

    /// A token ends soon.
    #[error("make another one in time (satwatch token new), and revoke this one")]
    AnotherToken,

    /// The name has addresses that others can reach.
    #[error(
        "run satwatch token new --name me --scope admin, write server.listen = \"127.0.0.1:{port}\", \
         or have /etc/hosts say that {host} is 127.0.0.1"
    )]
    LoopbackName { host: String, port: u16 },

    #[error(
        "raise that limit (LimitNOFILE= for systemd) to {to}, or lower limits.connections to {room}"
    )]
    RaiseHardLimit { to: usize, room: usize },

    /// The files of `server.tls` are not what they should be.
    #[error(
        "set server.tls.cert to a PEM file of the certificate with its chain behind it, and server.tls.key to one of its private key; \
         satwatch cert new makes both for a home network"
    )]
    NamePair,

    #[error(
        "put the certificate first and its chain behind it into the file of server.tls.cert, and the key that it was made for into that of server.tls.key"
    )]
    FitPair,

    #[error(
        "renew it, or move both files away and run satwatch cert new; a running satwatch takes the new ones over by itself"
    )]
    RenewCertificate,

    #[error("let the user that satwatch runs as read {}", path.display())]
    LetRead { path: PathBuf },

    #[error("run: chmod 600 {}", path.display())]
    CloseFile { path: PathBuf },

    #[error("write it without one, and name that file: openssl pkey -in {} -out KEY.pem", path.display())]
    OpenKey { path: PathBuf },

    /// `satwatch edge` needs it.
    #[error("set edge.upstream to the URL of the primary, such as http://10.0.0.5:5005")]
    NameUpstream,

    #[error("start it, or set edge.upstream to its URL, such as http://10.0.0.5:5005")]
    StartPrimary,

    #[error(
        "write edge.upstream with a name that is in the primary's certificate, and name the file of that certificate, or of its authority, in the environment variable SSL_CERT_FILE"
    )]
    TrustPrimary,

    /// Likewise.
    #[error(
        "set bus.url to the Redis that the primary writes to, and bus.stream as the primary has it"
    )]
    NameBus,

    #[error(
        "set edge.token to a token that satwatch token new --name edge --scope read printed at the primary"
    )]
    NameEdgeToken,

    #[error("run the same version on both, the primary first")]
    SameVersion,

    #[error("restart the edge")]
    RestartEdge,

    #[error(
        "make a token at the primary (satwatch token new --name edge --scope read) and set edge.token to it, or listen on 127.0.0.1"
    )]
    TokenAtPrimary,

    /// Nobody answers where a daemon is expected.
    #[error("start it (satwatch run), or say where it is with --url")]
    StartDaemon,

    /// Somebody else answers, or none can be expected there.
    #[error("say where it is with --url, as its line \"listening on\" does")]
    NameDaemon,

    #[error(
        "put a token that satwatch token new --name me --scope watch printed into SATWATCH_TOKEN, or into a file and name that with --token-file"
    )]
    GiveToken,

    /// The certificate of a daemon is not trusted, or has another name.
    #[error(
        "name the daemon's certificate with --cacert, and with --url a name that is in the certificate"
    )]
    TrustDaemon,

    /// The path of another user's home directory, or a name that begins like one.
    #[error("write the whole path, or \"./~…\" for such a name")]
    WholePathOrName,

    #[error("start Redis, or set bus.url to where it listens")]
    ReachRedis,

    #[error(
        "write bus.url with a name that is in Redis's certificate, and name the file of its authority in the environment variable SSL_CERT_FILE"
    )]
    TrustRedis,

    #[error("correct user and password in bus.url: redis://user:password@host:6379")]
    CorrectBusLogin,

    /// For a user that exists.
    #[error(
        "run: redis-cli ACL SETUSER NAME '~{keys}*' +@hash +@stream +@scripting +unlink +expire +info +time +select"
    )]
    AllowBus { keys: String },

    #[error("run Redis 6.2 or later, or Valkey")]
    UpdateRedis,

    #[error("set bus.url to the master, or to its Sentinels: redis+sentinel://host:26379/master")]
    NameRedisMaster,

    #[error("write the master in bus.url as sentinel.conf names it (sentinel monitor)")]
    NameSentinelMaster,

    #[error("raise maxmemory in redis.conf, or lower bus.max_length")]
    RedisMemory,

    #[error("start the replicas of Redis, or lower min-replicas-to-write in redis.conf")]
    StartReplicas,

    #[error("set bus.stream to another name")]
    OtherBusStream,

    /// The lease of one that was killed lapses by itself.
    #[error(
        "stop the other satwatch, or set bus.stream to another name; if the other one was killed, wait ten seconds"
    )]
    OneBusWriter,
}
