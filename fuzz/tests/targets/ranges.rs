//! The set of ranges against a flag for each number.

use sheetbend_core::stream::RangeSet;

#[test]
fn any_operations() {
    bolero::check!()
        .with_iterations(2000)
        .with_type::<Vec<(u8, u8, u8)>>()
        .for_each(|ops| {
            let mut set = RangeSet::new();
            let mut model = [false; 512];
            for &(op, start, len) in ops {
                let range = usize::from(start)..usize::from(start) + usize::from(len % 40);
                let wide = range.start as u64..range.end as u64;
                let present = model[range.clone()].iter().filter(|b| **b).count() as u64;
                match op % 4 {
                    0 | 1 => {
                        assert_eq!(set.insert(wide.clone()), wide.end - wide.start - present);
                        model[range].fill(true);
                    }
                    2 => {
                        assert_eq!(set.remove(wide), present);
                        model[range].fill(false);
                    }
                    _ => {
                        let popped = set.pop_front(u64::from(len));
                        let first = model.iter().position(|b| *b).filter(|_| len > 0);
                        assert_eq!(popped.as_ref().map(|r| r.start), first.map(|f| f as u64));
                        if let Some(popped) = popped {
                            model[popped.start as usize..popped.end as usize].fill(false);
                        }
                    }
                }
                let ranges: Vec<_> = set.iter().collect();
                assert!(ranges.iter().all(|r| r.start < r.end), "empty range in {set:?}");
                assert!(
                    ranges.windows(2).all(|w| w[0].end < w[1].start),
                    "unsorted or touching: {set:?}"
                );
                for (value, present) in model.iter().enumerate() {
                    assert_eq!(set.contains(value as u64), *present, "{value} in {set:?}");
                }
                let missing: u64 = set.gaps(0..512).map(|g| g.end - g.start).sum();
                assert_eq!(missing, model.iter().filter(|b| !**b).count() as u64);
            }
        });
}
