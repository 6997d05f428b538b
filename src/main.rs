//! The binary: flags, logging, run, exit code (0 good, 1 failed, 2 wrong flags or settings).

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use satwatch::certificates::{self, CertificateFiles};
use satwatch::cli::{self, CertCommand, Cli, Command};
use satwatch::config::{self, Config, Log, LogFormat};
use satwatch::progress::Bars;
use satwatch::shutdown::Signals;
use satwatch::{app, doctor, open_files, token, watch};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const WRONG_SETTINGS: u8 = 2;
const LAST_TASKS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| cli::without_secrets(error).exit());
    if cli.check() && !matches!(cli.task(), Command::Run | Command::Edge) {
        let _ = writeln!(
            stderr(),
            "--check only looks at the settings, and this command does something: they exclude each other"
        );
        return ExitCode::from(WRONG_SETTINGS);
    }
    match cli.task() {
        Command::Completions { shell } => print(Ok(cli::completions(shell))),
        Command::Man { words } => print(cli::man(&words)),
        Command::Doctor => match cli.load() {
            Err(error) => doctor::settings_are_wrong(&error, &mut stdout()),
            Ok(config) => {
                open_files::raise();
                let (file, mut out) = (cli.settings_file(), stdout());
                with_runtime(doctor::examine(&config, file, &mut out))
            }
        },
        Command::Token(command) => {
            with_settings(&cli, |config| ended(token::carry_out(&config, command)))
        }
        Command::Cert(CertCommand::New { hosts }) => {
            with_settings(&cli, |config| ended(make_certificate(&config, &hosts)))
        }
        Command::Watch(command) => with_settings(&cli, |config| {
            with_runtime(async { ended(watch::watch(&config, &command.into()).await) })
        }),
        Command::Run => with_settings(&cli, |config| run_or_check(config, cli.clone())),
        Command::Edge => with_settings(&cli, |config| edge_or_check(config, cli.clone())),
    }
}

fn with_settings(cli: &Cli, work: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match cli.load() {
        Ok(config) => work(config),
        Err(error) => {
            let _ = writeln!(stderr(), "{error}");
            ExitCode::from(WRONG_SETTINGS)
        }
    }
}

/// `run`, with or without `--check`
fn run_or_check(config: Config, cli: Cli) -> ExitCode {
    match app::credentials_problem(&config) {
        Some(problem) => {
            let _ = writeln!(stderr(), "{}", problem.what);
            match problem.is_of_settings {
                true => ExitCode::from(WRONG_SETTINGS),
                false => ExitCode::FAILURE,
            }
        }
        None if cli.check() => check(&config, cli.settings_file()),
        None => process(config, cli, "satwatch starts", run),
    }
}

/// `edge`, with or without `--check`
fn edge_or_check(config: Config, cli: Cli) -> ExitCode {
    match app::edge_problem(&config) {
        Some((what, remedy)) => {
            let _ = writeln!(stderr(), "satwatch edge: {what}: {remedy}");
            ExitCode::from(WRONG_SETTINGS)
        }
        None if cli.check() => check(&config, cli.settings_file()),
        None => process(config, cli, "satwatch edge starts", edge),
    }
}

/// For what is a file to others. A reader that has gone away is no reason to fail.
fn print(text: std::io::Result<Vec<u8>>) -> ExitCode {
    let printed = text.and_then(|text| stdout().write_all(&text));
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        printed => ended(printed.map_err(Into::into)),
    }
}

/// Says why a command failed.
fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn with_runtime(task: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name("tokio")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(stderr(), "cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(task);
    // Tasks that are left (a client's session that does not end) let go of the store before the
    // process tears down what RocksDB stands on; a blocking read that still runs must not hold the
    // exit up. What counts has been committed.
    runtime.shutdown_timeout(LAST_TASKS);
    code
}

/// What runs until it is told to end.
fn process<Running>(
    config: Config,
    cli: Cli,
    begins: &str,
    run: impl FnOnce(Config, Cli, Bars) -> Running,
) -> ExitCode
where
    Running: Future<Output = Result<()>>,
{
    open_files::raise();
    let bars = Bars::default();
    with_runtime(async {
        start_log(&config.log, bars.clone());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            settings = doctor::settings_place(cli.settings_file()),
            "{begins}"
        );
        for warning in warnings(&config) {
            tracing::warn!("{warning}");
        }
        match run(config, cli, bars).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    })
}

/// `--check`: what the settings say, and what is in the files that they name.
fn check(config: &Config, settings: Option<&Path>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for warning in warnings(config) {
        let _ = writeln!(stderr(), "{warning}");
    }
    for finding in doctor::certificate_findings(config) {
        if finding.stops_start {
            code = ExitCode::from(WRONG_SETTINGS);
        }
        if let Some(remedy) = finding.remedy {
            let _ = writeln!(stderr(), "TLS: {}: {remedy}", finding.what);
        }
    }
    if code == ExitCode::SUCCESS {
        let place = doctor::settings_place(settings);
        let _ = writeln!(stdout(), "the settings are good ({place})");
    }
    code
}

