//! The command line.

use crate::address::{Address, ListenAddress};
use crate::units;
use crate::url::{CertificateArgs, ListenUrl, ThroughArgs, TrustArgs, Url};
use clap::{Args, Parser, Subcommand};
use sheetbend_sim::Token;
use sheetbend_sim::scenario::{self, Scenario};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Sessions that survive the death of any connection under them.
#[derive(Debug, Parser)]
#[command(
    name = "sheetbend",
    version,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Break a session's connections again and again, and count what gets lost: nothing.
    Demo(DemoArgs),
    /// Take files into a store, and answer calls of 'echo', 'time', 'count' and 'sum'.
    Serve(ServeArgs),
    /// Call a method of a server.
    Call(CallArgs),
    /// Copy files to a server's store, whatever happens to the connections.
    Send(SendArgs),
    /// Tell for each transport whether it leads to a server from here, how long its handshake takes, and what it is
    /// worth.
    Probe(ProbeArgs),
    /// Measure requests, streams and messages over each transport on this machine.
    Bench(BenchArgs),
    /// Relay connections and break them on a schedule, to see what a program makes of it.
    Proxy(ProxyArgs),
    /// Run sessions in simulated worlds that do their worst, from seeds; replay and shrink what fails.
    Sim(SimArgs),
}

/// `sheetbend demo`: everything at once on this machine, with nothing to set up.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print one JSON object at the end instead of the live table.
    #[arg(long)]
    pub json: bool,
    /// How long to run, in seconds (5 to 600).
    #[arg(long, value_name = "S", default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub seconds: u64,
}

/// `sheetbend serve`: take files into a store.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen: host:port, tcp://host:port, tls://host:port, ws://host:port/path, wss://host:port/path,
    /// http://host:port/path, https://host:port/path, quic://host:port, wt://host:port/path or unix:///path; port 0 takes a
    /// free one. All are told apart on one port, quic and wt on the UDP port of the same number; tls, wss and https take
    /// nothing plain.
    #[arg(long, value_name = "ADDR", required_unless_present = "stdio", num_args = 1..)]
    pub listen: Vec<ListenUrl>,
    /// Serve who writes to standard input and reads standard output, as in 'cmd:ssh host sheetbend serve --stdio'; what
    /// is printed goes to standard error. Without --listen it ends with standard input, and its session with it.
    #[arg(long)]
    pub stdio: bool,
    /// Pass standard input and output on to a server that runs already, so that sessions outlive this process:
    /// tcp://host:port or unix:///path.
    #[arg(long, value_name = "ADDR", requires = "stdio", conflicts_with_all = ["listen", "store"])]
    pub to: Option<Address>,
    /// The certificate for TLS.
    #[command(flatten)]
    pub certificate: CertificateArgs,
    /// Serve web pages of this origin, as in `https://app.example.com`; may be given again.
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Answer web pages that use this host name, beside IP addresses and localhost; may be given again.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// A proxy has ended TLS for everything that comes in; nobody else can reach these addresses.
    #[arg(long)]
    pub behind_tls_proxy: bool,
    /// The folder that received files go to; it is made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// The largest file to take, as in 10GB.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub max_file: Option<u64>,
    /// The most that the store may hold, as in 1000GB.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub max_store: Option<u64>,
    /// Let everybody who can connect list the store's files and read them, by the methods 'files' and 'read'.
    #[arg(long, requires = "store")]
    pub share: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `sheetbend call`: one call.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// The server: tcp://host:port, tls://host:port, ws://host/path, wss://host/path, quic://host:port,
    /// sheetbend://host:port (whatever works there) or unix:///path; or cmd:COMMAND, as in
    /// 'cmd:ssh host sheetbend serve --stdio'.
    #[arg(value_name = "URL")]
    pub url: Url,
    /// The method's name.
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// Whom to believe behind TLS.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What leads there.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// What to call it with.
    #[arg(long, short, value_name = "TEXT")]
    pub data: Option<String>,
    /// Call it with what is in a file; - reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub data_file: Option<PathBuf>,
    /// The request is items: each line of the data is one.
    #[arg(long)]
    pub items: bool,
    /// The answer is items: each is printed on a line, as it comes.
    #[arg(long, short)]
    pub stream: bool,
    /// Print items as they are, without a line's end behind each.
    #[arg(long, requires = "stream", conflicts_with = "json")]
    pub raw: bool,
    /// Give the call up after this time, here and at the server, as in 500ms or 2s.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub deadline: Option<Duration>,
    /// Have it executed once under this key, however often it is sent.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Metadata for the call; may be given again.
    #[arg(long, short = 'H', value_name = "KEY=VALUE")]
    pub header: Vec<String>,
    /// Print JSON: a line for each item, and one object at the end.
    #[arg(long)]
    pub json: bool,
}

