//! `sheetbend serve`: sessions that bring files into a store, and make small calls.

mod methods;
mod session;

use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::output;
use crate::transfer::store::{Limits, Store};
use crate::units;
use serde::Serialize;
use sheetbend_tokio::{BindError, Guard, Server, ServerTls, runtime};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long transfers under way may take to finish after ^C.
const DRAIN: Duration = Duration::from_secs(5);

/// How many reports may wait to be printed.
const REPORTS: usize = 1024;

/// Something that happened, as it is printed.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum News {
    /// The server listens.
    Listening {
        /// Where.
        addresses: Vec<String>,
        /// The folder for files, if there is one.
        store: Option<String>,
        /// By what clients may know the key behind TLS, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        pin: Option<String>,
        /// By what browsers may know the certificate, for WebTransport.
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate_hash: Option<String>,
    },
    /// The certificate was read again.
    Reloaded {
        /// By what clients may know its key.
        pin: Option<String>,
    },
    /// A file is in place.
    Stored {
        /// Its name.
        file: String,
        /// Its size.
        bytes: u64,
        /// How many bytes were there when the last stream began.
        resumed_at: u64,
        /// Its SHA-256 in hexadecimal.
        sha256: String,
    },
    /// A transfer ended without a file.
    Failed {
        /// Why.
        error: String,
    },
    /// The server has stopped.
    Stopped {
        /// Whether everything under way was finished.
        drained: bool,
    },
}

impl News {
    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            let text = serde_json::to_string(self).map_err(|error| Failure::failed(error.to_string()))?;
            return output::line(&text);
        }
        match self {
            News::Listening {
                addresses,
                store,
                pin,
                certificate_hash,
            } => {
                addresses
                    .iter()
                    .try_for_each(|at| output::line(&format!("listening on {at}")))?;
                if let Some(pin) = pin {
                    output::line(&format!("the key behind TLS has the pin {pin}"))?;
                }
                if let Some(hash) = certificate_hash {
                    output::line(&format!("browsers know the certificate by SHA-256 {hash}"))?;
                }
                match store {
                    Some(store) => output::line(&format!("storing files in {store}")),
                    None => output::line("taking no files: there is no --store"),
                }
            }
            News::Stored {
                file, bytes, sha256, ..
            } => output::line(&format!(
                "stored {file}: {}, SHA-256 {sha256}",
                units::bytes(*bytes)
            )),
            News::Reloaded { pin } => output::line(&format!(
                "the certificate was read again; its key has the pin {}",
                pin.as_deref().unwrap_or("unknown")
            )),
            News::Failed { error } => {
                output::aside(&format!("a transfer ended: {error}"));
                Ok(())
            }
            News::Stopped { drained: true } => output::line("stopped"),
            News::Stopped { drained: false } => output::line("stopped; unfinished transfers can be resumed"),
        }
    }
}

/// Serves until ^C.
///
/// # Errors
/// An address cannot be listened on, or the store cannot be used.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    crate::files::raise_limit();
    let store = args
        .store
        .as_deref()
        .map(|path| open_store(&args, path))
        .transpose()?;
    let tls = args.certificate.load(&args.listen)?;
    let server = bind(&args, tls.clone()).await?;
    let addresses = server.addresses().iter().map(ToString::to_string).collect();
    let folder = args.store.as_ref().map(|path| path.display().to_string());
    News::Listening {
        addresses,
        store: folder,
        pin: pin(tls.as_ref()),
        certificate_hash: tls.as_ref().and_then(ServerTls::certificate_hash),
    }
    .print(args.json)?;
    let (reports, mut news) = mpsc::channel(REPORTS);
    let router = methods::router(store.clone().filter(|_| args.share));
    let mut sessions = JoinSet::new();
    let (mut interrupted, mut terminated) = signals()?;
    let mut hangup = signal(SignalKind::hangup()).map_err(deaf)?;
    loop {
        tokio::select! {
            Some(session) = server.accept() => {
                sessions.spawn(session::serve(session, router.clone(), store.clone(), reports.clone()));
            }
            Some(news) = news.recv() => news.print(args.json)?,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            _ = hangup.recv() => reload(&args, tls.as_ref())?,
        }
    }
    if !args.json {
        output::aside("finishing what is under way; ^C again stops at once");
    }
    server.drain("");
    let drained = server.drained();
    tokio::pin!(drained);
    let limit = tokio::time::sleep(DRAIN);
    tokio::pin!(limit);
    let drained = loop {
        tokio::select! {
            () = &mut drained => break true,
            () = &mut limit => break false,
            Some(news) = news.recv() => news.print(args.json)?,
            _ = interrupted.recv() => break false,
            _ = terminated.recv() => break false,
        }
    };
    while let Ok(last) = news.try_recv() {
        last.print(args.json)?;
    }
    News::Stopped { drained }.print(args.json)
}

fn pin(tls: Option<&ServerTls>) -> Option<String> {
    tls.and_then(ServerTls::pin).map(|pin| pin.to_string())
}

/// Reads the certificate again; if that fails, the old one stays.
fn reload(args: &ServeArgs, tls: Option<&ServerTls>) -> Result<(), Failure> {
    let Some(tls) = tls else { return Ok(()) };
    match args.certificate.reload(tls) {
        Ok(true) => News::Reloaded { pin: pin(Some(tls)) }.print(args.json),
        Ok(false) => Ok(()),
        Err(failure) => {
            output::aside(&format!("{failure}; the certificate stays"));
            Ok(())
        }
    }
}

fn deaf(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}"))
}

fn signals() -> Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal), Failure> {
    let listen = |kind| signal(kind).map_err(deaf);
    Ok((listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))
}

fn open_store(args: &ServeArgs, path: &std::path::Path) -> Result<Store, Failure> {
    let default = Limits::default();
    let limits = Limits {
        max_file_bytes: args.max_file.unwrap_or(default.max_file_bytes),
        max_store_bytes: args.max_store.unwrap_or(default.max_store_bytes),
        ..default
    };
    let unusable = |error: std::io::Error| {
        Failure::failed(format!(
            "cannot store files in {}: {error}; choose another --store",
            path.display()
        ))
    };
    let store = Store::open(path, limits).map_err(unusable)?;
    // Found out now rather than by the first sender.
    tempfile::tempfile_in(path).map_err(unusable)?;
    Ok(store)
}

async fn bind(args: &ServeArgs, tls: Option<ServerTls>) -> Result<Server, Failure> {
    let mut guard = Guard::default();
    for origin in &args.allow_origin {
        guard = guard.allow_origin(origin);
    }
    for host in &args.allow_host {
        guard = guard.allow_host(host);
    }
    let mut server = Server::builder()
        .guard(guard)
        .behind_tls_proxy(args.behind_tls_proxy);
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    for address in &args.listen {
        server = server
            .listen(&address.0)
            .map_err(|error| Failure::usage(error.to_string()))?;
    }
    server.bind(runtime()).await.map_err(|error| match error {
        BindError::Listen { address, error } => Failure::failed(format!(
            "cannot listen on {address}: {error}; choose another --listen address"
        )),
        BindError::NoCertificate { address } => Failure::usage(format!(
            "{address} needs a certificate: --tls self-signed, or --cert and --key"
        )),
        other => Failure::failed(other.to_string()),
    })
}
