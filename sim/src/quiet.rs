//! Panics of a simulated world are part of its outcome, and not for stderr.

use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static QUIET: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs something on this thread without a word about panics on stderr. Other threads' panics are told as ever.
pub fn quietly<T>(run: impl FnOnce() -> T) -> T {
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            QUIET.with(|quiet| quiet.set(quiet.get() - 1));
        }
    }
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.with(Cell::get) == 0 {
                return before(info);
            }
            let place = info.location().map(ToString::to_string);
            PLACE.with(|slot| *slot.borrow_mut() = place);
        }));
    });
    QUIET.with(|quiet| quiet.set(quiet.get() + 1));
    let _loud = Loud;
    run()
}

/// Where the last panic on this thread came from, if it was [quiet](quietly).
pub(crate) fn last_place() -> Option<String> {
    PLACE.with(|slot| slot.borrow_mut().take())
}
