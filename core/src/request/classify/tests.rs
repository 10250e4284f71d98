//! What is said of errors, and what follows from it.

use super::*;

#[test]
fn named_codes_are_classified_on_purpose() {
    let unknown = ErrorCode::from(200).classify();
    for code in (0..256).map(ErrorCode::from) {
        let by_default = code == ErrorCode::INTERNAL || code.name().is_none();
        assert_eq!(code.classify() == unknown, by_default, "{code}");
    }
    assert_eq!(ErrorCode::from(300).classify().category, Category::Application);
    let unknown = RejectCode::from(200).classify();
    for code in (0..256).map(RejectCode::from) {
        let by_default = code == RejectCode::REFUSED || code.name().is_none();
        assert_eq!(code.classify() == unknown, by_default, "{code}");
    }
}

#[test]
fn a_callees_word_on_retries_counts() {
    let busy = Overload::Total.failure();
    assert_eq!(
        busy.classify().advice,
        Advice::RetryAfter(Duration::from_millis(100))
    );
    let never = busy.with_pushback(Pushback::Never).classify();
    assert!(!never.is_retryable() && never.counts_against_target());
    let asked = Failure::new(Code::Internal, "").with_pushback(Pushback::After(Duration::from_secs(3)));
    assert_eq!(
        asked.classify().advice,
        Advice::RetryAfter(Duration::from_secs(3))
    );
}

#[test]
fn what_may_be_repeated() {
    for executed in [Executed::No, Executed::Maybe, Executed::Yes] {
        assert!(may_repeat(executed, true));
        assert_eq!(may_repeat(executed, false), executed == Executed::No);
    }
}

#[test]
fn the_requests_own_faults_leave_the_breaker_alone() {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::Application(1),
    ] {
        assert!(!code.classify().counts_against_target(), "{code}");
    }
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted] {
        assert!(code.classify().counts_against_target(), "{code}");
    }
}