/// `sheetbend send`: copy files to a server's store.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The files to send.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The server: tcp://host:port, tls://host:port, ws://host/path, wss://host/path, http://host/path,
    /// https://host/path, quic://host:port, sheetbend://host:port (whatever works there) or unix:///path. Over HTTP,
    /// ?mode=binary, sse, ndjson or poll names the only way down. cmd:COMMAND is what a command reads and writes, as in
    /// 'cmd:ssh host sheetbend serve --stdio --to tcp://localhost:7000'.
    #[arg(value_name = "URL")]
    pub url: Url,
    /// A further address of the same server, kept warm to fall back to; may be given again.
    #[arg(long, value_name = "URL")]
    pub also: Vec<Url>,
    /// Whom to believe behind TLS.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What leads there.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// Draw no progress bar.
    #[arg(long, short)]
    pub quiet: bool,
    /// Print one JSON object at the end instead of the progress bar.
    #[arg(long)]
    pub json: bool,
}

/// `sheetbend probe`: which transports lead to a server, and which one a session would use.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The server: sheetbend://host:port for every transport, or the URL of one.
    #[arg(value_name = "URL")]
    pub url: Url,
    /// Whom to believe behind TLS.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What leads there.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// How long to wait for a transport to open, and then for its answers.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_interval)]
    pub patience: Duration,
    /// How long to measure each that opens, where an answer does not take longer.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_interval)]
    pub each: Duration,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `sheetbend bench`: how fast sessions are on this machine.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measure requests to the method 'echo' of this server, instead of everything on this machine: 'sheetbend serve'
    /// answers it.
    #[arg(value_name = "URL")]
    pub url: Option<Url>,
    /// Whom to believe behind TLS.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What leads there.
    #[command(flatten)]
    pub through: ThroughArgs,
    /// Measure nothing but requests.
    #[arg(long)]
    pub rps: bool,
    /// Hold this many sessions at once to one server in a process of its own, have all of them answered, and print
    /// what memory each takes at either end.
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "rps"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: Option<u32>,
    /// Break the path in use and see how long the receiver hears nothing, for every ordered pair of transports, by a
    /// reset (hard) and by silence.
    #[arg(long, conflicts_with_all = ["url", "rps", "sessions"])]
    pub failover: bool,
    /// How often each pair is broken in each way (1 to 1000).
    #[arg(long, value_name = "N", default_value_t = 20, requires = "failover", value_parser = parse_rounds)]
    pub rounds: usize,
    /// Only these transports: tcp, tls, ws, wss, unix, quic, wt, binary, sse, ndjson, poll.
    #[arg(long, value_name = "SCHEMES", requires = "failover", value_delimiter = ',')]
    pub only: Vec<String>,
    /// The transport of those sessions; binary, sse, ndjson and poll are ways down over HTTP.
    #[arg(long, value_name = "SCHEME", default_value = "ws", requires = "sessions",
        value_parser = ["tcp", "tls", "ws", "wss", "https", "quic", "wt", "binary", "sse", "ndjson", "poll"])]
    pub over: String,
    /// Print one JSON object at the end instead of a table.
    #[arg(long)]
    pub json: bool,
    /// How long to measure, in seconds (1 to 600).
    #[arg(long, value_name = "S", default_value_t = 18, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
}

