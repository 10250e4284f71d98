//! Which faults begin something that another one ends.

use super::record::Phase;
use crate::fault::Fault;

fn when(begins: bool) -> Phase {
    if begins { Phase::Begins } else { Phase::Ends }
}

/// Whether a fault begins or ends something, and a key by which the two are found to belong together.
pub(super) fn of(fault: &Fault, usual: impl FnOnce() -> bool) -> (Phase, String) {
    match fault {
        Fault::Link {
            from, to, network, ..
        } => (when(!usual()), format!("link {network} {from} {to}")),
        Fault::Partition {
            from,
            to,
            network,
            cut,
        } => (when(*cut), format!("cut {network} {from} {to}")),
        Fault::Interface { host, network, up } => (when(!up), format!("interface {network} {host}")),
        Fault::Middlebox {
            host,
            network,
            config,
        } => (when(config.is_some()), format!("box {network} {host}")),
        Fault::Crash { host } | Fault::Pause { host } | Fault::Suspend { host } => {
            (Phase::Begins, format!("power {host}"))
        }
        Fault::Restart { host } | Fault::Resume { host, .. } => (Phase::Ends, format!("power {host}")),
        Fault::Skew { host, ppm } => (when(*ppm != 0), format!("skew {host}")),
        other => (Phase::Happens, other.to_string()),
    }
}
