use crate::stream::ChunkSize;

#[test]
fn the_cap_follows_what_comes() {
    let mut size = ChunkSize::default();
    let grown: Vec<_> = (0..4)
        .map(|_| {
            size.took(size.cap());
            size.cap()
        })
        .collect();
    assert_eq!(grown, [16 << 10, 32 << 10, 64 << 10, 64 << 10]);
    size.took(100);
    assert_eq!(size.cap(), 64 << 10, "one small portion changes nothing");
    size.took(40 << 10);
    size.took(100);
    assert_eq!(size.cap(), 64 << 10, "two that are not in a row neither");
    size.took(100);
    assert_eq!(size.cap(), 32 << 10);
    for _ in 0..10 {
        size.took(0);
    }
    assert_eq!(size.cap(), 8 << 10);
}

#[test]
fn the_largest_cap_is_the_one_that_is_given() {
    for (max, least) in [(100, 100), (8 << 10, 8 << 10), (20 << 10, 8 << 10), (1 << 20, 8 << 10), (0, 1)] {
        let mut size = ChunkSize::new(max);
        assert_eq!(size.cap(), least);
        for _ in 0..20 {
            size.filled();
        }
        assert_eq!(size.cap(), max.max(1));
        for _ in 0..40 {
            size.small();
        }
        assert_eq!(size.cap(), least);
    }
}
