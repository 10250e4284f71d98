//! The async handles.
#![forbid(unsafe_code)]
mod address; mod mem; mod rt;
pub use address::{Address, AddressError, MAX_ADDRESS_LEN, ToAddress};
pub use mem::{MEM_BACKLOG, MEM_CAPACITY, MemListener, MemNetwork, MemSocket, mem_pair};
pub use rt::{BoxFuture, Listener, Runtime, Socket, Timer};