fn parse_rounds(text: &str) -> Result<usize, String> {
    let count = text.parse::<usize>().ok();
    let fits = count.filter(|count| (1..=1000).contains(count));
    fits.ok_or_else(|| format!("`{text}` is not a number from 1 to 1000"))
}

/// `sheetbend proxy`: a relay with faults.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Where to listen: host:port, tcp://host:port or unix:///path; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: ListenAddress,
    /// Where to forward to: tcp://host:port or unix:///path.
    #[arg(long, value_name = "URL")]
    pub to: Address,
    /// Close all connections again and again, at this interval.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub cut_every: Option<Duration>,
    /// Reset all connections again and again, at this interval.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub reset_every: Option<Duration>,
    /// Fall silent without closing, again and again, at this interval.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub stall_every: Option<Duration>,
    /// How long each silence lasts.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_interval)]
    pub stall_for: Duration,
    /// Delay everything by this time in each direction.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub delay: Option<Duration>,
    /// Forward at most this many bytes per second in each direction, all connections together.
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    pub throttle: Option<u64>,
    /// Stop after this many seconds instead of at ^C.
    #[arg(long, value_name = "S")]
    pub seconds: Option<u64>,
    /// Print one JSON object at the end instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `sheetbend sim`: simulated worlds.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["list", "scenario", "replay", "shrink"]))]
pub struct SimArgs {
    /// List the scenarios.
    #[arg(long)]
    pub list: bool,
    /// Run this scenario.
    #[arg(long, value_name = "NAME", value_parser = parse_scenario)]
    pub scenario: Option<&'static Scenario>,
    /// With these seeds: A..B, B not included, or one number.
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = parse_seeds)]
    pub seeds: Range<u64>,
    /// Run this token's world again, and say what it does.
    #[arg(long, value_name = "TOKEN")]
    pub replay: Option<Token>,
    /// Leave out of this token's world what its failure does not need.
    #[arg(long, value_name = "TOKEN")]
    pub shrink: Option<Token>,
    /// Write what happened in one world, the first that failed or else the first, as JSON Lines; as text to read
    /// if FILE ends in .txt.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write a picture of that world, in SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write that world's packets as pcapng, for Wireshark and its like.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// How many threads run worlds; one per core if not given. The outcome is the same for any number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub threads: Option<u64>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

