use crate::stream::RangeSet;

#[test]
fn hostile_bounds_are_harmless() {
    let mut set = RangeSet::new();
    assert_eq!(set.insert(0..u64::MAX), u64::MAX);
    assert_eq!(set.remove(5..u64::MAX), u64::MAX - 5);
    assert_eq!(set.pop_front(u64::MAX), Some(0..5));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = 7..3;
    assert_eq!(set.insert(reversed), 0);
    assert!(set.is_empty());
    assert_eq!(set.memory_bytes(), 0);
}