/// `cert new`
fn make_certificate(config: &Config, hosts: &[String]) -> Result<()> {
    let named = CertificateFiles::of(&config.tls);
    let is_named = named.is_some();
    let files = named.unwrap_or_else(|| CertificateFiles {
        cert: "cert.pem".into(),
        key: "key.pem".into(),
    });
    let made = certificates::make(&files, hosts, SystemTime::now())?;
    let [cert, key] = [&files.cert, &files.key].map(|path| path.canonicalize());
    let (cert, key) = (cert?, key?);
    // A text of JSON is one of TOML.
    let [cert_in_toml, key_in_toml] =
        [&cert, &key].map(|path| serde_json::json!(path.to_string_lossy()));
    let (cert, key) = (cert.display(), key.display());
    let mut said = format!(
        "made {cert} and its key {key}\nfor {}\ngood until {}\n",
        made.names.join(", "),
        httpdate::fmt_http_date(made.not_after)
    );
    if !is_named {
        said += &format!(
            "\nput into the settings:\n[server.tls]\ncert = {cert_in_toml}\nkey = {key_in_toml}\n"
        );
    }
    if let Some(refused) = certificates::refused_names(&made.names, &config.server.allowed_hosts) {
        said += &format!("\n{refused}\n");
    }
    let port = match config.server.listen.port {
        0 => "PORT".to_owned(),
        port => port.to_string(),
    };
    said += &format!(
        "\nclients trust it when they are given the certificate, never the key: curl --cacert {cert} https://localhost:{port}/status\n"
    );
    // A reader that has gone away is no reason to fail: both are made.
    let _ = stdout().write_all(said.as_bytes());
    Ok(())
}

/// Of settings that are none any more, of environment variables that look as if they were one, and
/// of files with credentials that others may read or change.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.no_longer_needed.clone();
    let names = config::overlooked(std::env::vars_os().map(|(name, _)| name));
    if !names.is_empty() {
        warnings.push(format!(
            "these environment variables are no settings, whose names are SATWATCH__SECTION__NAME: {}",
            names.join(", ")
        ));
    }
    let open = doctor::open_files_with_credentials(config).into_iter();
    warnings.extend(open.map(|(what, remedy)| format!("{what}: {remedy}")));
    warnings
}

/// Runs until a signal or a failure, then stops in order.
async fn run(config: Config, cli: Cli, bars: Bars) -> Result<()> {
    let mut signals = Signals::install().context("cannot listen for signals")?;
    let reloads = signals.reloads();
    let mut running = tokio::select! {
        started = app::start(config, read_again(cli), reloads) => started?,
        signal = signals.stop() => {
            tracing::info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    let drawing = tokio::spawn(bars.clone().draw(running.progress.clone()));
    let failure = tokio::select! {
        signal = signals.stop() => {
            tracing::info!(signal, "stopping");
            None
        }
        failure = running.failed() => {
            tracing::error!("{failure:#}: stopping");
            Some(failure)
        }
    };
    drawing.abort();
    let _ = drawing.await;
    bars.end();
    let stopped = tokio::select! {
        stopped = running.stop() => stopped,
        signal = signals.stop_again() => bail!("{signal} while stopping: ended at once"),
    };
    match (failure, stopped) {
        (None, Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        (None, Err(error)) => Err(error),
        // What went wrong then came of it; the last line is the reason.
        (Some(failure), _) => Err(failure),
    }
}

/// The same of `edge`.
async fn edge(config: Config, cli: Cli, _bars: Bars) -> Result<()> {
    let mut signals = Signals::install().context("cannot listen for signals")?;
    let (reloads, stop) = (signals.reloads(), CancellationToken::new());
    let mut running = pin!(app::run_edge(
        config,
        read_again(cli),
        reloads,
        stop.clone()
    ));
    tokio::select! {
        ended = &mut running => return ended,
        signal = signals.stop() => tracing::info!(signal, "stopping"),
    }
    stop.cancel();
    tokio::select! {
        ended = running => ended.inspect(|()| tracing::info!("stopped")),
        signal = signals.stop_again() => bail!("{signal} while stopping: ended at once"),
    }
}

/// Reads the settings once more as they were read at the start.
fn read_again(cli: Cli) -> app::ReadSettings {
    let file = cli.settings_file().map(Path::to_owned);
    Arc::new(move || cli.load_again(file.as_deref()))
}

/// Log lines to standard error, above the bars: text for people, or one JSON object a line.
fn start_log(log: &Log, bars: Bars) {
    // A plain level is about us: at `debug` and `trace` the HTTP libraries alone would fill the
    // screen. A receiver's certificate that is no good is told with the consumer's name by us, and
    // at each attempt by the verifier.
    let filter = match log.level.as_str() {
        level @ ("debug" | "trace") => format!("info,satwatch={level}"),
        directives => directives.to_owned(),
    };
    let filter = EnvFilter::new(format!("rustls_platform_verifier=off,{filter}"));
    // Without `log_internal_errors(false)` a closed standard error would make a log line panic.
    let lines = tracing_subscriber::fmt()
        .with_writer(move || bars.clone())
        .with_env_filter(filter)
        .log_internal_errors(false);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => {
            let colours = stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_ansi(colours).init();
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            "internal error: {panic}"
        );
    }));
}