fn parse_scenario(text: &str) -> Result<&'static Scenario, String> {
    scenario::find(text)
        .ok_or_else(|| "there is no such scenario; 'sheetbend sim --list' has them".to_owned())
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("'{text}' is not a seed; write 0..100, or one number"))
    };
    let Some((first, end)) = text.split_once("..") else {
        let only = number(text)?;
        return Ok(only..only.saturating_add(1));
    };
    let range = number(first)?..number(end)?;
    if range.is_empty() {
        return Err("there is no seed in it".to_owned());
    }
    Ok(range)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = units::parse_duration(text)?;
    if interval < Duration::from_millis(1) {
        return Err("an interval is at least 1ms".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::url::Through;
    use clap::CommandFactory;

    /// One command line with the arguments of one command, however it is wired into [`Cli`].
    fn parse<A: Args>(command: &'static str, line: &[&str]) -> Result<A, Failure> {
        let root = clap::Command::new("sheetbend").subcommand_required(true);
        let root = root.subcommand(A::augment_args(clap::Command::new(command)));
        let words = ["sheetbend", command].into_iter().chain(line.iter().copied());
        let matches = root.try_get_matches_from(words)?;
        let (_, matches) = matches.subcommand().expect("a command is required");
        Ok(A::from_arg_matches(matches)?)
    }

    fn line<A: Args + std::fmt::Debug>(command: &'static str, words: &[&str]) -> String {
        let failure = parse::<A>(command, words).expect_err("must be refused");
        assert_eq!(failure.code(), 2);
        let line = failure.to_string();
        assert!(!line.contains('\n'));
        line
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_parse() {
        let demo: DemoArgs = parse("demo", &["--json"]).expect("valid");
        assert!(demo.json && demo.seconds == 50);
        let send: SendArgs = parse("send", &["a", "b", "tcp://h:7", "--quiet"]).expect("valid");
        assert_eq!(send.files, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(send.url.to_string(), "tcp://h:7");
        let serve: ServeArgs = parse("serve", &["--listen", "127.0.0.1:0", "unix:///x"]).expect("valid");
        assert_eq!(serve.listen.len(), 2);
        let proxy: ProxyArgs = parse("proxy", &["--to", "tcp://h:7", "--throttle", "100MB"]).expect("valid");
        assert_eq!(proxy.throttle, Some(100_000_000));
        let through = [
            "wss://h",
            "echo",
            "--proxy",
            "http://me:secret@p:8080",
            "--ca",
            "f",
        ];
        let call: CallArgs = parse("call", &through).expect("valid");
        assert_eq!(call.url.to_string(), "wss://h:443/");
        assert!(
            matches!(call.through.proxy, Some(Through::Proxy(proxy)) if proxy.to_string() == "http://p:8080")
        );
        let bench: BenchArgs = parse("bench", &["tcp://h:7", "--proxy", "none"]).expect("valid");
        assert!(matches!(bench.through.proxy, Some(Through::Nothing)));
        let sim: SimArgs = parse("sim", &["--scenario", "swarm", "--seeds", "7..9"]).expect("valid");
        assert!(sim.scenario.is_some_and(|one| one.name == "swarm"));
        assert_eq!(sim.seeds, 7..9);
        let sim: SimArgs = parse("sim", &["--replay", "swarm.ff.bAwI"]).expect("valid");
        assert_eq!(sim.replay.map(|token| token.seed), Some(255));
    }

    #[test]
    fn a_wrong_command_line_is_one_clear_line() {
        assert_eq!(
            line::<SendArgs>("send", &["a", "localhost:7"]),
            "invalid value 'localhost:7' for '<URL>': the scheme is missing; write tcp://localhost:7 \
             (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<SendArgs>("send", &[]),
            "the following required arguments were not provided: <FILE>... <URL> (see 'sheetbend send --help')"
        );
        assert_eq!(
            line::<CallArgs>("call", &["wss://h", "echo", "--proxy", "socks4://p"]),
            "invalid value 'socks4://p' for '--proxy <URL>': proxies of the kind `socks4` are not spoken here: known \
             are http, https, socks5 and socks5h (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<DemoArgs>("demo", &["--jsn"]),
            "unexpected argument '--jsn' found; a similar argument exists: '--json' (see 'sheetbend demo --help')"
        );
        assert_eq!(
            line::<DemoArgs>("demo", &["--seconds", "1"]),
            "invalid value '1' for '--seconds <S>': 1 is not in 5..=600 (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<ProxyArgs>("proxy", &["--to", "tcp://h:7", "--cut-every", "soon"]),
            "invalid value 'soon' for '--cut-every <TIME>': 'soon' is not a time; write it as in 200ms, 1.5s or 2m \
             (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<SimArgs>("sim", &["--scenario", "warm"]),
            "invalid value 'warm' for '--scenario <NAME>': there is no such scenario; 'sheetbend sim --list' has \
             them (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<SimArgs>("sim", &["--scenario", "swarm", "--seeds", "5..5"]),
            "invalid value '5..5' for '--seeds <A..B>': there is no seed in it (see 'sheetbend --help')"
        );
        assert_eq!(
            line::<SimArgs>("sim", &["--replay", "swarm.12x"]),
            "invalid value 'swarm.12x' for '--replay <TOKEN>': the seed '12x' is not a hexadecimal number of 64 \
             bits (see 'sheetbend --help')"
        );
        assert!(line::<SimArgs>("sim", &[]).contains("were not provided"));
        let failure = Failure::from(Cli::try_parse_from(["sheetbend"]).expect_err("no command"));
        assert!(
            failure
                .to_string()
                .starts_with("'sheetbend' requires a subcommand"),
            "{failure}"
        );
    }
}
