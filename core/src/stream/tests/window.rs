use std::time::Duration;

use crate::stream::Window;
use crate::time::Timestamp;

const RTT: Duration = Duration::from_millis(10);

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

#[test]
fn grows_only_when_used_up_fast() {
    let mut window = Window::new(1000, 4000);
    window.on_consumed(500);
    assert_eq!(window.update(ms(0), RTT, 0), None, "half is left");
    window.on_consumed(1);
    assert_eq!(
        window.update(ms(0), RTT, 0),
        Some(1501),
        "the first update never grows the window"
    );
    window.on_consumed(900);
    assert_eq!(window.update(ms(19), RTT, 0), Some(1401 + 2000));
    window.on_consumed(2000);
    assert_eq!(
        window.update(ms(60), RTT, 0),
        Some(3401 + 2000),
        "too slow to grow"
    );
    window.on_consumed(2000);
    assert_eq!(window.update(ms(61), RTT, 0), Some(5401 + 4000));
    window.on_consumed(4000);
    assert_eq!(
        window.update(ms(62), RTT, 0),
        Some(9401 + 4000),
        "not beyond the maximum"
    );
    assert_eq!(
        (window.consumed(), window.size(), window.limit()),
        (9401, 4000, 13401)
    );
}

#[test]
fn what_is_expected_is_granted_by_the_first_update() {
    let mut window = Window::new(1000, 4000);
    window.expect(3000);
    assert_eq!((window.limit(), window.size()), (1000, 3000), "nothing yet");
    assert_eq!(window.update(ms(0), RTT, 0), Some(3000));
    window.on_consumed(1600);
    assert_eq!(window.update(ms(60), RTT, 0), Some(4600));
    window.expect(2000);
    assert_eq!(window.size(), 3000, "never less");
    window.expect(u64::MAX);
    assert_eq!(window.size(), 4000, "not beyond the maximum");
}

#[test]
fn pinned_memory_is_charged() {
    let mut window = Window::new(1000, 1000);
    window.on_consumed(600);
    assert_eq!(
        window.update(ms(0), RTT, 500),
        None,
        "100 bytes are not worth a frame"
    );
    assert_eq!(window.update(ms(0), RTT, 5000), None);
    assert_eq!(window.update(ms(0), RTT, 200), Some(1400));
}

#[test]
fn extremes_are_harmless() {
    let mut window = Window::new(u64::MAX, u64::MAX);
    window.on_consumed(u64::MAX);
    window.on_consumed(u64::MAX);
    let most = Some(crate::stream::MAX_OFFSET);
    assert_eq!(window.update(Timestamp::MAX, Duration::MAX, u64::MAX), most);
    assert_eq!(window.update(Timestamp::MAX, Duration::MAX, 0), None);
    assert_eq!(Window::new(0, 0).update(ms(0), RTT, 0), None);
}
